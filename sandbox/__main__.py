"""Command line of the sandbox: `python -m sandbox COMMAND`. For demonstrations and tests only."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from sandbox.checkout import PRODUCT, ROOT
from sandbox.services import KINDS


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def build_parser() -> argparse.ArgumentParser:
    """The commands, each with its options."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="GitHub Actions and Sigstore on this machine. For demonstrations and tests "
        "only, never for production.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (text, configure, run) in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        configure(command)
        command.set_defaults(run=run)
    return parser


def _configure_sigstore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-config",
        type=Path,
        default=Path("trust-config.json"),
        metavar="FILE",
        help="where to write the client trust config (default: %(default)s)",
    )


def _configure_rehearse(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--training-record", type=Path, required=True, metavar="FILE")
    parser.add_argument("--source", type=Path, metavar="DIR", help="a checkout of the commit")
    parser.add_argument("--workflow-inputs", default="{}", metavar="JSON")
    parser.add_argument("--summary", type=Path, required=True, metavar="FILE")


def _configure_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workflow", metavar="WORKFLOW", help="such as .github/workflows/train.yml")
    parser.add_argument("--event", default="workflow_dispatch", help="default: %(default)s")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE", help="of a dispatch"
    )
    parser.add_argument("--repository", type=Path, default=ROOT, metavar="FOLDER")
    parser.add_argument(
        "--name", default=PRODUCT, metavar="OWNER/NAME", help="default: %(default)s"
    )
    parser.add_argument("--ref", default="refs/heads/main", help="default: %(default)s")
    parser.add_argument(
        "--other",
        action="append",
        default=[],
        metavar="OWNER/NAME@REF=FOLDER",
        help="a further repository that the workflow may use",
    )
    parser.add_argument("--output", type=Path, default=Path("sandbox-run"), metavar="FOLDER")


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="pytorch_model.pth", metavar="FORMAT")
    parser.add_argument("--dataset", choices=("synthetic", "cifar10"), default="synthetic")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="CIFAR-10's binary batches on disk"
    )
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument(
        "--sigstore",
        choices=KINDS,
        default=KINDS[0],
        help="the sandbox's own, or the real programs, which need Go (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, default=Path("out"), metavar="DIR")


def _configure_services(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")


def run_sigstore(options: argparse.Namespace) -> int:
    """Keeps a Sigstore running and says where its parts are."""
    from sandbox.sigstore import LocalSigstore

    # Before any thread exists: the threads inherit it, and none but `sigwait` gets the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
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
    from sandbox.rehearse import rehearse

    return rehearse(
        options.model,
        options.training_record,
        options.workflow_inputs,
        options.summary,
        os.environ,
        options.source,
    )


def run_workflow(options: argparse.Namespace) -> int:
    """Runs a workflow and prints what came of it."""
    from sandbox.github import Event, Repository, WorkflowError, run
    from sandbox.sigstore import LocalSigstore

    def show(event: Event) -> None:
        if event.result:
            step = f" / {event.step}" if event.step else ""
            print(f"{event.result:8} {event.job}{step}".splitlines()[0], flush=True)

    repository = Repository(options.name, options.repository.resolve(), options.ref)
    others = []
    for other in options.other:
        name, _, rest = other.partition("@")
        ref, _, folder = rest.partition("=")
        others.append(Repository(name, Path(folder).resolve(), ref))
    inputs = dict(item.partition("=")[::2] for item in options.input)
    with LocalSigstore() as sigstore:
        try:
            result = run(
                options.workflow,
                repository,
                sigstore,
                options.output,
                event_name=options.event,
                inputs=inputs,
                others=others,
                on_event=show,
            )
        except WorkflowError as error:
            print(f"refused: {error}", file=sys.stderr)
            return 1
        sigstore.write_trust_config(options.output / "trust-config.json")
    print(f"\n{result.conclusion}: run {result.run_id}, log {result.log}")
    for path, job in sorted(result.jobs.items()):
        print(f"  {job.conclusion:8} {path}")
    for annotation in result.annotations:
        print(f"  {annotation.level}: {annotation.title} {annotation.message} ({annotation.job})")
    print(f"  artifacts: {', '.join(result.artifact_names()) or 'none'}")
    return 0 if result.conclusion == "success" else 1


def run_demo(options: argparse.Namespace) -> int:
    """Runs the demonstration."""
    from sandbox.demo import demo

    return demo(
        options.model,
        options.dataset,
        options.data_dir,
        options.epochs,
        options.output,
        options.sigstore,
    )


def run_services(options: argparse.Namespace) -> int:
    """Builds the real services."""
    from sandbox.services.programs import build_and_list

    return build_and_list(options.names)


COMMANDS = {
    "sigstore": (
        "keep a Sigstore running until interrupted (Ctrl-C)",
        _configure_sigstore,
        run_sigstore,
    ),
    "rehearse": (
        "sign and verify a trained model with keys that are thrown away",
        _configure_rehearse,
        run_rehearse,
    ),
    "run": ("run a workflow of this repository", _configure_run, run_workflow),
    "demo": (
        "train, prove, sign and verify one model: what `make demo` runs",
        _configure_demo,
        run_demo,
    ),
    "services": (
        "build the real services that the sandbox has stand-ins for, once, and list them",
        _configure_services,
        run_services,
    ),
}

if __name__ == "__main__":
    sys.exit(main())
