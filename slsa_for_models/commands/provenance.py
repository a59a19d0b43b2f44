"""`slsa_for_models provenance`: SLSA provenance of a trained model, signed."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from model_signing.terminal import command_line
from slsa_for_models.commands.shared_options import (
    TRUST,
    check_apart,
    check_writable,
    moment,
    trust,
)

_OPTIONS: dict[str, command_line.Row] = {
    "model": ("FILE", "a file or a directory"),
    "--training-record": ("FILE!", "the training.json that `train` wrote"),
    "--output": ("FILE!", "the provenance to write"),
    "--workflow-inputs": ("JSON = {}", "what the caller of the workflow chose: toJSON(inputs)"),
    "--source": (
        "DIR",
        "this job's own checkout of the caller's commit: the requirements and the file of pins "
        "that the inputs name are hashed there",
    ),
    "--requirements": (
        "FILE...",
        "a locked requirements file; the training of a recipe must name one of them",
    ),
    "--base-model": ("SIGNATURE...", "the OMS signature of a model that training started from"),
    "--expected": ("BASE64", "refuse a model with other subjects than these"),
    "--expected-sha256": (
        "HEX",
        "refuse a file with another digest, or a directory with another OMS statement",
    ),
    "--started-on": ("TIME", "when the run started (RFC 3339)", moment),
    "--predicate-only": ("", "write the bare predicate, unsigned, for actions/attest to sign"),
    "--identity-token": ("TOKEN", "use this OpenID Connect token, not the job's own"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Write SLSA v1 provenance of a trained model, signed with the identity of this "
        "GitHub Actions job (a Sigstore bundle). The model is hashed, never loaded; the training "
        "record is recorded as the training job's own claim."
    )
    parser.epilog = (
        "example, in a job with `id-token: write`:\n"
        "  slsa_for_models provenance pytorch_model.pth --training-record training.json \\\n"
        "    --output pytorch_model.pth.provenance.sigstore.json"
    )
    command_line.add_options(parser, _OPTIONS)
    command_line.add_options(parser.add_argument_group("Sigstore"), TRUST)
    parser.set_defaults(run=run)


def _is_predicate(beginning: bytes) -> bool:
    return beginning.startswith(b'{\n  "buildDefinition": {\n')


def run(args: argparse.Namespace) -> int:
    """The command."""
    from model_signing.safe_files import read_bounded, write_atomic
    from slsa_for_models.attesting import signing_job
    from slsa_for_models.attesting.build_context import from_token, parse_inputs
    from slsa_for_models.evidence import training_record

    check_writable(args.output, _is_predicate if args.predicate_only else None)
    check_apart(args.output, (args.model, args.training_record, *args.requirements))
    token = args.identity_token or signing_job.ambient_token()
    context = from_token(
        token,
        inputs=parse_inputs(args.workflow_inputs),
        started=args.started_on,
        now=datetime.now(timezone.utc),
    )
    sign = None if args.predicate_only else signing_job.signer(args.identity_token, trust(args))
    statement = signing_job.make_statement(
        args.model,
        read_bounded(args.training_record, training_record.MAX_BYTES),
        context,
        expected=args.expected,
        expected_sha256=args.expected_sha256,
        source=args.source,
        locks=args.requirements,
        base_signatures=args.base_model,
    )
    if sign is None:
        data = signing_job.predicate_of(statement)
    else:
        data = signing_job.sign_provenance(statement, sign, trust(args))
    write_atomic(args.output, data, over_bundles_only=sign is not None)
    print(args.output)
    return 0
