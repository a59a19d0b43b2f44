"""`slsa_for_models exec`: a program that loads a verified model, or does not start."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from model_signing.errors import UsageError
from model_signing.safe_files import failed
from model_signing.terminal import command_line
from slsa_for_models.commands import expectation_options, verify
from slsa_for_models.commands.shared_options import PROGRESS

_PLACE = "{}"
_OPTIONS: dict[str, command_line.Row] = {
    "--as": (
        "DIR",
        "a new folder for the copy, which stays; by default a private one, which goes when the "
        "command ends",
    ),
}

# Removes the copy when the command has ended, whoever ended it: nobody is left who could ask.
_CLEANER = """
import os, select, sys
sys.path[:] = [entry for entry in sys.argv[3:]]
from pathlib import Path
from model_signing.safe_files import remove_folder
descriptor = int(sys.argv[2])
if os.fork():
    os._exit(0)
poll = select.poll()
poll.register(descriptor, select.POLLIN)
poll.poll()
remove_folder(Path(sys.argv[1]))
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Verify a model as `verify` does, copy it while it is hashed, and become the command, with "
        "the copy's path in place of each {}. If the model is refused, the command does not start. "
        "A model that holds code is refused, too, unless --code or the policy allows it."
    )
    parser.usage = f"{parser.prog} [options] MODEL -- COMMAND ..."
    parser.epilog = (
        "example:\n"
        "  slsa_for_models exec --policy policy.toml my-model -- vllm serve {} --port 8000"
    )
    verify.add_options(parser)
    command_line.add_options(parser.add_argument_group("the copy"), {**_OPTIONS, **PROGRESS})
    parser.add_argument(
        "command",
        nargs=argparse.PARSER,
        metavar="COMMAND",
        help="after `--`: a program and its arguments, of which one holds {}",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command; it returns only where the other one does not start."""
    from model_signing.sources import open_source
    from model_signing.terminal import progress
    from slsa_for_models.report import plain
    from slsa_for_models.verdict import private_copy

    command = args.command[args.command[0] == "--" :]
    program = _checked(command)
    expected = private_copy.for_use(expectation_options.expectations(args))
    if found := verify.look_beside(args):
        print(f"slsa_for_models: {found}", file=sys.stderr)
    source = open_source(args.model)
    keep = getattr(args, "as")
    with private_copy.place(source, keep, inherited=True) as copy:
        args.copy_to = copy
        with progress.bar(shown=not args.no_progress) as shown:
            verdict = verify.verified(args, expected, progress=shown)
        sys.stderr.write(command_line.folded(plain.text(verdict), sys.stderr, 13))
        if not verdict.verified:
            verify.say_refused(verdict)
            return verdict.exit_code
        path = private_copy.copied(source, copy, keep)
        if keep is None:
            _remove_later(copy.folder.parent)
        return _become(program, [word.replace(_PLACE, os.fspath(path)) for word in command])


def _checked(command: Sequence[str]) -> str:
    """The program, before the work and not after it.

    Raises:
        UsageError: There is none of that name, or the model's path would not reach it.
    """
    if not hasattr(os, "pidfd_open"):
        raise UsageError("exec needs Linux; use --copy-to of `verify`, or slsa_for_models.verified")
    if not any(_PLACE in word for word in command[1:]):
        raise UsageError(
            "the command does not say where the model's path goes",
            expected=f"an argument with {_PLACE}",
            found=" ".join(command),
        )
    program = shutil.which(command[0])
    if program is None:
        raise UsageError("there is no such command", found=command[0])
    return program


def _remove_later(private: Path) -> None:
    """Starts a process that waits for the end of this one, whatever that has become by then."""
    descriptor = os.pidfd_open(os.getpid())
    path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109 - as Python takes it
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", _CLEANER, str(private), str(descriptor), *path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        pass_fds=(descriptor,),
        check=False,
    )


def _become(program: str, command: list[str]) -> NoReturn:
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores them, and programs inherit that
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        os.execv(program, command)  # noqa: S606 - there is no shell
    except OSError as error:
        failed(program, error, "the command cannot be started")
