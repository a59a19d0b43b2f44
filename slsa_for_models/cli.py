"""The command line `slsa_for_models`; options only. What a command does is in its own module.

Modules that cost time to import (cryptography, sigstore, the frameworks) are imported by the
command that needs them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_signing.errors import FileError, UsageError
from model_signing.terminal import command_line
from slsa_for_models.errors import PolicyError

PROG = "slsa_for_models"
DESCRIPTION = "Train models in CI, say verifiably how they were made, and verify what others say."

if TYPE_CHECKING:
    from model_signing.methods.sigstore_trust import SigstoreTrust
    from slsa_for_models.verdict.base_models import Lineage
    from slsa_for_models.verdict.expectations import Builder, Expectations, Signer

# argparse has no public name for it, and its own annotation does not admit our Parser.
_Commands = Any


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    if not (sys.argv[1:] if argv is None else argv):
        build_parser().print_help(sys.stderr)
        return 2
    return command_line.run(build_parser, argv, PROG)


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    from slsa_for_models.cifar10 import processes
    from slsa_for_models.gcp import steps
    from slsa_for_models.models import load
    from slsa_for_models.training import reproduce, run

    parser = command_line.Parser(prog=PROG, description=DESCRIPTION)
    parser.add_argument("--version", action=command_line.Version, nargs=0, help="print the version")
    commands: _Commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (run, processes, load, reproduce):
        module.configure(commands)
    _configure_subjects(commands)
    _configure_may_publish(commands)
    _configure_provenance(commands)
    _configure_verify(commands)
    _configure_policy(commands)
    steps.configure(commands)
    return parser


# subjects -----------------------------------------------------------------------------------------


def _configure_subjects(commands: _Commands) -> None:
    parser = commands.add_parser(
        "subjects",
        help="list what provenance of a model is about",
        description="Print the SHA-256 of every file of the models, as sha256sum lines in base64 "
        "on one line: the input `base64-subjects` of slsa-github-generator.",
        epilog="example:\n  slsa_for_models subjects out/pytorch_model.pth --format text",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file or a directory")
    parser.add_argument(
        "--format",
        choices=["base64", "text", "json"],
        default="base64",
        help="base64 (default), text as sha256sum prints it, or json",
    )
    parser.add_argument(
        "--expected", metavar="BASE64", help="refuse models with other subjects than these"
    )
    parser.set_defaults(run=_subjects)


def _subjects(args: argparse.Namespace) -> int:
    from slsa_for_models.evidence import subjects

    found = [
        subject for path in args.paths for subject in subjects.of_model(subjects.measure(path))
    ]
    if args.expected is not None:
        subjects.check_encoded(args.expected, found)
    if args.format == "json":
        import json

        print(json.dumps([{"name": item.name, "sha256": item.sha256} for item in found], indent=2))
    elif args.format == "text":
        sys.stdout.write(subjects.checksums(found))
    else:
        print(subjects.encode(found))
    return 0


# may-publish --------------------------------------------------------------------------------------


def _configure_may_publish(commands: _Commands) -> None:
    parser = commands.add_parser(
        "may-publish",
        help="refuse to sign where that would publish a private repository's name",
        description="Ask for this GitHub Actions job's identity token, and refuse unless it says "
        "that the repository is public: Sigstore's logs are. The token is sent nowhere.",
        epilog="example, in a job with `id-token: write`:\n  slsa_for_models may-publish",
    )
    parser.add_argument(
        "--identity-token", metavar="TOKEN", help="read this OpenID Connect token, not the job's"
    )
    parser.set_defaults(run=_may_publish)


def _may_publish(args: argparse.Namespace) -> int:
    from slsa_for_models.attesting import signing_job, visibility

    repository = visibility.check_public(args.identity_token or signing_job.ambient_token())
    print(f"{repository} is public")
    return 0


# provenance ---------------------------------------------------------------------------------------


def _configure_provenance(commands: _Commands) -> None:
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
        "--started-on", type=_moment, metavar="TIME", help="when the run started (RFC 3339)"
    )
    parser.add_argument(
        "--predicate-only",
        action="store_true",
        help="write the bare predicate, unsigned, for actions/attest to sign",
    )
    parser.add_argument(
        "--identity-token", metavar="TOKEN", help="use this OpenID Connect token, not the job's own"
    )
    _add_trust_options(parser)
    parser.set_defaults(run=_provenance)


def _provenance(args: argparse.Namespace) -> int:
    from model_signing.oms.bundle import read_bounded
    from model_signing.sources.local import write_atomic
    from slsa_for_models.attesting import signing_job
    from slsa_for_models.attesting.build_context import from_token, parse_inputs
    from slsa_for_models.evidence import training_record

    _check_writable(args.output)
    token = args.identity_token or signing_job.ambient_token()
    context = from_token(
        token,
        inputs=parse_inputs(args.workflow_inputs),
        started=args.started_on,
        now=datetime.now(timezone.utc),
    )
    sign = None if args.predicate_only else signing_job.signer(args.identity_token, _trust(args))
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
        data = signing_job.sign_provenance(statement, sign, _trust(args))
    write_atomic(args.output, data)
    print(args.output)
    return 0


# verify -------------------------------------------------------------------------------------------


def _configure_verify(commands: _Commands) -> None:
    parser = commands.add_parser(
        "verify",
        help="verify a model, its signature and its provenance: one verdict",
        description="Verify a model together with its signature and every provenance it came "
        "with. Options named as in slsa-verifier mean the same.",
        epilog="example:\n"
        "  slsa_for_models verify pytorch_model.pth --signature pytorch_model.pth.sig \\\n"
        "    --provenance pytorch_model.pth.provenance.sigstore.json \\\n"
        "    --source-uri github.com/ORG/REPO \\\n"
        "    --identity https://github.com/ORG/REPO/.github/workflows/FILE.yml@refs/tags/v1",
    )
    _add_verify_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--format", choices=["text", "json"], default="text", help="of the verdict (default: text)"
    )
    output.add_argument(
        "--summary", type=Path, metavar="FILE", help="append the verdict as Markdown"
    )
    output.add_argument(
        "--attest-verdict",
        type=Path,
        metavar="FILE",
        help="write a signed verification summary (SLSA VSA); needs --policy, --resource-uri and "
        "--verifier-id",
    )
    output.add_argument("--verifier-id", metavar="URI", help="what this verifier is called in it")
    output.add_argument(
        "--private-key", type=Path, metavar="PEM", help="sign it with this key, not keyless"
    )
    output.add_argument(
        "--identity-token", metavar="TOKEN", help="sign it keyless with this OpenID Connect token"
    )
    parser.set_defaults(run=_verify)


def _configure_policy(commands: _Commands) -> None:
    policy = commands.add_parser(
        "policy",
        help="write down what to expect of a model",
        description="Write a policy: a TOML file of expectations, for `verify --policy`.",
        epilog="example:\n  slsa_for_models policy init --help",
    )
    actions = policy.add_subparsers(title="actions", metavar="ACTION", required=True)
    parser = actions.add_parser(
        "init",
        help="from a model that was verified",
        description="Verify a model, then write a policy that it and its next versions satisfy.",
        epilog="example:\n"
        "  slsa_for_models policy init pytorch_model.pth --output policy.toml \\\n"
        "    --provenance pytorch_model.pth.provenance.sigstore.json \\\n"
        "    --source-uri github.com/ORG/REPO \\\n"
        "    --identity https://github.com/ORG/REPO/.github/workflows/FILE.yml@refs/tags/v1",
    )
    _add_verify_options(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the policy to write"
    )
    parser.set_defaults(run=_policy_init)


def _add_verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file or a directory")
    files = parser.add_argument_group("evidence")
    files.add_argument(
        *("--provenance", "--provenance-path"),
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="how the model was made: a bundle, an envelope, or lines of them; repeatable",
    )
    files.add_argument("--signature", type=Path, metavar="FILE", help="the model's OMS signature")
    files.add_argument(
        "--training-record", type=Path, metavar="FILE", help="the training.json beside the model"
    )
    files.add_argument(
        "--vsa", type=Path, metavar="FILE", help="a summary by a verifier that the policy trusts"
    )
    files.add_argument(
        "--base-model",
        type=Path,
        action="append",
        default=[],
        metavar="MODEL",
        help="a model this one starts from, with its .sig and provenance beside it; repeatable",
    )
    files.add_argument(
        "--base-policy",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="what is expected of each --base-model, in the same order; by default the same as of "
        "the model",
    )
    expected = parser.add_argument_group("expectations")
    expected.add_argument(
        "--source-uri",
        type=_source_uri,
        metavar="github.com/ORG/REPO",
        help="the repository, exactly; needed wherever a workflow signed",
    )
    expected.add_argument("--source-branch", metavar="BRANCH", help="its branch, exactly")
    tag = expected.add_mutually_exclusive_group()
    tag.add_argument("--source-tag", metavar="TAG", help="its tag, exactly")
    tag.add_argument(
        "--source-versioned-tag",
        type=_version,
        metavar="vX[.Y[.Z]]",
        help="its version tag, as far as it is given",
    )
    expected.add_argument(
        "--source-commit",
        type=partial(_digest, "--source-commit", 40),
        metavar="HEX",
        help="its commit",
    )
    expected.add_argument(
        "--builder-id",
        type=_builder_id,
        action="append",
        default=[],
        metavar="ID[@REF]",
        help="trust this builder, and no other unless repeated; by default the generic SLSA "
        "generator at a full version tag, and the workflow named by --identity",
    )
    expected.add_argument(
        "--build-workflow-input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what the caller of the workflow chose; repeatable",
    )
    expected.add_argument(
        "--identity", metavar="ID", help="who must have signed the model: a workflow or an e-mail"
    )
    expected.add_argument("--identity-provider", metavar="URL", help="and who vouches for them")
    expected.add_argument(
        "--public-key",
        type=Path,
        metavar="PEM",
        help="of a model signed with a key, and of the builder where that is no workflow",
    )
    expected.add_argument(
        "--builder-key",
        type=Path,
        metavar="PEM",
        help="of the builder named by --builder-id, such as Tekton Chains, where its key is not "
        "the model's",
    )
    expected.add_argument(
        "--dataset-digest",
        type=partial(_digest, "--dataset-digest", 64),
        metavar="SHA256",
        help="of the training data",
    )
    expected.add_argument("--minimum-level", choices=["1", "2", "3"], help="SLSA Build level")
    expected.add_argument(
        "--resource-uri", metavar="URI", help="what a verification summary must be about"
    )
    expected.add_argument("--policy", type=Path, metavar="FILE", help="expectations in TOML")
    expected.add_argument(
        "--run-conclusion",
        action="store_true",
        help="ask GitHub whether the run that made the model has succeeded (needs a network; reads "
        "GITHUB_TOKEN and GITHUB_API_URL)",
    )
    _add_trust_options(parser)


def _verify(args: argparse.Namespace) -> int:
    from model_signing.oms.bundle import read_bounded
    from slsa_for_models.evidence import training_record
    from slsa_for_models.report import job_page, plain

    if args.attest_verdict is not None and not (
        args.policy and args.resource_uri and args.verifier_id
    ):
        raise UsageError("--attest-verdict needs --policy, --resource-uri and --verifier-id")
    for output in (args.summary, args.attest_verdict):
        if output is not None:
            _check_writable(output)
    lineage, expected = _verified(args)
    verdict = lineage.verdict
    if args.attest_verdict is not None and verdict.accepted:
        _attest_verdict(args, lineage, expected)
    sys.stdout.write(plain.as_json(verdict) if args.format == "json" else plain.text(verdict))
    if not verdict.accepted:
        print(f"{PROG}: {plain.cause(verdict)}", file=sys.stderr)
    if args.summary is not None:
        found = args.training_record if verdict.accepted else None
        trained = (
            training_record.parse(read_bounded(found, training_record.MAX_BYTES)) if found else None
        )
        with args.summary.open("a", encoding="utf-8") as file:  # as other steps of a job do
            file.write(job_page.page(verdict, trained, args.model, vars(args)))
    return verdict.exit_code


def _policy_init(args: argparse.Namespace) -> int:
    from model_signing.sources.local import write_atomic
    from slsa_for_models.report import plain
    from slsa_for_models.verdict import policy_file

    if args.output.exists():
        raise PolicyError(
            "the policy exists already, and may have been edited",
            where=str(args.output),
            fix="choose another --output, or remove it first",
        )
    _check_writable(args.output)
    lineage, expected = _verified(args)
    if not lineage.verdict.accepted or not lineage.result.accepted:
        sys.stdout.write(plain.text(lineage.verdict))
        raise PolicyError(
            "no policy was written: the model was not verified by provenance",
            where=str(args.model),
            found=plain.headline(lineage.verdict),
        )
    key, builder_key = (
        path and os.path.relpath(path, args.output.parent)
        for path in (args.public_key, args.builder_key or args.public_key)
    )
    text = policy_file.from_result(lineage.result, expected, key, builder_key)
    write_atomic(args.output, text.encode())
    print(f"wrote {args.output}: read it, then verify with --policy {args.output}")
    return 0


def _verified(args: argparse.Namespace) -> tuple[Lineage, Expectations]:
    """Runs the verification that the options ask for."""
    from slsa_for_models.verdict import base_models as lineage
    from slsa_for_models.verdict import policy_file, verification

    evidence = verification.Evidence(
        model=args.model,
        provenance=tuple(args.provenance),
        signature=args.signature,
        summary=args.vsa,
        training_record=args.training_record,
        trust=_trust(args),
    )
    signer_named = args.identity or args.public_key or args.policy
    signature_alone = evidence.signature is not None and signer_named
    if not evidence.provenance and evidence.summary is None and not signature_alone:
        raise UsageError(
            "nothing to verify against",
            fix="give --provenance FILE or --vsa FILE, or --signature with --identity",
        )
    if args.base_policy and len(args.base_policy) != len(args.base_model):
        raise UsageError("give one --base-policy for each --base-model, or none")
    expected = _expectations(args)
    wanted = [policy_file.load(path) for path in args.base_policy] or [expected] * len(
        args.base_model
    )
    bases = [
        lineage.Base(lineage.find_evidence(model, evidence), expectations)
        for model, expectations in zip(args.base_model, wanted, strict=True)
    ]
    found = lineage.verify_lineage(evidence, expected, bases)
    if args.run_conclusion:
        from dataclasses import replace

        from slsa_for_models.verdict import run_conclusion

        signed = [item.signed for item in found.result.accepted]
        if not signed and found.result.signed is not None:
            signed = [found.result.signed]
        verdict = run_conclusion.judge(found.verdict, signed, os.environ)
        found = replace(found, verdict=verdict)
    return found, expected


def _attest_verdict(args: argparse.Namespace, lineage: Lineage, expected: Expectations) -> None:
    from model_signing.methods import signers
    from model_signing.sources.local import write_atomic
    from slsa_for_models.attesting import signing_job, train_statement
    from slsa_for_models.verdict import vsa

    if args.private_key is not None:
        sign = signers.key_signer(_key(args.private_key))
    else:
        sign = signing_job.signer(args.identity_token, _trust(args))
    statement = vsa.build(
        lineage.result.model,
        lineage.verdict.chain.level,
        verifier_id=args.verifier_id,
        resource_uri=args.resource_uri,
        policy_name=args.policy.name,
        policy_sha256=expected.policy_sha256 or "",
        inputs=lineage.result.evidence,
        base_levels=lineage.levels,
        now=datetime.now(timezone.utc),
    )
    write_atomic(args.attest_verdict, sign(train_statement.encode(statement)))


def _expectations(args: argparse.Namespace) -> Expectations:
    """The policy's, and those of the options; what both state has to be the same."""
    from dataclasses import replace

    from slsa_for_models.attesting.build_context import is_github
    from slsa_for_models.verdict import expectations as policy
    from slsa_for_models.verdict import policy_file

    provider = args.identity_provider
    stated: dict[str, object] = {
        "source_uri": args.source_uri,
        "issuer": provider if is_github(provider or "") else None,
        "source_commit": args.source_commit,
        "branch": args.source_branch,
        "tag": args.source_tag,
        "versioned_tag": args.source_versioned_tag,
        "inputs": dict(_key_value(item) for item in args.build_workflow_input),
        "signer": _signer(args),
        "builders": _builders(args),
        "dataset_sha256": args.dataset_digest,
        "minimum_level": int(args.minimum_level or 0),
        "resource_uri": args.resource_uri,
    }
    stated = {name: value for name, value in stated.items() if value}
    base = policy.Expectations() if args.policy is None else policy_file.load(args.policy)
    # A workflow that is named as the model's signer speaks for itself, too.
    workflow = policy.builder_from_identity(args.identity)
    if workflow is not None and "builders" not in {*stated, *base.stated}:
        stated["builders"] = (*base.builders, workflow)
    for name, value in stated.items():
        if name in base.stated and getattr(base, name) != value:
            raise UsageError(
                "an option contradicts the policy",
                where=name,
                expected=str(getattr(base, name)),
                found=str(value),
                fix="state it in one of them only",
            )
    return replace(base, **stated)  # type: ignore[arg-type]


def _builders(args: argparse.Namespace) -> tuple[Builder, ...]:
    from slsa_for_models.verdict import expectations as policy

    if args.builder_key is not None and not args.builder_id:
        raise UsageError("--builder-key needs --builder-id: whose key is it?")
    if args.builder_key is not None and all(map(policy.names_workflow, args.builder_id)):
        raise UsageError("--builder-key: a GitHub workflow signs with its own identity, not a key")
    path = args.builder_key or args.public_key
    key = None if path is None else _key(path)
    return tuple(policy.builder_from_option(text, key) for text in args.builder_id)


def _signer(args: argparse.Namespace) -> Signer | None:
    from slsa_for_models.attesting.build_context import is_github
    from slsa_for_models.verdict.expectations import Signer

    if args.identity is not None and args.public_key is not None:
        raise UsageError("--identity and --public-key exclude each other")
    if (
        args.identity is None
        and args.identity_provider is not None
        and not (args.builder_id and is_github(args.identity_provider))
    ):
        raise UsageError("--identity-provider needs --identity, or --builder-id on GitHub")
    if args.public_key is not None:
        return Signer(public_key=_key(args.public_key))
    if args.identity is None:
        return None
    return Signer(identity=args.identity, issuer=args.identity_provider)


def _key_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError("not NAME=VALUE", where="--build-workflow-input", found=text)
    return name, value


# shared -------------------------------------------------------------------------------------------


def _add_trust_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Sigstore")
    group.add_argument(
        "--trust-config",
        type=Path,
        metavar="FILE",
        help="the client trust configuration of a private Sigstore",
    )
    group.add_argument(
        "--offline", action="store_true", help="use the trust root on this machine as it is"
    )


def _trust(args: argparse.Namespace) -> SigstoreTrust:
    from model_signing.methods.sigstore_trust import SigstoreTrust

    return SigstoreTrust(trust_config=args.trust_config, offline=args.offline)


def _check_writable(path: Path) -> None:
    """Before the work, not after it."""
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise FileError("the output cannot be written", where=str(path))


def _key(path: Path) -> bytes:
    from model_signing.oms.bundle import read_bounded

    return read_bounded(path, 64 * 1024)


def _digest(option: str, digits: int, text: str) -> str:
    if re.fullmatch(f"[0-9a-f]{{{digits}}}", text) is None:
        expected = f"{digits} hexadecimal digits, lower case"
        raise UsageError("not a full digest", where=option, expected=expected, found=text)
    return text


def _source_uri(text: str) -> str:
    from slsa_for_models.verdict import expectations as policy

    return policy.source_uri(text)


def _builder_id(text: str) -> str:
    from slsa_for_models.verdict import expectations as policy

    policy.builder_from_option(text)
    return text


def _version(text: str) -> str:
    from slsa_for_models.verdict import expectations as policy

    policy.parse_version(text)
    return text


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError("not a time with a time zone (RFC 3339)", found=text)
    return moment
