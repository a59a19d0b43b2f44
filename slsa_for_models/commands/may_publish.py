"""`slsa_for_models may-publish`: whether this job may write into public logs."""

from __future__ import annotations

import argparse

from model_signing.terminal import command_line

_OPTIONS: dict[str, command_line.Row] = {
    "--identity-token": ("TOKEN", "read this OpenID Connect token, not the job's"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Ask for this GitHub Actions job's identity token, and refuse unless it says "
        "that the repository is public: Sigstore's logs are. The token is sent nowhere."
    )
    parser.epilog = "example, in a job with `id-token: write`:\n  slsa_for_models may-publish"
    command_line.add_options(parser, _OPTIONS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command."""
    from slsa_for_models.attesting.build_context import check_public

    token = args.identity_token
    if token is None:
        from slsa_for_models.attesting.signing_job import ambient_token

        token = ambient_token()
    repository = check_public(token)
    print(f"{repository} is public")
    return 0
