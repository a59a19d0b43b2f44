"""`slsa_for_models may-publish`: whether this job may write into public logs."""

from __future__ import annotations

import argparse

from slsa_for_models.commands.shared_options import Commands


def configure(commands: Commands) -> None:
    """Adds the command; imports nothing heavy."""
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
