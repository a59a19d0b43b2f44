"""`slsa_for_models policy`: write down what to expect of a model."""

from __future__ import annotations

import argparse
import os
import sys

from model_signing.terminal import command_line
from slsa_for_models.commands import expectation_options, verify
from slsa_for_models.commands.shared_options import PROGRESS, check_apart, check_writable
from slsa_for_models.errors import PolicyError


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's actions, with their options."""
    parser.description = "Write a policy: a TOML file of expectations, for `verify --policy`."
    parser.epilog = "example:\n  slsa_for_models policy init --help"
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    init = actions.add_parser("init", help="from a model that was verified")
    init.description = "Verify a model, then write a policy that it and its next versions satisfy."
    init.epilog = (
        "example:\n"
        "  slsa_for_models policy init pytorch_model.pth --output policy.toml \\\n"
        "    --provenance pytorch_model.pth.provenance.sigstore.json \\\n"
        "    --source-uri github.com/ORG/REPO \\\n"
        "    --identity https://github.com/ORG/REPO/.github/workflows/FILE.yml@refs/tags/v1"
    )
    verify.add_options(init)
    command_line.add_options(init, {"--output": ("FILE!", "the policy to write"), **PROGRESS})
    init.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from model_signing.safe_files import write_atomic
    from model_signing.terminal import progress
    from slsa_for_models.report import plain
    from slsa_for_models.verdict import policy_file

    if args.output.exists():
        raise PolicyError(
            "the policy exists already, and may have been edited",
            where=str(args.output),
            fix="choose another --output, or remove it first",
        )
    check_writable(args.output, lambda _: False)
    check_apart(args.output, (args.model,))
    expected = expectation_options.expectations(args)
    if found := verify.look_beside(args):
        print(f"slsa_for_models: {found}", file=sys.stderr)
    with progress.bar(shown=not args.no_progress) as shown:
        verdict = verify.verified(args, expected, progress=shown)
    if not verdict.verified or not verdict.accepted:
        sys.stdout.write(command_line.folded(plain.text(verdict), sys.stdout, 13))
        raise PolicyError(
            "no policy was written: the model was not verified by provenance",
            where=str(args.model),
            found=plain.headline(verdict),
        )
    key, builder_key = (
        path and os.path.relpath(path, args.output.parent)
        for path in (args.public_key, args.builder_key or args.public_key)
    )
    text = policy_file.policy_from(verdict, expected, key, builder_key)
    write_atomic(args.output, text.encode())
    print(f"wrote {args.output}: read it, then verify with --policy {args.output}")
    return 0
