"""`slsa_for_models gcp`: the steps of the Tekton pipeline that neither train nor sign."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_signing.errors import UsageError
from slsa_for_models.commands.shared_options import Commands
from slsa_for_models.gcp import steps


def configure(commands: Commands) -> None:
    """Adds the command; imports nothing heavy."""
    parser = commands.add_parser(
        "gcp",
        help="steps of the Tekton pipeline: clone, upload, download",
        description="Steps of the Tekton pipeline in slsa_for_models/gcp.",
        epilog="example:\n  slsa_for_models gcp clone https://github.com/ORG/REPO "
        "\\\n    --revision refs/heads/main --output-dir source --source-result source.json",
    )
    step = parser.add_subparsers(dest="step", metavar="STEP", required=True)

    clone = step.add_parser("clone", help="fetch one commit and report which")
    clone.add_argument("url", metavar="URL", help="https://HOST/ORG/REPO")
    clone.add_argument("--revision", required=True, help="a commit, or a full git reference")
    _add_paths(clone, {"output-dir": "for the files", "source-result": "Tekton result"})
    clone.set_defaults(run=_run_clone)

    upload = step.add_parser("upload", help="put a model, its signature and record in a bucket")
    upload.add_argument("model", type=Path, metavar="MODEL", help="a file")
    upload.add_argument(
        "--destination", required=True, metavar="gs://BUCKET/FOLDER", help="where to put them"
    )
    results = [f"{what}-result" for what in ("model", "signature", "record", "dataset")]
    evidence = {"signature": "of the model", "training-record": "of the model"}
    _add_paths(upload, evidence | dict.fromkeys(results, "Tekton result"))
    upload.set_defaults(run=_run_upload)

    download = step.add_parser("download", help="get objects of known digests from a bucket")
    download.add_argument(
        "references",
        nargs="+",
        metavar="gs://BUCKET/OBJECT@sha256:DIGEST",
        help="objects, each with its digest",
    )
    _add_paths(download, {"output-dir": "for the objects"})
    download.set_defaults(run=_run_download)


def _add_paths(parser: argparse.ArgumentParser, helps: dict[str, str]) -> None:
    """Options that name a file or a folder, all of them required."""
    for name, text in helps.items():
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PATH", help=text)


def _run_clone(args: argparse.Namespace) -> int:
    commit = steps.clone(args.url, args.revision, args.output_dir)
    ref = f"@{args.revision}" if args.revision.startswith("refs/") else ""
    # Chains drops an input that equals the reference of the pipeline itself; the suffix, which
    # Chains adds to a CHAINS-GIT_URL too, keeps the two apart.
    steps.write_result(args.source_result, f"git+{args.url}.git{ref}", f"sha1:{commit}")
    print(f"{args.url} at {commit}")
    return 0


def _run_upload(args: argparse.Namespace) -> int:
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
    steps.write_result(
        args.dataset_result, claimed.source or f"dataset:{claimed.name}", f"sha256:{claimed.sha256}"
    )
    return 0


def _run_download(args: argparse.Namespace) -> int:
    for reference in args.references:
        print(steps.download(reference, args.output_dir))
    return 0
