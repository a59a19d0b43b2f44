"""`slsa_for_models verify`: a model, its signature and its provenance, and one verdict."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from model_signing.errors import UsageError, printable
from model_signing.terminal import command_line
from slsa_for_models.commands import expectation_options
from slsa_for_models.commands.shared_options import TRUST, check_writable, trust

if TYPE_CHECKING:
    from slsa_for_models.verdict.expectations import Expectations
    from slsa_for_models.verdict.result import Verdict


_MODEL: dict[str, command_line.Row] = {"model": ("FILE", "a file or a directory")}
_EVIDENCE: dict[str, command_line.Row] = {
    "--provenance/--provenance-path": (
        "FILE...",
        "how the model was made: a bundle, an envelope, or lines of them; repeatable",
    ),
    "--signature": ("FILE", "the model's OMS signature"),
    "--training-record": ("FILE", "the training.json beside the model"),
    "--vsa": ("FILE", "a summary by a verifier that the policy trusts"),
    "--base-model": (
        "MODEL...",
        "a model this one starts from, with its .sig and provenance beside it; repeatable",
    ),
    "--base-policy": (
        "FILE...",
        "what is expected of each --base-model, in the same order; by default the same as of "
        "the model",
    ),
}
_OUTPUT: dict[str, command_line.Row] = {
    "--format": ("text|json", "of the verdict (default: text)"),
    "--summary": ("FILE", "append the verdict as Markdown"),
    "--copy-to": (
        "DIR",
        "a new folder; it gets the model's bytes as they are hashed, and is there only if the "
        "model is verified",
    ),
    "--html": ("FILE", "write it as a page for people, which needs nothing else"),
    "--attest-verdict": (
        "FILE",
        "write a signed verification summary (SLSA VSA); needs --policy, --resource-uri and "
        "--verifier-id",
    ),
    "--verifier-id": ("URI", "what this verifier is called in it"),
    "--private-key": ("PEM", "sign it with this key, not keyless"),
    "--identity-token": ("TOKEN", "sign it keyless with this OpenID Connect token"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Verify a model together with its signature and every provenance it came "
        "with. Options named as in slsa-verifier mean the same."
    )
    parser.epilog = (
        "example:\n"
        "  slsa_for_models verify pytorch_model.pth --signature pytorch_model.pth.sig \\\n"
        "    --provenance pytorch_model.pth.provenance.sigstore.json \\\n"
        "    --source-uri github.com/ORG/REPO \\\n"
        "    --identity https://github.com/ORG/REPO/.github/workflows/FILE.yml@refs/tags/v1"
    )
    add_options(parser)
    command_line.add_options(parser.add_argument_group("output"), _OUTPUT)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """A model, its evidence and what is expected of it."""
    command_line.add_options(parser, _MODEL)
    command_line.add_options(parser.add_argument_group("evidence"), _EVIDENCE)
    expectation_options.add(parser)
    command_line.add_options(parser.add_argument_group("Sigstore"), TRUST)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from model_signing.safe_files import write_atomic
    from slsa_for_models.report import job_page, page, plain

    if args.attest_verdict is not None and not (
        args.policy and args.resource_uri and args.verifier_id
    ):
        raise UsageError("--attest-verdict needs --policy, --resource-uri and --verifier-id")
    for output in filter(None, (args.summary, args.html, args.attest_verdict)):
        check_writable(output, bundle=output is args.attest_verdict)
    verdict, expected = verified(args)
    if args.attest_verdict is not None and verdict.verified:
        _attest_verdict(args, verdict, expected)
    sys.stdout.write(plain.as_json(verdict) if args.format == "json" else plain.text(verdict))
    if not verdict.verified:
        print(f"slsa_for_models: {plain.cause(verdict)}", file=sys.stderr)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            print(plain.annotation(verdict), file=sys.stderr)
    if args.summary is not None:
        with args.summary.open("a", encoding="utf-8") as file:  # as other steps of a job do
            file.write(job_page.page(verdict, args.model, repeated(args)))
    if args.html is not None:
        write_atomic(args.html, page.page(verdict).encode())
    return verdict.exit_code


def repeated(args: argparse.Namespace) -> dict[str, object]:
    """The options that decide a verdict, by name: whoever repeats it has to choose them alike.

    Not what becomes of the verdict: among that are the secrets that sign it.
    """
    names = (*_EVIDENCE, *expectation_options.OPTIONS, *TRUST)
    return {name.partition("/")[0]: getattr(args, command_line.attribute(name)) for name in names}


def verified(args: argparse.Namespace) -> tuple[Verdict, Expectations]:
    """Runs the verification that the options ask for."""
    from slsa_for_models import BaseModel, GitHubApi, load_policy, verify

    if not (args.provenance or args.signature or args.vsa):
        _look_beside(args)
    if args.base_policy and len(args.base_policy) != len(args.base_model):
        raise UsageError("give one --base-policy for each --base-model, or none")
    expected = expectation_options.expectations(args)
    of_bases: list[Expectations | None] = [load_policy(path) for path in args.base_policy]
    of_bases = of_bases or [None] * len(args.base_model)
    verdict = verify(
        args.model,
        expected,
        signature=args.signature,
        provenance=args.provenance,
        training_record=args.training_record,
        vsa=args.vsa,
        base_models=list(map(BaseModel.beside, args.base_model, of_bases)),
        trust=trust(args),
        run_conclusion=GitHubApi.from_environment(os.environ) if args.run_conclusion else None,
        copy_to=getattr(args, "copy_to", None),  # not of `policy init`
    )
    return verdict, expected


def _look_beside(args: argparse.Namespace) -> None:
    """Where no evidence is named, it is that beside the model, by name; and it is said which."""
    from slsa_for_models.evidence import beside

    signature, provenance = beside.find(args.model)
    found = [path for path in (signature, *provenance) if path is not None]
    if not found:
        raise UsageError(
            "nothing to verify against",
            where=str(args.model),
            expected=f"beside it: {', '.join(beside.names(args.model))}",
            fix="give --provenance FILE or --vsa FILE, or --signature with --identity",
        )
    args.signature, args.provenance = signature, list(provenance)
    listed = printable(", ".join(path.name for path in found))
    print(f"slsa_for_models: evidence beside the model: {listed}", file=sys.stderr)


def _attest_verdict(args: argparse.Namespace, verdict: Verdict, expected: Expectations) -> None:
    import model_signing
    from model_signing.safe_files import write_atomic
    from slsa_for_models.attesting import signing_job, train_statement, vsa_statement
    from slsa_for_models.verdict.expectation_table import read_key

    if args.private_key is not None:
        sign = model_signing.key_signer(read_key(args.private_key))
    else:
        sign = signing_job.signer(args.identity_token, trust(args))
    statement = vsa_statement.build(
        verdict.model,
        verdict.level,
        verifier_id=args.verifier_id,
        resource_uri=args.resource_uri,
        policy_name=args.policy.name,
        policy_sha256=expected.policy_sha256 or "",
        inputs=verdict.evidence,
        base_levels=verdict.base_levels,
        now=datetime.now(timezone.utc),
    )
    data = sign(train_statement.encode(statement))
    write_atomic(args.attest_verdict, data, over_bundles_only=True)
