"""The command line: options once, in a table; every command is one call into the package.

Imports what a command needs when it runs: `--help` costs little more than Python itself.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import sys
from collections.abc import Callable, Sequence

import model_signing
from model_signing.errors import UsageError, printable
from model_signing.terminal import command_line

TYPE_CHECKING = False  # like pathlib, typing costs a tenth of the time that --help may take
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any, TextIO

    from model_signing.api import HashOptions, Signed
    from model_signing.hashing import Progress
    from model_signing.methods import Signer, Verifier

    _Args = argparse.Namespace
    _Choices = argparse._SubParsersAction[command_line.Parser]
    _Row = tuple[str, str, Callable[[_Args], Signer | Verifier], str]

# Option -> its value, its help; see `command_line.add_options`.
_OPTIONS: dict[str, command_line.Row] = {
    "model_path": (
        "FILE",
        "the model: a file or folder, or its address, such as hf://ORG/NAME, s3://BUCKET/PREFIX, "
        "oci://HOST/NAME:TAG",
        command_line.place,
    ),
    "bundle": ("FILE", "a signature file, or its address", command_line.place),
    "--signature": (
        "FILE",
        "the signature file, or its address (signing: default model.sig, - is standard output; "
        "verifying: by default looked for as --signature-name says; what lies with a model at an "
        "address)",
        command_line.place,
    ),
    "--attach": (
        "",
        "store the signature with the model in its registry (oci://), where verify looks for it; "
        "a file is written only if --signature names one",
    ),
    "--signature-name": (
        "NAME",
        "what each model's signature is called: in its folder, or with a {} for the model's own "
        "name beside it (default: model.sig in a folder, {}.sig beside)",
    ),
    "--files": ("", "list all files, not the first ten"),
    "--ignore-paths": ("FILE...", "leave out this path; repeatable"),
    "--ignore-git-paths": (
        "yes",
        "leave out .git, .gitignore, .gitattributes, .github, as the specification (OMS 6.2) "
        "wants; --no-ignore-git-paths steps outside it",
    ),
    "--allow-symlinks": (
        "",
        "follow links inside the model, or from a snapshot in Hugging Face's cache to its blobs",
    ),
    "--ignore-unsigned-files": ("no", "accept files that the signature does not list"),
    "--copy-to": (
        "DIR",
        "a new folder: gets the bytes as they are hashed, and is there only if they are verified",
    ),
    "--use-listed-digests": (
        "",
        "take the SHA-256 that a registry or hub lists, and read only what has none: to sign, you "
        "trust the place with it; to verify, it is a quick look that verifies nothing",
    ),
    "--digest-cache": (
        "FILE",
        "remembers digests of files here, so that signing again reads only what changed",
    ),
    "--allow-legacy-predicate": ("", "accept the format of model-signing v0.2.0"),
    "--hash-algorithm": (
        "sha256|blake2b|blake3",
        "default sha256, which every implementation verifies",
    ),
    "--shard-size": ("BYTES", "hash and list pieces of this size instead of whole files"),
    "--largest-signature": (
        "BYTES",
        "refuse a model whose signature would be larger, before it is hashed: what a log or a hub "
        "takes (default: 512 MiB, as every verifier does)",
    ),
    "--jobs": ("N", "threads for hashing (default: all cores)"),
    "--executor": (
        "dask:ADDRESS",
        "hash on the workers of this Dask cluster, which read the model themselves",
    ),
    "--quiet": ("", "print nothing when all is well"),
    "--no-progress": ("", "no progress bar"),
    "--format": ("text|json", "print the result as text or JSON"),
    "--trust-config": (
        "FILE",
        "client trust configuration of a private Sigstore; to verify, a trusted root, too",
    ),
    "--use-staging": ("", "Sigstore's staging instance"),
    "--offline": ("", "use the trust root on this machine, without refreshing it"),
    "--use-ambient-credentials": ("", "identity of the environment (CI)"),
    "--identity-token": ("TOKEN", "an OIDC token"),
    "--identity-token-file": (
        "FILE",
        "the same, from a file: unseen in process lists; Kubernetes mounts such tokens",
    ),
    "--timeout": ("SECONDS", "wait for services no longer than this (default: 60 for each)"),
    "--client-id": ("ID", "OAuth client (default sigstore)"),
    "--client-secret": ("SECRET", "the OAuth client's secret"),
    "--oauth-force-oob": ("", "print the address instead of opening a browser"),
    "--identity": ("ID", "who must have signed: an e-mail address or a URI"),
    "--identity-provider": ("URL", "the OIDC issuer who vouches for them"),
    "--source-repository": ("ORG/REPO", "what called the workflow that --identity names"),
    "--private-key": ("FILE", "PEM, P-256, P-384 or P-521"),
    "--public-key": ("FILE", "PEM, of the expected signer"),
    "--password": (
        "TEXT",
        "password of the key, PIN of the token; safer in MODEL_SIGNING_PASSWORD, or else asked for",
    ),
    "--signing-certificate": ("FILE", "PEM, of the signing key"),
    "--certificate-chain": ("FILE...", "PEM; repeatable. Verifying: all of it is trusted"),
    "--log-fingerprints": ("", "print the fingerprints of all certificates"),
    "--pkcs11-uri": ("URI", "RFC 7512, with module-path or module-name"),
    "--timestamp-url": ("URL", "add a timestamp by this RFC 3161 authority"),
    "--tsa-certificate-chain": ("FILE...", "PEM of a trusted timestamp authority"),
}
_WALK = "--ignore-paths --ignore-git-paths --allow-symlinks --jobs --executor"
_OUTPUT = "--quiet --no-progress --format"
_HASH = f"{_WALK} {_OUTPUT} --hash-algorithm --shard-size"
_MODELS = "model_path+ --signature --signature-name"
_SIGN = f"{_MODELS} {_HASH} --attach --use-listed-digests --digest-cache --largest-signature"
_VERIFY = (
    f"{_MODELS} {_WALK} {_OUTPUT} --copy-to --use-listed-digests --ignore-unsigned-files "
    "--allow-legacy-predicate"
)
_INSTANCE = "--trust-config --use-staging --offline"
_CREDENTIALS = "--use-ambient-credentials --identity-token --identity-token-file"
_OAUTH = f"{_CREDENTIALS} --client-id --client-secret --oauth-force-oob --timeout"
_KEY = "--private-key! --password --timestamp-url"
_TOKEN = "--pkcs11-uri! --password --timestamp-url"  # noqa: S105
_CERTIFIED = "--signing-certificate! --certificate-chain"
_OF_ANOTHER_METHOD = {  # option -> method, of which the first that is given tells the most
    "--pkcs11-uri": "pkcs11-key",
    "--signing-certificate": "certificate",
    "--private-key": "key",
    "--public-key": "key",
    "--certificate-chain": "certificate",
}
_AS_LISTED = "as listed"  # which is said even when all is well: nothing was verified;
_NOT_VERIFIED = 3  # and no script takes it for that
_SHOWN_FILES = 10
_AT_ONCE = 10_000  # entries of a manifest that are printed together
_SIGNED_AT_ONCE = 16  # models, of which most wait for services
_CERTIFICATES = "signing_certificate certificate_chain timestamp_url"  # of the parsed arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0 done, 1 refused, 2 usage, 3 as listed."""
    if argv is None:
        command_line.own_process()
    given = _default_method(list(sys.argv[1:] if argv is None else argv))
    # One short run makes no cycles worth looking for; the search costs a fifth of the time that
    # 20,000 files take.
    gc.disable()
    try:
        return command_line.run(lambda: _parser(given), given, "model_signing")
    finally:
        gc.enable()


def _parser(given: Sequence[str]) -> command_line.Parser:
    """Only the part for what is `given` is built: each parser takes a quarter of a millisecond."""
    _check_method(given)
    parser = command_line.Parser(
        prog="model_signing",
        description="Sign machine-learning models and verify them (OpenSSF Model Signing v1.0).",
        epilog="examples:\n  model_signing sign key my-model --private-key key.pem\n"
        "  model_signing verify key my-model --public-key key.pub --signature model.sig\n\n"
        "exit codes: 0 done, 1 refused or failed, 2 usage, 3 compared with what is listed only",
    )
    parser.add_argument("--version", action=command_line.Version, nargs=0, help="print the version")
    levels = ("debug", "info", "warning", "error", "critical")
    parser.add_argument(
        "--log-level", action=_LogLevel, type=str.lower, choices=levels, help="how much to log"
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    wanted = _wanted(given)
    for command, methods in wanted.items():
        group = _add(commands, command, f"{command} a model. Without METHOD: sigstore")
        choices = group.add_subparsers(metavar="METHOD", dest="method", required=True)
        run = _hashing(_sign if command == "sign" else _verify)
        for method, (purpose, options, make, example) in methods.items():
            options = options if command in given and method in given else ""
            example = f"{command} {method} my-model {example}"
            _add(choices, method, purpose, options, example, run=run, make=make)
    if wanted is not _METHODS:
        return parser
    purpose = "print the digest that a signature of the model names"
    options = f"model_path {_HASH}"
    _add(commands, "digest", purpose, options, run=_hashing(_digest), example="digest my-model")
    purpose = "print what a signature claims: UNVERIFIED"
    _add(
        commands,
        "inspect",
        purpose,
        "bundle --files --format",
        run=_inspect,
        example="inspect model.sig",
    )
    return parser


def _wanted(given: Sequence[str]) -> dict[str, dict[str, _Row]]:
    """The command and method that are named first; all, where a message may have to list them."""
    command, method = (*given, "", "")[:2]
    if method in _METHODS.get(command, ()):
        return {command: {method: _METHODS[command][method]}}
    return _METHODS


def _add(
    choices: _Choices, name: str, purpose: str, options: str = "", example: str = "", **more: object
) -> command_line.Parser:
    description = f"{purpose[0].upper()}{purpose[1:]}."
    parser = choices.add_parser(name, help=purpose.partition(".")[0], description=description)
    parser.epilog = f"example:\n  model_signing {example}" if example else None
    parser.set_defaults(**more)
    command_line.add_options(parser, _OPTIONS, options)
    return parser


def _check_method(given: Sequence[str]) -> None:
    """The method was forgotten, if the options are another's."""
    command = next((word for word in given if word in _METHODS), None)
    if command is None or given[given.index(command) + 1 :][:1] != ["sigstore"]:
        return
    names = {word.partition("=")[0].replace("_", "-") for word in given}
    for option, method in _OF_ANOTHER_METHOD.items():
        if option in names and method in _METHODS[command]:
            fix = f"name the method: model_signing {command} {method} ..."
            raise UsageError(f"{option} is no option of the method sigstore", fix=fix)


class _LogLevel(argparse.Action):
    def __call__(self, _: object, __: object, level: Any, ___: object = None) -> None:  # noqa: ANN401
        import logging

        logging.basicConfig(format="%(name)s: %(message)s", level=level.upper())


def _default_method(argv: list[str]) -> list[str]:
    """`sign MODEL` is `sign sigstore MODEL`; but a mistyped method is not a model."""
    if argv and (option := argv[0].replace("_", "-")).startswith("--log-level"):
        end = 1 if "=" in option else 2
        return argv[:end] + _default_method(argv[end:])
    if len(argv) < 2 or argv[0] not in _METHODS or argv[1] in ("-h", "--help", *_METHODS[argv[0]]):
        return argv
    command, word, *rest = argv
    if not word.startswith("-") and not command_line.path(word).exists():
        near = command_line.suggestion(word, _METHODS[command])
        if near or (rest and not rest[0].startswith("-")):
            return [command, word]  # argparse refuses it, with the suggestion
    return [command, "sigstore", word, *rest]


def _hashing(run: Callable[[_Args], int]) -> Callable[[_Args], int]:
    """A command that hashes, here or on other machines."""

    def command(args: _Args) -> int:
        args.pool = None
        if args.executor is None:
            return run(args)
        from model_signing import executors

        with executors.opened(args.executor) as args.pool:
            return run(args)

    return command


def _sign(args: _Args) -> int:
    from model_signing import safe_files

    many = len(args.model_path) > 1
    for_each = many or args.signature_name is not None
    if for_each and args.attach:
        if args.signature is not None or args.signature_name is not None:
            raise _one_signature(args)
    elif for_each:
        _place_signatures(args)
    default = None if args.attach else command_line.path("model.sig")
    signature = None if for_each else args.signature or default
    place = command_line.path("/dev/fd/1") if str(signature) == "-" else signature
    to_stdout = place is not None and not isinstance(place, str) and safe_files.is_stdout(place)
    if to_stdout and args.format == "json":
        raise UsageError("standard output is for the signature, or for the result as JSON")
    signer = args.make(args)
    if many:
        return _sign_each(args, signer)
    (model,) = args.model_path
    with _progress(args) as progress:
        fields = _signed(args, model, place, signer, args.jobs, progress)
    if args.quiet and args.format == "text":
        return 0
    if signature is not None:
        fields["signature"] = str(signature)  # as it was named
    return _show(args, fields, sys.stderr if to_stdout else sys.stdout)


def _sign_each(args: _Args, signer: Signer) -> int:
    """Services take a second for each signature: meanwhile other models are hashed."""
    import threading

    hashing = threading.Semaphore(_jobs(args))

    def sign(statement: bytes) -> bytes:
        hashing.release()
        try:
            return signer(statement)
        finally:
            hashing.acquire()

    def work(model: Path, *how: Any) -> dict[str, Any]:  # noqa: ANN401
        with hashing:
            return _signed(args, model, None, sign, *how)

    return _each(args, work, at_once=_SIGNED_AT_ONCE)


def _place_signatures(args: _Args) -> None:
    """Each model has a place of its own for its signature, and none lies in another."""
    from model_signing.sources import beside

    if args.signature is not None:
        raise _one_signature(args)
    if elsewhere := [one for one in args.model_path if isinstance(one, str)]:
        fix = "sign it alone, and say where the signature goes with --signature"
        raise UsageError("a signature beside a model is a file here", found=elsewhere[0], fix=fix)
    models = sorted(
        (command_line.path(os.path.realpath(one)).parts, one) for one in args.model_path
    )
    for (outer, one), (inner, other) in itertools.pairwise(models):
        if inner[: len(outer)] == outer:
            problem = "a model is part of another, or named twice"
            raise UsageError(problem, where=str(other), found=str(one))
    taken: dict[str, Path] = {}
    for model in args.model_path:
        place = os.path.realpath(beside.place(model, args.signature_name))
        if taken.setdefault(place, model) is not model:
            raise UsageError(
                "two models would have the same signature file",
                where=place,
                found=f"{taken[place]}, {model}",
                fix="--signature-name {}.sig puts it beside each, under its own name",
            )


def _one_signature(args: _Args) -> UsageError:
    return UsageError(
        "--signature is of one model",
        found=f"{len(args.model_path)} models"
        if len(args.model_path) > 1
        else "--signature-name, too",
        fix="say with --signature-name what each model's signature is called",
    )


def _signed(
    args: _Args,
    model: Path | str,
    signature: Path | str | None,
    signer: Signer,
    jobs: int | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """Signs one model; what `_show` shows."""
    from model_signing import inspection
    from model_signing.oms import bundle
    from model_signing.sources import beside

    if signature is None and not args.attach and not isinstance(model, str):
        signature = beside.place(model, args.signature_name)
    options = _hash_options(args, model, jobs)
    more: dict[str, Any] = {"progress": progress, "attach": args.attach, "executor": args.pool}
    if args.largest_signature is not None:
        more["largest"] = args.largest_signature
    signed = model_signing.sign(model, signature, signer, options, **more)
    _warn(args, model, signed)
    who = inspection.signer(bundle.parse(signed.bundle))
    who.pop("certificate_validity", None)
    attached = {"attached": signed.attached} if signed.attached and signature else {}
    place = {"signature": str(signature or signed.attached)}
    return {"result": "signed", **who, **_what(model, signed), **place, **attached}


def _verify(args: _Args) -> int:
    if not args.ignore_git_paths:
        fix = "leave it out: the signature says what is verified"
        raise UsageError("--no-ignore-git-paths is for signing", fix=fix)
    many = len(args.model_path) > 1
    if args.signature is not None and (many or args.signature_name is not None):
        raise _one_signature(args)
    for option in ("copy_to", "use_listed_digests"):
        if many and getattr(args, option):
            what = f"--{option.replace('_', '-')} is of one model"
            raise UsageError(what, found=f"{len(args.model_path)} models")
    if args.use_listed_digests and args.copy_to is not None:
        raise UsageError("--use-listed-digests verifies nothing that --copy-to could copy")
    verifier = args.make(args)
    if many:
        return _each(args, lambda model, *how: _verified(args, model, verifier, *how))
    with _progress(args) as progress:
        fields = _verified(args, args.model_path[0], verifier, args.jobs, progress)
    code = _show(args, fields)
    return _NOT_VERIFIED if args.use_listed_digests else code


def _verified(
    args: _Args, model: Path | str, verifier: Verifier, jobs: int | None, progress: Progress | None
) -> dict[str, Any]:
    """Verifies one model; what `_show` shows."""
    from model_signing import api
    from model_signing.sources import beside

    given = args.signature
    if given is None and not isinstance(model, str):
        given = beside.find(model, args.signature_name)
    options = {
        "ignore_paths": _ignored(args, model),
        "ignore_unsigned_files": args.ignore_unsigned_files,
        "jobs": jobs,
        "progress": progress,
    }
    if args.use_listed_digests:
        verified = api.compare_listed(model, given, verifier, **options)
    else:
        options |= _attributes(args, "allow_legacy_predicate allow_symlinks copy_to")
        options["executor"] = args.pool
        verified = api.verify(model, given, verifier, **options)
    _warn(args, model, verified)
    who, log = verified.authenticated, verified.authenticated.log
    found = {"signature": str(verified.signature)} if given is None else {}
    return {
        "result": _AS_LISTED if args.use_listed_digests else "verified",
        **_attributes(who, "method identity issuer"),
        "signed_at": who.signed_at and who.signed_at.isoformat(),
        "time_source": who.time_source,
        "log": log and {"origin": log.origin, "index": log.log_index, "id": log.log_id},
        **_what(model, verified),
        "unsigned": list(verified.unsigned),
        **found,
        **({"other_signatures": [*others]} if (others := verified.other_signatures) else {}),
        **({"copy": str(args.copy_to)} if args.copy_to else {}),
    }


def _each(
    args: _Args,
    work: Callable[[Path, int | None, Progress | None], dict[str, Any]],
    at_once: int | None = None,
) -> int:
    """The same for several models, of which each is a line."""
    from model_signing.terminal import many

    def one(model: Path, threads: int, progress: Progress) -> many.Done:
        fields = work(model, threads, progress)
        files = f"{fields['files']:,} {'file' if fields['files'] == 1 else 'files'}"
        who = f"{fields['method']} {fields['identity']}"
        line = (
            f"{fields['result']:<8}  {fields['model']}: {files}, {fields['bytes']:,} bytes, {who}"
        )
        return many.Done(fields, line, None, fields["files"], fields["bytes"])

    return many.run(
        args.model_path,
        one,
        jobs=_jobs(args),
        at_once=at_once,
        apart=args.command == "verify" and args.pool is None,
        as_json=args.format == "json",
        quiet=args.quiet,
        done="signed" if args.command == "sign" else "verified",
        prog="model_signing",
    )


def _digest(args: _Args) -> int:
    from model_signing.sources import is_address, open_source

    model, resolved = args.model_path, {}
    if is_address(str(model)):
        model = open_source(model)
        resolved = {"resolved": str(model)}
    with _progress(args) as progress:
        options = _hash_options(args, args.model_path, args.jobs)
        digest = model_signing.digest(model, options, executor=args.pool, progress=progress)
    if args.format == "json":
        fields = {"result": "digest", "algorithm": "sha256", "digest": digest, **resolved}
        return _show(args, fields)
    if resolved and not args.quiet:
        _say(f"digest of {model}")
    print(f"sha256:{digest}")
    return 0


def _inspect(args: _Args) -> int:
    from model_signing import inspection

    claims = {"result": "UNVERIFIED", **inspection.claims(args.bundle)}
    if args.format == "json":
        return _print_listed(claims)
    resources, claims["log_index"] = claims.pop("resources"), claims.pop("log_entries")
    claims["signed_at"] = claims["signed_at"] or "no clock says"
    _show(args, claims)
    shown = resources if args.files else resources[:_SHOWN_FILES]
    for one in shown:
        size = f", {one['size']} bytes" if "size" in one else ""
        print(printable(f"    {one['name']}: {one['algorithm']} {one['digest']}{size}"))
    if len(shown) < len(resources):
        print(f"    and {len(resources) - len(shown)} more: --files lists them")
    return 0


def _print_listed(claims: dict[str, Any]) -> int:
    """As `_show`, an entry of the manifest after the other."""
    import json

    resources = claims.pop("resources")
    print(json.dumps(claims)[:-1], end=', "resources": [')
    comma = ""
    for start in range(0, len(resources), _AT_ONCE):
        print(comma, json.dumps(resources[start : start + _AT_ONCE])[1:-1], sep="", end="")
        comma = ", "
    print("]}")
    return 0


def _sigstore_signer(args: _Args) -> Signer:
    token = args.identity_token
    if args.identity_token_file:
        if token:
            raise UsageError("one of --identity-token and --identity-token-file, not both")
        from model_signing.methods.identity_tokens import require_content
        from model_signing.safe_files import read_bounded

        token = read_bounded(args.identity_token_file, 1 << 20).decode("ascii", "replace").strip()
        require_content(token, str(args.identity_token_file))
    return model_signing.sigstore_signer(
        model_signing.SigstoreTrust(args.trust_config, args.use_staging, args.offline),
        identity_token=token,
        ambient=args.use_ambient_credentials,
        oob=args.oauth_force_oob,
        say=_say if sys.stderr.isatty() and not (args.quiet or args.no_progress) else None,
        **_attributes(args, "client_id client_secret timeout"),
    )


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)


def _sigstore_verifier(args: _Args) -> Verifier:
    if not args.identity or not args.identity_provider:
        import shlex

        from model_signing import inspection
        from model_signing.sources import beside

        signature, model = args.signature, args.model_path[0]
        if signature is None and isinstance(model, str):
            missing = "who must have signed? --identity and --identity-provider are required"
            raise UsageError(missing, where=model)
        signature = signature or beside.find(model, args.signature_name)
        where, claims = str(signature), inspection.claims(signature)
        method, identity, issuer = claims["method"], claims["identity"], claims["issuer"]
        if method != "sigstore":
            fix = f"verify it with `model_signing verify {method}`"
            raise UsageError("not signed with Sigstore", where=where, found=method, fix=fix)
        pair = f"--identity {shlex.quote(identity)} --identity-provider {shlex.quote(issuer)}"
        raise UsageError(
            "who must have signed? --identity and --identity-provider are required",
            where=where,
            found=f"an UNVERIFIED claim to be {identity} of {issuer}",
            fix=f"compare that with what you know of the publisher, then pass {pair}",
        )
    trust = model_signing.SigstoreTrust(args.trust_config, args.use_staging, args.offline)
    who = (args.identity, args.identity_provider, args.source_repository)
    return model_signing.sigstore_verifier(*who, trust)


def _certificate_verifier(args: _Args) -> Verifier:
    if not args.certificate_chain:
        raise UsageError("--certificate-chain is required: whose certificates do you trust?")
    log = (lambda line: print(line, file=sys.stderr)) if args.log_fingerprints else None
    trusted = (args.certificate_chain, args.tsa_certificate_chain)
    return model_signing.certificate_verifier(*trusted, log)


_METHODS: dict[str, dict[str, _Row]] = {
    "sign": {
        "sigstore": (
            "sign with an OIDC identity, without keys (Sigstore)",
            f"{_SIGN} {_INSTANCE} {_OAUTH}",
            _sigstore_signer,
            "--signature model.sig",
        ),
        "key": (
            "sign with a private key",
            f"{_SIGN} {_KEY}",
            lambda args: model_signing.key_signer(**_key(args), timestamp_url=args.timestamp_url),
            "--private-key key.pem",
        ),
        "certificate": (
            "sign with a private key and its certificate",
            f"{_SIGN} {_KEY} {_CERTIFIED}",
            lambda args: model_signing.certificate_signer(
                **_key(args), **_attributes(args, _CERTIFICATES)
            ),
            "--private-key key.pem --signing-certificate cert.pem --certificate-chain ca.pem",
        ),
        "pkcs11-key": (
            "sign with a key on a PKCS #11 token",
            f"{_SIGN} {_TOKEN}",
            lambda args: model_signing.pkcs11_key_signer(
                args.pkcs11_uri, _secret(args), args.timestamp_url
            ),
            "--pkcs11-uri 'pkcs11:token=t;object=k?module-name=softhsm2'",
        ),
        "pkcs11-certificate": (
            "sign with a certified key on a PKCS #11 token",
            f"{_SIGN} {_TOKEN} {_CERTIFIED}",
            lambda args: model_signing.pkcs11_certificate_signer(
                args.pkcs11_uri, pin=_secret(args), **_attributes(args, _CERTIFICATES)
            ),
            "--pkcs11-uri 'pkcs11:object=k?module-name=softhsm2' --signing-certificate cert.pem",
        ),
    },
    "verify": {
        "sigstore": (
            "verify that an OIDC identity signed (Sigstore)",
            f"{_VERIFY} {_INSTANCE} --identity --identity-provider --source-repository",
            _sigstore_verifier,
            "--signature model.sig --identity me@example.com "
            "--identity-provider https://accounts.google.com",
        ),
        "key": (
            "verify that a key signed",
            f"{_VERIFY} --public-key! --tsa-certificate-chain",
            lambda args: model_signing.key_verifier(args.public_key, args.tsa_certificate_chain),
            "--signature model.sig --public-key key.pub",
        ),
        "certificate": (
            "verify that somebody with a certificate of a trusted authority signed",
            f"{_VERIFY} --certificate-chain --log-fingerprints --tsa-certificate-chain",
            _certificate_verifier,
            "--signature model.sig --certificate-chain ca.pem",
        ),
    },
}


def _secret(args: _Args) -> str | None:
    return args.password or os.environ.get("MODEL_SIGNING_PASSWORD")


def _key(args: _Args) -> dict[str, Any]:
    """The private key and its password: by option, environment, or a question at a terminal."""

    def ask() -> bytes | None:
        secret = _secret(args)
        if secret is None and sys.stdin.isatty():
            import getpass

            secret = getpass.getpass(f"password of {args.private_key}: ")
        return secret.encode() if secret else None

    return {
        "private_key": args.private_key,
        "password": args.password.encode() if args.password else ask,
    }


def _ignored(args: _Args, model: Path | str) -> tuple[str, ...]:
    """Paths from here, as a shell completes them, if they are in the model; else from its root.

    What lies in another of several models is of that model only.
    """
    if isinstance(model, str) or not args.ignore_paths:
        return tuple(map(str, args.ignore_paths))
    models = args.model_path if isinstance(args.model_path, list) else [args.model_path]
    here = [one for one in models if not isinstance(one, str)]
    inside = {one: os.path.abspath(one) + os.sep for one in here}  # noqa: PTH100  (links stay)
    paths = [(os.path.abspath(path), str(path)) for path in args.ignore_paths]  # noqa: PTH100
    return tuple(
        near if near.startswith(inside[model]) else given
        for near, given in paths
        if near.startswith(inside[model]) or not near.startswith(tuple(inside.values()))
    )


def _jobs(args: _Args) -> int:
    from model_signing import hashing

    return hashing.checked_jobs(args.jobs)


def _hash_options(args: _Args, model: Path | str, jobs: int | None) -> HashOptions:
    names = "shard_size ignore_git_paths allow_symlinks"
    names += "" if args.command == "digest" else " use_listed_digests digest_cache"
    return model_signing.HashOptions(
        method="files" if args.shard_size is None else "shards",
        algorithm=args.hash_algorithm,
        ignore_paths=_ignored(args, model),
        jobs=jobs,
        **_attributes(args, names),
    )


def _progress(args: _Args) -> AbstractContextManager[Progress | None]:
    from model_signing.terminal import progress

    return progress.bar(shown=not (args.quiet or args.no_progress))


def _warn(args: _Args, model: Path | str, done: Signed) -> None:
    where = f"{model}: " if len(args.model_path) > 1 else ""
    for warning in done.warnings:  # also if --quiet: not all is well
        print(printable(f"model_signing: warning: {where}{warning}"), file=sys.stderr)


def _what(model: Path | str, done: Signed) -> dict[str, Any]:
    covered = _attributes(done, "files bytes root_digest payload_digest")
    warnings = {"warnings": list(done.warnings)} if done.warnings else {}
    resolved = {"resolved": done.resolved} if done.resolved else {}
    unread = {"unread": done.unread} if done.unread else {}
    return {"model": str(model), **resolved, **covered, **unread, **warnings}


def _attributes(of: object, names: str) -> dict[str, Any]:
    return {name: getattr(of, name) for name in names.split()}


def _show(args: _Args, fields: dict[str, Any], file: TextIO | None = None) -> int:
    """One result, as JSON (slsa_for_models/schemas/model_signing-result.v1.json) or as lines."""
    import json

    if args.format == "json":
        print(json.dumps(fields))
    elif not getattr(args, "quiet", False) or fields["result"] == _AS_LISTED:
        file = file or sys.stdout
        print(fields.pop("result"), file=file)
        shown = {name: value for name, value in fields.items() if value not in (None, [], "")}
        width = max(map(len, shown)) + 2
        for name, value in shown.items():
            line = printable(f"  {name.replace('_', ' ') + ':':<{width}}{_plain(value)}")
            print(command_line.folded(line, file, width + 2), file=file)
    return 0


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(inner) for inner in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
