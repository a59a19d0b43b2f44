"""The command line: options once, in a table; every command is one call into the package.

Imports what a command needs when it runs: `--help` costs little more than Python itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence

from model_signing import console
from model_signing.errors import UsageError, printable

TYPE_CHECKING = False  # like pathlib, typing costs a tenth of the time that --help may take
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any

    from model_signing.api import HashOptions, Signed, Verified
    from model_signing.manifest import Progress
    from model_signing.signers import Signer
    from model_signing.verifiers import Authenticated, Verifier

    _Methods = dict[str, tuple[str, tuple[str, ...], Callable[[argparse.Namespace], Any], str]]


def _path(text: str) -> Path:
    from pathlib import Path

    return Path(text)


_FILE: dict[str, Any] = {"type": _path, "metavar": "FILE"}
_MANY: dict[str, Any] = {**_FILE, "action": "append", "default": []}
_FLAG: dict[str, Any] = {"action": "store_true"}

# Every option once. A trailing "!" in the table of commands makes one required.
_OPTIONS: dict[str, dict[str, Any]] = {
    "model_path": {"type": _path, "metavar": "MODEL_PATH", "help": "the model: a file or folder"},
    "bundle": {"type": _path, "metavar": "BUNDLE", "help": "a signature file"},
    "--signature": {**_FILE, "help": "the signature file (signing: default model.sig)"},
    "--ignore-paths": {**_MANY, "metavar": "PATH", "help": "leave out this path; repeatable"},
    "--ignore-git-paths": {
        "action": argparse.BooleanOptionalAction,
        "default": True,
        "help": "leave out .git, .gitignore, .gitattributes, .github, as the specification (OMS "
        "6.2) wants; --no-ignore-git-paths steps outside it",
    },
    "--allow-symlinks": {**_FLAG, "help": "follow links inside the model (verifying: as signed)"},
    "--ignore-unsigned-files": {
        "action": argparse.BooleanOptionalAction,
        "default": False,
        "help": "accept files that the signature does not list",
    },
    "--allow-legacy-predicate": {**_FLAG, "help": "accept the format of model-signing v0.2.0"},
    "--hash-algorithm": {
        "choices": ("sha256", "blake2b", "blake3"),
        "default": "sha256",
        "help": "default sha256, which every implementation verifies",
    },
    "--shard-size": {
        "type": int,
        "metavar": "BYTES",
        "help": "hash and list pieces of this size instead of whole files",
    },
    "--jobs": {"type": int, "metavar": "N", "help": "threads for hashing (default: all cores)"},
    "--quiet": {**_FLAG, "help": "print nothing when all is well"},
    "--no-progress": {**_FLAG, "help": "no progress bar"},
    "--format": {"choices": ("text", "json"), "default": "text", "help": "of the result"},
    "--trust-config": {**_FILE, "help": "client trust configuration of a private Sigstore"},
    "--use-staging": {**_FLAG, "help": "Sigstore's staging instance"},
    "--offline": {**_FLAG, "help": "use the trust root on this machine, without refreshing it"},
    "--use-ambient-credentials": {**_FLAG, "help": "identity of the environment (CI)"},
    "--identity-token": {"metavar": "TOKEN", "help": "an OIDC token"},
    "--identity-token-file": {
        **_FILE,
        "help": "the same, from a file: unseen in process lists; Kubernetes mounts such tokens",
    },
    "--client-id": {"metavar": "ID", "help": "OAuth client"},
    "--client-secret": {"metavar": "SECRET", "help": "its secret"},
    "--oauth-force-oob": {**_FLAG, "help": "print the address instead of opening a browser"},
    "--identity": {"metavar": "ID", "help": "who must have signed: an e-mail address or a URI"},
    "--identity-provider": {"metavar": "URL", "help": "the OIDC issuer who vouches for them"},
    "--source-repository": {
        "metavar": "ORG/REPO",
        "help": "the repository that must have called the workflow that --identity names",
    },
    "--private-key": {**_FILE, "help": "PEM, P-256, P-384 or P-521"},
    "--public-key": {**_FILE, "help": "PEM, of the expected signer"},
    "--password": {
        "metavar": "TEXT",
        "help": "of the key, or the token's PIN; better in MODEL_SIGNING_PASSWORD, or asked for",
    },
    "--signing-certificate": {**_FILE, "help": "PEM, of the signing key"},
    "--certificate-chain": {**_MANY, "help": "PEM; repeatable. Verifying: all of it is trusted"},
    "--log-fingerprints": {**_FLAG, "help": "print the fingerprints of all certificates"},
    "--pkcs11-uri": {"metavar": "URI", "help": "RFC 7512, with module-path or module-name"},
    "--timestamp-url": {"metavar": "URL", "help": "add a timestamp by this RFC 3161 authority"},
    "--tsa-certificate-chain": {**_MANY, "help": "PEM of a trusted timestamp authority"},
}
_OUTPUT = ("--quiet", "--no-progress", "--format")
_WALK = ("model_path", "--ignore-paths", "--ignore-git-paths", "--allow-symlinks", "--jobs")
_HASH = ("--hash-algorithm", "--shard-size")
_SIGN = (*_WALK, *_OUTPUT, *_HASH, "--signature")
_VERIFY = (*_WALK, *_OUTPUT, "--signature!", "--ignore-unsigned-files", "--allow-legacy-predicate")
_INSTANCE = ("--trust-config", "--use-staging", "--offline")
_CREDENTIALS = ("--use-ambient-credentials", "--identity-token", "--identity-token-file")
_OAUTH = (*_CREDENTIALS, "--client-id", "--client-secret", "--oauth-force-oob")
_CERTIFIED = ("--signing-certificate!", "--certificate-chain")
_SIGNER_ID = ("--identity", "--identity-provider", "--source-repository")
_TOKEN = ("--pkcs11-uri!", "--password", "--timestamp-url")
_KEY = ("--private-key!", "--password", "--timestamp-url")
_TSA = ("--tsa-certificate-chain",)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0 done, 1 refused, 2 usage."""
    given = _default_method(list(sys.argv[1:] if argv is None else argv))
    return console.run(lambda: _parser(given), given, "model_signing")


def _parser(given: Sequence[str]) -> console.Parser:
    """Only the part for what is `given` is built: `--help` lists no options of methods."""
    parser = console.Parser(
        prog="model_signing",
        description="Sign machine-learning models and verify them (OpenSSF Model Signing v1.0).",
        epilog="example:\n  model_signing sign key my-model --private-key key.pem",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    levels = ("debug", "info", "warning", "error", "critical")
    parser.add_argument(
        "--log-level", action=_LogLevel, type=str.lower, choices=levels, help="of what is done"
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for command, methods in _METHODS.items():
        group = commands.add_parser(
            command,
            help=f"{command} a model",
            description=f"{command.capitalize()} a model. Without METHOD: sigstore.",
        )
        choices = group.add_subparsers(metavar="METHOD", dest="method", required=True)
        for method, (purpose, options, make, example) in (
            methods.items() if command in given else ()
        ):
            sub = choices.add_parser(
                method,
                help=purpose,
                description=_sentence(purpose),
                epilog=f"example:\n  model_signing {command} {method} my-model {example}",
            )
            if method in given:
                _add(sub, options)
            sub.set_defaults(run=_COMMANDS[command], make=make)
    for command, run, purpose, options in (
        (
            "digest",
            _digest,
            "print the digest that a signature of the model names",
            (*_WALK, *_OUTPUT, *_HASH),
        ),
        ("inspect", _inspect, "print what a signature claims: UNVERIFIED", ("bundle", "--format")),
    ):
        sub = commands.add_parser(command, help=purpose, description=_sentence(purpose))
        _add(sub, options)
        sub.set_defaults(run=run)
    return parser


def _add(parser: argparse.ArgumentParser, options: Iterable[str]) -> None:
    for option in options:
        name = option.rstrip("!")
        keywords = dict(_OPTIONS[name])
        if option.endswith("!"):
            keywords["required"] = True
        parser.add_argument(name, **keywords)


def _sentence(purpose: str) -> str:
    return f"{purpose[0].upper()}{purpose[1:]}."


class _LogLevel(argparse.Action):
    def __call__(self, _: object, __: object, level: Any, ___: object = None) -> None:  # noqa: ANN401
        import logging

        logging.basicConfig(format="%(name)s: %(message)s", level=level.upper())


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"model_signing {version('model-transparency')}")
        except PackageNotFoundError:
            print("model_signing (from a source tree)")
        parser.exit()


def _default_method(argv: list[str]) -> list[str]:
    """`sign MODEL` is `sign sigstore MODEL`; but a mistyped method is not a model."""
    if argv and argv[0].replace("_", "-") == "--log-level":
        return argv[:2] + _default_method(argv[2:])
    if len(argv) < 2 or argv[0] not in _METHODS or argv[1] in ("-h", "--help"):
        return argv
    word, methods = argv[1], _METHODS[argv[0]]
    if word in methods:
        return argv
    if not word.startswith("-") and not _path(word).exists():
        near = console.suggestion(word, methods)
        if near or (len(argv) > 2 and not argv[2].startswith("-")):
            return [argv[0], word]  # argparse refuses it, with the suggestion
    return [argv[0], "sigstore", *argv[1:]]


# --- commands


def _sign(args: argparse.Namespace) -> int:
    from model_signing import api, inspection

    signature, signer = args.signature or _path("model.sig"), args.make(args)
    with _progress(args) as progress:
        signed = api.sign(
            args.model_path, signature, signer, _hash_options(args), progress=progress
        )
    who = inspection.claims(signature)  # what was just written
    names = {name: who[name] for name in ("method", "identity", "issuer")}
    _show(args, "signed", {**names, **_what(args, signed), "signature": str(signature)})
    return 0


def _verify(args: argparse.Namespace) -> int:
    from model_signing import api

    if not args.ignore_git_paths:
        raise UsageError("--no-ignore-git-paths is for signing", fix="the signature records it")
    with _progress(args) as progress:
        verified = api.verify(
            args.model_path,
            args.signature,
            args.make(args),
            ignore_paths=_ignored(args),
            ignore_unsigned_files=args.ignore_unsigned_files,
            allow_legacy_predicate=args.allow_legacy_predicate,
            jobs=args.jobs,
            progress=progress,
        )
    who = _who(verified.authenticated)
    _show(args, "verified", {**who, **_what(args, verified), "unsigned": list(verified.unsigned)})
    return 0


def _digest(args: argparse.Namespace) -> int:
    from model_signing import api

    with _progress(args) as progress:
        digest = api.digest(args.model_path, _hash_options(args), progress=progress)
    if args.format == "json":
        _show(args, "digest", {"algorithm": "sha256", "digest": digest})
    else:
        print(f"sha256:{digest}")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from model_signing import inspection

    _show(args, "UNVERIFIED", inspection.claims(args.bundle))
    return 0


# --- methods: command-line arguments to signers and verifiers


def _sigstore_signer(args: argparse.Namespace) -> Signer:
    from model_signing.signers import SigstoreSigning, sigstore_signer

    token = args.identity_token
    if args.identity_token_file:
        if token:
            raise UsageError("one of --identity-token and --identity-token-file, not both")
        token = _read(args.identity_token_file).decode("ascii", "replace").strip()
    return sigstore_signer(
        SigstoreSigning(
            trust_config=args.trust_config,
            staging=args.use_staging,
            offline=args.offline,
            ambient=args.use_ambient_credentials,
            identity_token=token,
            client_id=args.client_id,
            client_secret=args.client_secret,
            oob=args.oauth_force_oob,
        )
    )


def _key_signer(args: argparse.Namespace) -> Signer:
    from model_signing.signers import key_signer

    key = _read(args.private_key)
    return key_signer(key, _password(args, key), args.timestamp_url)


def _certificate_signer(args: argparse.Namespace) -> Signer:
    from model_signing.signers import certificate_signer

    key = _read(args.private_key)
    leaf, chain = _read(args.signing_certificate), _read_all(args.certificate_chain)
    return certificate_signer(key, leaf, chain, _password(args, key), args.timestamp_url)


def _pkcs11_key_signer(args: argparse.Namespace) -> Signer:
    from model_signing.signers import pkcs11_key_signer

    return pkcs11_key_signer(args.pkcs11_uri, _secret(args), args.timestamp_url)


def _pkcs11_certificate_signer(args: argparse.Namespace) -> Signer:
    from model_signing.signers import pkcs11_certificate_signer

    leaf, chain = _read(args.signing_certificate), _read_all(args.certificate_chain)
    return pkcs11_certificate_signer(
        args.pkcs11_uri, leaf, chain, _secret(args), args.timestamp_url
    )


def _sigstore_verifier(args: argparse.Namespace) -> Verifier:
    from model_signing.verifiers import SigstoreTrust, sigstore_verifier

    if not args.identity or not args.identity_provider:
        from model_signing import inspection

        claims = inspection.claims(args.signature)
        if claims["method"] != "sigstore":
            raise UsageError(
                "not signed with Sigstore",
                where=str(args.signature),
                found=str(claims["method"]),
                fix=f"verify it with `model_signing verify {claims['method']}`",
            )
        identity, issuer = claims["identity"], claims["issuer"]
        raise UsageError(
            "who must have signed? --identity and --identity-provider are required",
            where=str(args.signature),
            found=f"an UNVERIFIED claim to be {identity} of {issuer}",
            fix="compare that with what you know of the publisher, then pass "
            f"--identity '{identity}' --identity-provider '{issuer}'",
        )
    trust = SigstoreTrust(args.trust_config, args.use_staging, args.offline)
    return sigstore_verifier(args.identity, args.identity_provider, args.source_repository, trust)


def _key_verifier(args: argparse.Namespace) -> Verifier:
    from model_signing.verifiers import key_verifier

    return key_verifier(_read(args.public_key), _read_all(args.tsa_certificate_chain))


def _certificate_verifier(args: argparse.Namespace) -> Verifier:
    from model_signing.verifiers import certificate_verifier

    log = (lambda line: print(line, file=sys.stderr)) if args.log_fingerprints else None
    if not args.certificate_chain:
        raise UsageError("--certificate-chain is required: whose certificates do you trust?")
    return certificate_verifier(
        _read_all(args.certificate_chain), _read_all(args.tsa_certificate_chain), log
    )


_METHODS: dict[str, _Methods] = {
    "sign": {
        "sigstore": (
            "sign with an OIDC identity, without keys (Sigstore)",
            (*_SIGN, *_INSTANCE, *_OAUTH),
            _sigstore_signer,
            "--signature model.sig",
        ),
        "key": ("sign with a private key", (*_SIGN, *_KEY), _key_signer, "--private-key key.pem"),
        "certificate": (
            "sign with a private key and its certificate",
            (*_SIGN, *_KEY, *_CERTIFIED),
            _certificate_signer,
            "--private-key key.pem --signing-certificate cert.pem --certificate-chain ca.pem",
        ),
        "pkcs11-key": (
            "sign with a key on a PKCS #11 token",
            (*_SIGN, *_TOKEN),
            _pkcs11_key_signer,
            "--pkcs11-uri 'pkcs11:token=t;object=k?module-name=softhsm2'",
        ),
        "pkcs11-certificate": (
            "sign with a certified key on a PKCS #11 token",
            (*_SIGN, *_TOKEN, *_CERTIFIED),
            _pkcs11_certificate_signer,
            "--pkcs11-uri 'pkcs11:object=k?module-name=softhsm2' --signing-certificate cert.pem",
        ),
    },
    "verify": {
        "sigstore": (
            "verify that an OIDC identity signed (Sigstore)",
            (*_VERIFY, *_INSTANCE, *_SIGNER_ID),
            _sigstore_verifier,
            "--signature model.sig --identity me@example.com "
            "--identity-provider https://accounts.google.com",
        ),
        "key": (
            "verify that a key signed",
            (*_VERIFY, "--public-key!", *_TSA),
            _key_verifier,
            "--signature model.sig --public-key key.pub",
        ),
        "certificate": (
            "verify that somebody with a certificate of a trusted authority signed",
            (*_VERIFY, "--certificate-chain", "--log-fingerprints", *_TSA),
            _certificate_verifier,
            "--signature model.sig --certificate-chain ca.pem",
        ),
    },
}
_COMMANDS = {"sign": _sign, "verify": _verify}


# --- input and output


def _read(path: Path) -> bytes:
    from model_signing.bundle import read_bounded

    return read_bounded(path, 1024 * 1024)


def _read_all(paths: Sequence[Path]) -> list[bytes]:
    return [_read(path) for path in paths]


def _secret(args: argparse.Namespace) -> str | None:
    return args.password or os.environ.get("MODEL_SIGNING_PASSWORD")


def _password(args: argparse.Namespace, pem: bytes) -> bytes | None:
    """The key's password: option, environment, or a question at a terminal."""
    if b"ENCRYPTED" not in pem:
        return args.password.encode() if args.password else None
    secret = _secret(args)
    if secret is None and sys.stdin.isatty():
        import getpass

        secret = getpass.getpass(f"password of {args.private_key}: ")
    return secret.encode() if secret else None


def _ignored(args: argparse.Namespace) -> tuple[str, ...]:
    """Paths from here, as a shell completes them, if they are in the model; else from its root."""
    root = os.path.abspath(args.model_path)  # noqa: PTH100  (symbolic links stay)
    here = [os.path.abspath(path) for path in args.ignore_paths]  # noqa: PTH100
    return tuple(
        near if near.startswith(root + os.sep) else str(given)
        for near, given in zip(here, args.ignore_paths, strict=True)
    )


def _hash_options(args: argparse.Namespace) -> HashOptions:
    from model_signing.api import HashOptions

    return HashOptions(
        method="files" if args.shard_size is None else "shards",
        algorithm=args.hash_algorithm,
        shard_size=args.shard_size,
        ignore_paths=_ignored(args),
        ignore_git_paths=args.ignore_git_paths,
        allow_symlinks=args.allow_symlinks,
        jobs=args.jobs,
    )


def _progress(args: argparse.Namespace) -> AbstractContextManager[Progress | None]:
    from contextlib import nullcontext

    from model_signing import progress

    return nullcontext() if args.quiet or args.no_progress else progress.bar()


def _what(args: argparse.Namespace, done: Signed | Verified) -> dict[str, Any]:
    return {
        "model": str(args.model_path),
        "files": done.files,
        "bytes": done.bytes,
        "root_digest": done.root_digest,
        "payload_digest": done.payload_digest,
    }


def _who(authenticated: Authenticated) -> dict[str, Any]:
    log, when = authenticated.log, authenticated.signed_at
    return {
        "method": authenticated.method,
        "identity": authenticated.identity,
        "issuer": authenticated.issuer,
        "signed_at": when and when.isoformat(),
        "time_source": authenticated.time_source,
        "log": log and {"origin": log.origin, "index": log.log_index, "id": log.log_id},
    }


def _show(args: argparse.Namespace, result: str, fields: dict[str, Any]) -> None:
    """One result, as JSON (docs/schemas/model_signing-result.schema.json) or as lines."""
    import json

    if args.format == "json":
        print(json.dumps({"result": result, **fields}))
        return
    if getattr(args, "quiet", False):
        return
    print(result)
    for name, value in fields.items():
        if value not in (None, [], ""):
            print(printable(f"  {name.replace('_', ' ') + ':':<16}{_plain(value)}"))


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(inner) for inner in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
