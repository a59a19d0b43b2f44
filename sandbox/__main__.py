"""Command line of the sandbox: `python -m sandbox COMMAND`. For demonstrations and tests only."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="GitHub Actions and Sigstore on this machine. For demonstrations and tests "
        "only, never for production.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sigstore = commands.add_parser(
        "sigstore", help="keep a Sigstore running until interrupted (Ctrl-C)"
    )
    sigstore.add_argument(
        "--trust-config",
        type=Path,
        default=Path("trust-config.json"),
        metavar="FILE",
        help="where to write the client trust config (default: %(default)s)",
    )
    sigstore.set_defaults(run=run_sigstore)

    rehearsal = commands.add_parser(
        "rehearse", help="sign and verify a trained model with keys that are thrown away"
    )
    rehearsal.add_argument("model", type=Path, metavar="MODEL")
    rehearsal.add_argument("--training-record", type=Path, required=True, metavar="FILE")
    rehearsal.add_argument("--workflow-inputs", default="{}", metavar="JSON")
    rehearsal.add_argument("--summary", type=Path, required=True, metavar="FILE")
    rehearsal.set_defaults(run=run_rehearse)

    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


def run_sigstore(options: argparse.Namespace) -> int:
    """Keeps a Sigstore running and says where its parts are."""
    from .sigstore import LocalSigstore

    with LocalSigstore() as sigstore:
        bearer = sigstore.oidc.request_token_for({})
        print(
            f"""\
A Sigstore for experiments runs on this machine. Its signatures prove nothing to anybody else.

  URL            {sigstore.url}
  trust config   {sigstore.write_trust_config(options.trust_config)}
  a person       curl -s '{sigstore.url}/identity-token?email=developer@example.test'
  a GitHub job   export ACTIONS_ID_TOKEN_REQUEST_URL='{sigstore.job_token_url}'
                 export ACTIONS_ID_TOKEN_REQUEST_TOKEN={bearer}

Ctrl-C ends it, and its keys with it.""",
            flush=True,
        )
        # A supervisor's SIGTERM ends it as Ctrl-C does.
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


def run_rehearse(options: argparse.Namespace) -> int:
    """Signs and verifies with a Sigstore that lives for this call only."""
    from .rehearse import rehearse

    return rehearse(
        options.model,
        options.training_record,
        options.workflow_inputs,
        options.summary,
        os.environ,
    )


if __name__ == "__main__":
    sys.exit(main())
