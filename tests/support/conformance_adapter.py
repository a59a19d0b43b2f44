#!/usr/bin/env python3
"""The public OMS conformance suite's protocol, spoken to our command line.

Protocol: docs/conformance_adapter_cli_protocol.md of sampras343/model-signing-conformance. Run the
suite with `pytest test/ --entrypoint=.../conformance_adapter.py`.

The protocol has no way to name a private Sigstore or to stay off the network, so these options
come from the environment: OMS_ADAPTER_SIGSTORE_OPTIONS, split as a shell would.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from model_signing import cli

# The protocol's option -> ours. The value's shape is argparse's `action`.
RENAMED = {
    "--private-key": ("--private-key", "store"),
    "--signing-cert": ("--signing-certificate", "store"),
    "--cert-chain": ("--certificate-chain", "append"),
    "--ignore-paths": ("--ignore-paths", "append"),
    "--identity-token": ("--identity-token", "store"),
    "--use-staging": ("--use-staging", "store_true"),
    "--output-bundle": ("--signature", "store"),
    "--bundle": ("--signature", "store"),
    "--public-key": ("--public-key", "store"),
    "--ignore-unsigned-files": ("--ignore-unsigned-files", "store_true"),
    "--identity": ("--identity", "store"),
    "--identity-provider": ("--identity-provider", "store"),
}
COMMANDS = {"sign-model": "sign", "verify-model": "verify"}


def translate(argv: Sequence[str]) -> list[str]:
    """Our arguments for the protocol's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--method", required=True)
    parser.add_argument("--model-path", required=True)
    for option, (_, action) in RENAMED.items():
        parser.add_argument(option, action=action)
    given = vars(parser.parse_args(argv))
    arguments = [COMMANDS[given["command"]], given["method"], given["model_path"], "--no-progress"]
    for option, (ours, _) in RENAMED.items():
        value = given[option.removeprefix("--").replace("-", "_")]
        if value is True:
            arguments.append(ours)
        elif value:
            for one in value if isinstance(value, list) else [value]:
                arguments += [ours, one]
    if given["command"] == "verify-model":
        arguments.append("--allow-legacy-predicate")  # the suite has a v0.2.0 bundle, no option
    if given["method"] == "sigstore":
        arguments += shlex.split(os.environ.get("OMS_ADAPTER_SIGSTORE_OPTIONS", ""))
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command of the protocol."""
    return cli.main(translate(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
