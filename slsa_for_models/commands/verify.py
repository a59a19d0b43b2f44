"""`slsa_for_models verify`: a model, its signature and its provenance, and one verdict."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from model_signing.errors import FileError, UsageError, printable
from model_signing.terminal import command_line
from slsa_for_models.commands import expectation_options
from slsa_for_models.commands.shared_options import (
    PROGRESS,
    TRUST,
    check_apart,
    check_writable,
    is_page,
    is_prose,
    trust,
)

if TYPE_CHECKING:
    from pathlib import Path

    from model_signing.hashing import Progress
    from model_signing.sources import AttachingSource, Source
    from slsa_for_models.verdict.expectations import Expectations
    from slsa_for_models.verdict.result import Verdict


_MODEL: dict[str, command_line.Row] = {
    "model": (
        "FILE",
        "a file or a directory, or its address, such as hf://ORG/NAME, s3://BUCKET/PREFIX, "
        "oci://HOST/NAME:TAG",
        command_line.place,
    )
}
_NOT_OF_SEVERAL = ("--signature", "--provenance/--provenance-path", "--training-record", "--vsa")
_EVIDENCE: dict[str, command_line.Row] = {
    "--provenance/--provenance-path": (
        "FILE...",
        "how the model was made: a bundle, an envelope, or lines of them, or their address; "
        "repeatable",
        command_line.place,
    ),
    "--signature": ("FILE", "the model's OMS signature, or its address", command_line.place),
    "--signature-name": (
        "NAME",
        "what the signature is called that lies in each model's folder, or with a {} for the "
        "model's own name beside it (default: {}.sig beside, model.sig in a folder)",
    ),
    "--training-record": (
        "FILE",
        "the training.json beside the model, or its address",
        command_line.place,
    ),
    "--vsa": (
        "FILE",
        "a summary by a verifier that the policy trusts, or its address",
        command_line.place,
    ),
    "--attached": (
        "",
        "take what was attached to the model in its registry (oci://): provenance, where a source "
        "or builder is expected; summaries, where the policy trusts a verifier",
    ),
    "--base-model": (
        "MODEL...",
        "a model this one starts from, with its .sig and provenance beside it, or its address; "
        "repeatable",
        command_line.place,
    ),
    "--base-policy": (
        "FILE...",
        "what is expected of each --base-model, in the same order; by default the same as of "
        "the model",
    ),
}
_OUTPUT: dict[str, command_line.Row] = {
    "--format": ("text|json", "of the verdict (default: text)"),
    **PROGRESS,
    "--summary": ("FILE", "append the verdict as Markdown"),
    "--copy-to": (
        "DIR",
        "a new folder; it gets the model's bytes as they are hashed, and is there only if the "
        "model is verified",
    ),
    "--executor": (
        "dask:ADDRESS",
        "hash on the workers of this Dask cluster, which read the model themselves",
    ),
    "--html": ("FILE", "write it as a page for people, which needs nothing else"),
    "--attest-verdict": (
        "FILE?",
        "write a signed verification summary (SLSA VSA); needs --policy, --resource-uri and "
        "--verifier-id; FILE may be left out with --attach",
    ),
    "--attach": (
        "",
        "store that summary with the model in its registry (oci://), where admission controllers "
        "look for it",
    ),
    "--verifier-id": ("URI", "what this verifier is called in it"),
    "--private-key": ("PEM", "sign it with this key, not keyless"),
    "--identity-token": ("TOKEN", "sign it keyless with this OpenID Connect token"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Verify a model together with its signature and every provenance it came "
        "with; of several, each with what lies in it or beside it. Options named as in "
        "slsa-verifier mean the same."
    )
    parser.epilog = (
        "example:\n"
        "  slsa_for_models verify pytorch_model.pth --signature pytorch_model.pth.sig \\\n"
        "    --provenance pytorch_model.pth.provenance.sigstore.json \\\n"
        "    --source-uri github.com/ORG/REPO \\\n"
        "    --identity https://github.com/ORG/REPO/.github/workflows/FILE.yml@refs/tags/v1"
    )
    add_options(parser, "model+")
    command_line.add_options(parser.add_argument_group("output"), _OUTPUT)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser, model: str = "model") -> None:
    """A model, or several, its evidence and what is expected of it."""
    command_line.add_options(parser, _MODEL, model)
    command_line.add_options(parser.add_argument_group("evidence"), _EVIDENCE)
    expectation_options.add(parser)
    command_line.add_options(parser.add_argument_group("Sigstore"), TRUST)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from model_signing import executors

    with executors.opened(args.executor) as args.pool:
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from model_signing.safe_files import write_atomic
    from model_signing.sources import open_source, signatures
    from model_signing.terminal import progress
    from slsa_for_models.report import page, plain

    _check_attesting(args)
    if len(args.model) > 1:
        return _run_each(args)
    _check_outputs(args)
    expected = expectation_options.expectations(args)
    if args.attest_verdict is not None:  # --resource-uri says what is attested: no summary is asked
        expected = replace(expected, stated=expected.stated | {"resource_uri"})
    (args.model,) = args.model
    if found := look_beside(args):
        print(f"slsa_for_models: {found}", file=sys.stderr)
    source = open_source(args.model)
    if isinstance(args.model, str):
        args.model = str(source)  # what it led to is what is repeated
    registry = signatures.attaching(source) if args.attach else None
    with progress.bar(shown=not args.no_progress) as shown:
        verdict = verified(args, expected, progress=shown, source=source)
    if args.attest_verdict is not None and verdict.verified:
        _attest_verdict(args, verdict, expected, source, registry)
    said = plain.as_json(verdict) if args.format == "json" else plain.text(verdict)
    sys.stdout.write(said if args.format == "json" else command_line.folded(said, sys.stdout, 13))
    if not verdict.verified:
        say_refused(verdict)
    _tell_job(args, verdict)
    if args.html is not None:
        write_atomic(args.html, page.page(verdict).encode())
    return verdict.exit_code


def say_refused(verdict: Verdict) -> None:
    """The cause, on standard error."""
    from slsa_for_models.report import plain

    text = f"slsa_for_models: {plain.cause(verdict)}"
    print(command_line.folded(text, sys.stderr, 12), file=sys.stderr)


def _check_attesting(args: argparse.Namespace) -> None:
    """Before the work, not after it."""
    if args.attest_verdict is None:
        if args.attach:
            raise UsageError("--attach needs --attest-verdict: that is what is attached")
        return
    if not (args.policy and args.resource_uri and args.verifier_id):
        raise UsageError("--attest-verdict needs --policy, --resource-uri and --verifier-id")
    if not (args.attest_verdict or args.attach):
        raise UsageError("--attest-verdict needs a FILE, or --attach")


def _run_each(args: argparse.Namespace) -> int:
    """Several models, each with the evidence that lies in it or beside it."""
    import json
    from threading import Lock

    from model_signing.errors import Error
    from model_signing.hashing import checked_jobs
    from model_signing.terminal import many
    from slsa_for_models.report import plain

    for option in (*_NOT_OF_SEVERAL, "--html", "--attest-verdict", "--attach", "--copy-to"):
        if getattr(args, command_line.attribute(option)):
            raise UsageError(
                f"{option.partition('/')[0]} is of one model",
                found=f"{len(args.model)} models",
                fix="what lies in a model or beside it is found by its name",
            )
    _check_outputs(args)
    expected, one_at_a_time = expectation_options.expectations(args), Lock()

    def one(model: Path | str, threads: int, progress: Progress) -> many.Done:
        own = argparse.Namespace(**{**vars(args), "model": model})
        look_beside(own)
        verdict = verified(own, expected, threads, progress)
        with one_at_a_time:
            _tell_job(own, verdict)
        document = {"path": str(model), **json.loads(plain.as_json(verdict))}
        refusal = verdict.refusal or Error("nothing could be checked", where=str(model))
        line = f"{model}: {plain.headline(verdict)}"
        files = verdict.model.files
        return many.Done(document, line, None if verdict.verified else refusal, len(files))

    return many.run(
        args.model,
        one,
        jobs=checked_jobs(None),
        apart=args.pool is None,
        as_json=args.format == "json",
        called="path",
        prog="slsa_for_models",
    )


def _tell_job(args: argparse.Namespace, verdict: Verdict) -> None:
    """The job on GitHub, or whoever else reads its summary."""
    from slsa_for_models.report import job_page, plain

    if not verdict.verified and os.environ.get("GITHUB_ACTIONS") == "true":
        print(plain.annotation(verdict), file=sys.stderr)
    if args.summary is not None:
        # As other steps of a job do; in one piece, so that no page of several is torn.
        with args.summary.open("a", encoding="utf-8") as file:
            file.write(job_page.page(verdict, args.model, repeated(args)))


def _check_outputs(args: argparse.Namespace) -> None:
    """Before the work, not after it."""
    for output, over in (
        (args.summary, is_prose),
        (args.html, is_page),
        (args.attest_verdict, None),
    ):
        if output:
            check_writable(output, over)
            check_apart(output, _read(args))


def _read(args: argparse.Namespace) -> list[object]:
    """The files that the options name and that are read."""
    names = ("model", *_EVIDENCE, *expectation_options.OPTIONS, *TRUST, "--private-key")
    values = (getattr(args, command_line.attribute(name)) for name in names)
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def repeated(args: argparse.Namespace) -> dict[str, object]:
    """The options that decide a verdict, by name: whoever repeats it has to choose them alike.

    Not what becomes of the verdict: among that are the secrets that sign it.
    """
    names = (*_EVIDENCE, *expectation_options.OPTIONS, *TRUST)
    return {name.partition("/")[0]: getattr(args, command_line.attribute(name)) for name in names}


def verified(
    args: argparse.Namespace,
    expected: Expectations,
    jobs: int | None = None,
    progress: Progress | None = None,
    source: Source | None = None,
) -> Verdict:
    """Runs the verification that the options ask for, of one model; `source` is where it lies."""
    from slsa_for_models import BaseModel, GitHubApi, load_policy, verify

    if args.base_policy and len(args.base_policy) != len(args.base_model):
        raise UsageError("give one --base-policy for each --base-model, or none")
    of_bases: list[Expectations | None] = [load_policy(path) for path in args.base_policy]
    of_bases = of_bases or [None] * len(args.base_model)
    return verify(
        source or args.model,
        expected,
        signature=args.signature,
        provenance=args.provenance,
        training_record=args.training_record,
        vsa=args.vsa,
        attached=args.attached,
        base_models=list(map(BaseModel.beside, args.base_model, of_bases)),
        trust=trust(args),
        run_conclusion=GitHubApi.from_environment(os.environ) if args.run_conclusion else None,
        copy_to=getattr(args, "copy_to", None),  # not of `policy init`
        executor=getattr(args, "pool", None),
        progress=progress,
        jobs=jobs,
    )


def look_beside(args: argparse.Namespace) -> str:
    """Where no evidence is named, it is that in the model or beside it, by name; returns which."""
    from slsa_for_models.evidence import beside

    if args.provenance or args.signature or args.vsa:
        return ""
    if isinstance(args.model, str):  # its place says what lies with it
        return ""
    signature, provenance = beside.find(args.model, args.signature_name)
    found = [path for path in (signature, *provenance) if path is not None]
    if not found:
        if not os.path.lexists(args.model):
            raise FileError("there is no such model", where=str(args.model))
        of_signature, others = beside.names(args.model, args.signature_name)
        raise UsageError(
            "nothing to verify against",
            where=str(args.model),
            expected=f"in it or beside it: {', '.join(of_signature + others)}",
            fix="give --provenance FILE or --vsa FILE, or --signature with --identity",
        )
    args.signature, args.provenance = signature, list(provenance)
    return "evidence beside the model: " + printable(", ".join(path.name for path in found))


def _attest_verdict(
    args: argparse.Namespace,
    verdict: Verdict,
    expected: Expectations,
    source: Source,
    registry: AttachingSource | None,
) -> None:
    import model_signing
    from model_signing.safe_files import write_atomic
    from model_signing.sources import can_attach
    from slsa_for_models.attesting import signing_job, train_statement, vsa_statement

    if can_attach(source):
        _check_all_verified(source, verdict)
    if args.private_key is not None:
        sign = model_signing.key_signer(args.private_key)
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
        known_as=source.known_as if can_attach(source) else None,
        now=datetime.now(timezone.utc),
    )
    data = sign(train_statement.encode(statement))
    if args.attest_verdict:
        write_atomic(args.attest_verdict, data, over_bundles_only=True)
    if registry is not None:
        print(f"slsa_for_models: attached: {registry.attach(data)}", file=sys.stderr)


def _check_all_verified(source: AttachingSource, verdict: Verdict) -> None:
    """A verdict about a manifest is about all that whoever mounts or runs it gets.

    Raises:
        FileError: It brings more than was verified, and no accepted provenance is about it.
    """
    from model_signing.comparison import some

    _, manifest = source.known_as
    subjects = (one for item in verdict.accepted for one in item.provenance.subjects)
    more = source.around(verdict.model.files)
    if more and all(one.sha256 != manifest for one in subjects):
        raise FileError(
            "the manifest brings more than the model that was verified",
            where=str(source),
            found=some(list(more)),
            fix="push the model alone, or give provenance that is about the manifest",
        )
