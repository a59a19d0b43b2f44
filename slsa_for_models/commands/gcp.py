"""`slsa_for_models gcp`: the steps of the Tekton pipeline that neither train nor sign."""

from __future__ import annotations

import argparse

from model_signing.errors import UsageError
from model_signing.terminal import command_line
from slsa_for_models.gcp import steps

_CLONE: dict[str, command_line.Row] = {
    "url": ("URL", "https://HOST/ORG/REPO"),
    "--revision": ("REVISION!", "a commit, or a full git reference"),
    "--output-dir": ("PATH!", "for the files"),
    "--source-result": ("PATH!", "Tekton result"),
}
_UPLOAD: dict[str, command_line.Row] = {
    "model": ("FILE", "a file"),
    "--destination": ("gs://BUCKET/FOLDER!", "where to put them"),
    "--signature": ("PATH!", "of the model"),
    "--training-record": ("PATH!", "of the model"),
    "--model-result": ("PATH!", "Tekton result"),
    "--signature-result": ("PATH!", "Tekton result"),
    "--record-result": ("PATH!", "Tekton result"),
    "--dataset-result": ("PATH!", "Tekton result"),
}
_DOWNLOAD: dict[str, command_line.Row] = {
    "references": ("gs://BUCKET/OBJECT@sha256:DIGEST+", "objects, each with its digest"),
    "--output-dir": ("PATH!", "for the objects"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's steps, with their options."""
    parser.description = "Steps of the Tekton pipeline in slsa_for_models/gcp."
    parser.epilog = (
        "example:\n  slsa_for_models gcp clone https://github.com/ORG/REPO "
        "\\\n    --revision refs/heads/main --output-dir source --source-result source.json"
    )
    steps_ = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    for name, purpose, options, run in (
        ("clone", "fetch one commit and report which", _CLONE, _clone),
        ("upload", "put a model, its signature and record in a bucket", _UPLOAD, _upload),
        ("download", "get objects of known digests from a bucket", _DOWNLOAD, _download),
    ):
        step = steps_.add_parser(name, help=purpose)
        command_line.add_options(step, options)
        step.set_defaults(run=run)


def _clone(args: argparse.Namespace) -> int:
    commit = steps.clone(args.url, args.revision, args.output_dir)
    ref = f"@{args.revision}" if args.revision.startswith("refs/") else ""
    # Chains drops an input that equals the reference of the pipeline itself; the suffix, which
    # Chains adds to a CHAINS-GIT_URL too, keeps the two apart.
    steps.write_result(args.source_result, f"git+{args.url}.git{ref}", f"sha1:{commit}")
    print(f"{args.url} at {commit}")
    return 0


def _upload(args: argparse.Namespace) -> int:
    from slsa_for_models.evidence import training_record

    with steps.reading(args.training_record) as file:
        claimed = training_record.parse(file.read(training_record.MAX_BYTES + 1)).dataset
    destination = args.destination.rstrip("/")
    if len(destination) > steps.MAX_DESTINATION:
        raise UsageError("the destination is too long for Tekton", found=destination[:100])
    files = {
        args.model_result: (args.model, args.model.name, {"isBuildArtifact": "true"}),
        args.signature_result: (args.signature, args.signature.name, {}),
        args.record_result: (args.training_record, args.training_record.name, {}),
    }
    for result, (path, name, flags) in files.items():
        uri = f"{destination}/{name}"
        digest = steps.upload(path, uri)
        steps.write_result(result, uri, f"sha256:{digest}", flags)
        print(f"{uri}@sha256:{digest}")
    if claimed.sha256 is not None:
        uri = (claimed.files[0].uri or "") if len(claimed.files) == 1 else ""
        steps.write_result(args.dataset_result, uri or "dataset:files", f"sha256:{claimed.sha256}")
    return 0


def _download(args: argparse.Namespace) -> int:
    for reference in args.references:
        print(steps.download(reference, args.output_dir))
    return 0
