"""`slsa_for_models load`: verify a model and load it as safely as its format allows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from model_signing.errors import UsageError
from slsa_for_models.commands.shared_options import Commands
from slsa_for_models.models import formats

if TYPE_CHECKING:
    from model_signing.methods import Verifier


def configure(commands: Commands) -> None:
    """Adds the command; imports nothing heavy."""
    parser = commands.add_parser(
        "load",
        help="verify a model and load it as safely as its format allows",
        description="Verify a model's signature, load it from the verified bytes, and say what "
        "it is. For programs: slsa_for_models.models.load.load returns the loaded model.",
        epilog="example:\n  slsa_for_models load pytorch_model.pth --public-key publisher.pub",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file or a directory")
    parser.add_argument(
        "--signature", type=Path, metavar="FILE", help="the OMS signature (default: MODEL.sig)"
    )
    parser.add_argument(
        "--model-format",
        metavar="FORMAT",
        help=f"where the model's name does not say it: {', '.join(formats.FORMATS)}",
    )
    parser.add_argument(
        "--allow-pickle", action="store_true", help="load pickles, which can run any code"
    )
    signer = parser.add_argument_group("who must have signed (one of)")
    signer.add_argument("--public-key", type=Path, metavar="PEM", help="of the signer")
    signer.add_argument(
        "--certificate-chain", type=Path, metavar="PEM", action="append", help="trusted; repeatable"
    )
    signer.add_argument("--identity", metavar="ID", help="a workflow or an e-mail address")
    signer.add_argument("--identity-provider", metavar="URL", help="who vouches for the identity")
    signer.add_argument("--source-repository", metavar="ORG/REPO", help="the workflow's caller")
    signer.add_argument("--trust-config", type=Path, metavar="FILE", help="of a private Sigstore")
    signer.add_argument("--offline", action="store_true", help="do not refresh the trust root")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from slsa_for_models.models.load import load

    signature = args.signature or args.model.with_name(f"{args.model.name}.sig")
    model = load(
        args.model,
        signature,
        _verifier(args),
        format=args.model_format,
        allow_pickle=args.allow_pickle,
    )
    row = formats.find(args.model_format or args.model.name)
    kind = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
    print(f"{args.model}: verified and loaded: {kind} ({row.holds})")
    return 0


def _verifier(args: argparse.Namespace) -> Verifier:
    import model_signing

    given = [args.public_key, args.certificate_chain, args.identity]
    if sum(value is not None for value in given) != 1:
        raise UsageError(
            "who must have signed?",
            fix="give one of --public-key, --certificate-chain and --identity",
        )
    if args.public_key:
        return model_signing.key_verifier(args.public_key.read_bytes())
    if args.certificate_chain:
        return model_signing.certificate_verifier(
            [path.read_bytes() for path in args.certificate_chain]
        )
    if not args.identity_provider:
        raise UsageError("--identity needs --identity-provider: who vouches for it")
    return model_signing.sigstore_verifier(
        args.identity,
        args.identity_provider,
        args.source_repository,
        model_signing.SigstoreTrust(trust_config=args.trust_config, offline=args.offline),
    )
