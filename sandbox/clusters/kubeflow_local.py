"""Runs the Kubeflow pipeline with KFP's own subprocess runner, for `kubeflow_demo`.

usage: python -m sandbox.clusters.kubeflow_local OUTPUT PARAMETERS_JSON

This is the one module here that runs in the environment of KFP, where nothing else is installed.
"""

# mypy: disable-error-code="import-not-found,import-untyped"

import json
import sys

from kfp import local

from slsa_for_models.kubeflow.pipeline import build

if __name__ == "__main__":
    output, parameters = sys.argv[1:]
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=output)
    build()(**json.loads(parameters))
