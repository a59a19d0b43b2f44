"""`slsa_for_models provenance`: SLSA provenance of a trained model, signed."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

from slsa_for_models.commands.shared_options import (
    Commands,
    add_trust_options,
    check_writable,
    moment,
    trust,
)


def configure(commands: Commands) -> None:
    """Adds the command; imports nothing heavy."""
    parser = commands.add_parser(
        "provenance",
        help="say verifiably how a model was trained",
        description="Write SLSA v1 provenance of a trained model, signed with the identity of this "
        "GitHub Actions job (a Sigstore bundle). The model is hashed, never loaded; the training "
        "record is recorded as the training job's own claim.",
        epilog="example, in a job with `id-token: write`:\n"
        "  slsa_for_models provenance pytorch_model.pth --training-record training.json \\\n"
        "    --output pytorch_model.pth.provenance.sigstore.json",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file or a directory")
    parser.add_argument(
        "--training-record",
        type=Path,
        required=True,
        metavar="FILE",
        help="the training.json that `train` wrote",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the provenance to write"
    )
    parser.add_argument(
        "--workflow-inputs",
        default="{}",
        metavar="JSON",
        help="what the caller of the workflow chose: toJSON(inputs)",
    )
    parser.add_argument(
        "--requirements",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a locked requirements file of this workflow's commit; training must name one of them",
    )
    parser.add_argument(
        "--base-model",
        type=Path,
        action="append",
        default=[],
        metavar="SIGNATURE",
        help="the OMS signature of a model that training started from",
    )
    parser.add_argument(
        "--expected", metavar="BASE64", help="refuse a model with other subjects than these"
    )
    parser.add_argument(
        "--expected-sha256",
        metavar="HEX",
        help="refuse a file with another digest, or a directory with another OMS statement",
    )
    parser.add_argument(
        "--started-on", type=moment, metavar="TIME", help="when the run started (RFC 3339)"
    )
    parser.add_argument(
        "--predicate-only",
        action="store_true",
        help="write the bare predicate, unsigned, for actions/attest to sign",
    )
    parser.add_argument(
        "--identity-token", metavar="TOKEN", help="use this OpenID Connect token, not the job's own"
    )
    add_trust_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from model_signing.safe_files import read_bounded, write_atomic
    from slsa_for_models.attesting import signing_job
    from slsa_for_models.attesting.build_context import from_token, parse_inputs
    from slsa_for_models.evidence import training_record

    check_writable(args.output)
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
        locks=args.requirements,
        base_signatures=args.base_model,
    )
    if sign is None:
        data = signing_job.predicate_of(statement)
    else:
        data = signing_job.sign_provenance(statement, sign, trust(args))
    write_atomic(args.output, data)
    print(args.output)
    return 0
