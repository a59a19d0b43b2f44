"""`slsa_for_models load`: verify a model and load it as safely as its format allows."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from model_signing.errors import UsageError
from model_signing.terminal import command_line
from slsa_for_models.models import formats

if TYPE_CHECKING:
    from model_signing.methods import Verifier


_OPTIONS: dict[str, command_line.Row] = {
    "model": (
        "FILE",
        "a file or a directory, or its address, such as hf://ORG/NAME",
        command_line.place,
    ),
    "--signature": (
        "FILE",
        "the OMS signature, or its address (default: MODEL.sig, or model.sig in a folder)",
        command_line.place,
    ),
    "--model-format": (
        "FORMAT",
        f"where the model's name does not say it: {', '.join(formats.LOADED)}",
    ),
    "--allow-pickle": ("", "load pickles, which can run any code"),
}
_SIGNER: dict[str, command_line.Row] = {
    "--public-key": ("PEM", "of the signer"),
    "--certificate-chain": ("PEM...", "trusted; repeatable"),
    "--identity": ("ID", "a workflow or an e-mail address"),
    "--identity-provider": ("URL", "who vouches for the identity"),
    "--source-repository": ("ORG/REPO", "the workflow's caller"),
    "--trust-config": ("FILE", "of a private Sigstore"),
    "--offline": ("", "do not refresh the trust root"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Verify a model's signature, load it from the verified bytes, and say what "
        "it is. For programs: slsa_for_models.load_model returns the loaded model."
    )
    parser.epilog = "example:\n  slsa_for_models load pytorch_model.pth --public-key publisher.pub"
    command_line.add_options(parser, _OPTIONS)
    group = parser.add_argument_group("who must have signed (one of)")
    command_line.add_options(group, _SIGNER)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from model_signing.sources import beside, open_source
    from slsa_for_models.models.load import load_model

    verifier = _verifier(args)
    source, signature = open_source(args.model), args.signature
    if signature is None and not isinstance(args.model, str):  # else its place says what lies there
        signature = beside.find(args.model)
    model = load_model(
        source,
        signature,
        verifier,
        format=args.model_format,
        allow_pickle=args.allow_pickle,
    )
    row = formats.to_load(source, args.model_format)
    kind = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
    print(f"{args.model}: verified and loaded: {kind} ({row.holds})")
    return 0


def _verifier(args: argparse.Namespace) -> Verifier:
    import model_signing

    given = [args.public_key, args.certificate_chain, args.identity]
    if sum(map(bool, given)) != 1:
        raise UsageError(
            "who must have signed?",
            fix="give one of --public-key, --certificate-chain and --identity",
        )
    if args.public_key:
        return model_signing.key_verifier(args.public_key)
    if args.certificate_chain:
        return model_signing.certificate_verifier(args.certificate_chain)
    if not args.identity_provider:
        raise UsageError("--identity needs --identity-provider: who vouches for it")
    return model_signing.sigstore_verifier(
        args.identity,
        args.identity_provider,
        args.source_repository,
        model_signing.SigstoreTrust(trust_config=args.trust_config, offline=args.offline),
    )
