"""What both command lines share: options that forgive, and the one place where a run ends."""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from model_signing.errors import Error, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, NoReturn, TextIO

    from typing_extensions import Buffer

    Row = tuple[str, str] | tuple[str, str, Callable[[str], object]]

# What the help calls a value -> how it is read; anything else is text.
_PATHS = frozenset(("FILE", "DIR", "PATH", "PEM", "MODEL", "SIGNATURE"))
_NUMBERS = frozenset(("N", "BYTES", "SECONDS"))
_WIDTH = 80  # of help; asking the terminal costs importing three compression libraries


class _Formatter(argparse.HelpFormatter):
    """A text of several lines, such as examples, stays as it is; a long line is folded."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap

        return text if "\n" in text else textwrap.fill(text, width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """argparse, but underscores stand for hyphens and errors are `UsageError`s with suggestions."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - argparse's own
        formatter = partial(_Formatter, width=_WIDTH)
        super().__init__(allow_abbrev=False, formatter_class=formatter, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401
        """As argparse, but nothing may be left over."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        given[:end] = [_hyphens(word) for word in given[:end]]
        known = self._option_string_actions
        # Subcommands check their own, before argparse complains of the required one not given.
        for word in [] if self._subparsers else given[:end]:
            name = word.split("=")[0] if word.startswith("--") else ""
            if name and name not in known:
                self.error("unknown option", found=name, fix=suggestion(name, known))
        namespace, extra = super().parse_known_args(given, namespace)
        if extra:
            self.error("one argument too many", found=extra[0])
        return namespace, extra

    def error(self, message: str, found: str | None = None, fix: str | None = None) -> NoReturn:
        """Raises `UsageError` instead of exiting."""
        raise UsageError(message, found=found, fix=fix or f"see `{self.prog} --help`")

    def _get_value(self, action: argparse.Action, text: str) -> Any:  # noqa: ANN401
        """An empty value is a variable that is unset: it must neither pass nor mean a default."""
        # What follows a command, or is one, is not for us to judge.
        if action.nargs == argparse.PARSER:
            return text
        if text.strip() or action.nargs == argparse.ZERO_OR_MORE:
            return super()._get_value(action, text)
        name = "/".join(action.option_strings) or action.metavar or action.dest
        fix = "give a value, or leave it out; is a variable unset?"
        raise UsageError(f"{name} is empty", fix=fix)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        choices = list(action.choices or [])
        if choices and value not in choices:
            name = "/".join(action.option_strings) or action.metavar or action.dest
            raise UsageError(
                f"unknown value of {name}",
                expected=", ".join(map(str, choices)),
                found=str(value),
                fix=suggestion(str(value), choices),
            )


def add_options(
    parser: argparse._ActionsContainer, table: Mapping[str, Row], names: str | None = None
) -> None:
    """Adds options and arguments as the rows of a table say.

    Args:
        parser: A parser, or a group of one.
        table: Name, with further ones behind slashes -> its value, its help, and a function that
            reads the value where its kind does not say how. The value is "" of a flag; "yes" or
            "no", the default, of one that can be negated; "a|b" of a choice, the first being the
            default ("|a|b": none is); else what the help calls it, such as FILE, DIR, N, ID. That
            may be followed by its default ("N = 2"), by "..." if the option may be repeated, by "+"
            or "*" if the argument may be, by "?" if the option may stand alone (then it is False),
            and by "!" if it is required.
        names: Those that are wanted, in this order, "NAME!" being required, "NAME+" an argument
            that may be repeated; by default all.
    """
    for word in list(table) if names is None else names.split():
        name = word.rstrip("!+")
        value, text, *read = table[name]
        keywords = _keywords(name, value.rstrip("!"), *read)
        if word.endswith("!") or value.endswith("!"):
            keywords["required"] = True
        if word.endswith("+"):
            keywords["nargs"] = "+"
        parser.add_argument(*name.split("/"), help=text, **keywords)


def attribute(name: str) -> str:
    """Where the parsed arguments have what `add_options` calls by that name."""
    return name.partition("/")[0].lstrip("-").replace("-", "_")


def _keywords(name: str, value: str, read: Callable[[str], object] | None = None) -> dict[str, Any]:
    if value == "":
        return {"action": "store_true"}
    if value in ("yes", "no"):
        return {"action": argparse.BooleanOptionalAction, "default": value == "yes"}
    if "|" in value:
        default, *others = value.split("|")
        return {"choices": [default, *others] if default else others, "default": default or None}
    kind, equals, default = value.partition(" = ")
    keywords: dict[str, Any] = {"default": default} if equals else {}
    if kind.endswith("..."):
        keywords.update(action="append", default=[])
    elif kind[-1] in "+*?":
        keywords["nargs"] = kind[-1]
        if kind[-1] == "?":
            keywords["const"] = False
    kind = kind.rstrip(".+*?")
    is_path, is_number = kind in _PATHS, kind in _NUMBERS
    keywords["type"] = read or (path if is_path else _number if is_number else str)
    # The help calls an argument by its name.
    keywords["metavar"] = name.upper() if name[0] != "-" and is_path else kind
    return keywords


def path(text: str) -> Path:
    """A path; importing pathlib costs a tenth of the time that --help may take."""
    from pathlib import Path

    return Path(text)


def place(text: str) -> Path | str:
    """A path; or an address of a place where models lie, as it is."""
    if "://" in text:
        from model_signing.sources import is_address

        if is_address(text):
            return text
        if not path(text).exists():
            from model_signing.sources import PLACES

            known = ", ".join(f"{scheme}://" for scheme in PLACES)
            raise UsageError("no such kind of address", expected=f"a path, or {known}", found=text)
    return path(text)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        message = f"not a whole number, such as 1000000: {text}"
        raise argparse.ArgumentTypeError(message) from None


class Version(argparse.Action):
    """Prints the program's version, which is slow to find out, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """As argparse calls it."""
        print(f"{parser.prog} {version()}")
        parser.exit()


def version() -> str:
    """The version of both packages, as installed; or that they are not."""
    from importlib import metadata

    try:
        return metadata.version("model-transparency")
    except metadata.PackageNotFoundError:
        return "(from a source tree)"


def folded(text: str, stream: TextIO, indent: int) -> str:
    """Lines that fit a terminal's width, if that is one; what is continued is indented.

    Nothing is torn apart that somebody may copy: digests, paths, addresses.
    """
    try:
        width = os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError):
        width = 0
    if not indent < width < max(map(len, text.split("\n"))):
        return text
    import textwrap

    fold = textwrap.TextWrapper(
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    ).fill
    return "\n".join(map(fold, text.split("\n")))


def _hyphens(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """A fix that names the known word nearest to a mistyped one, if any is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"did you mean `{near[0]}`?" if near else None


class _Terminated(KeyboardInterrupt):
    """A service manager or a runner ends the process."""


def _terminate(*_: object) -> None:
    raise _Terminated


def _on_sigterm(handler: Any) -> Any:  # noqa: ANN401 - signal's own
    """Takes SIGTERM where nobody else does, or gives it back; returns what to give back."""
    import signal

    if handler is None or signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _terminate):
        return None
    try:
        return signal.signal(signal.SIGTERM, handler)
    except ValueError:  # not the main thread, which alone may
        return None


def run(
    build_parser: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None, prog: str
) -> int:
    """Parses, runs the command's `run(args) -> int`, and turns every failure into an exit code.

    Each command sets `run` with `set_defaults`; `prog` is the program's name, for messages.

    Returns:
        0 done, 1 refused or failed, 2 usage, 130 interrupted, 143 terminated. A message is on
        stderr, or, with `--format json`, on stdout as JSON: `error`, `message`, `where`,
        `expected`, `found`, `fix`.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' remarks about hostile input, for developers
    output = _standard_streams()
    code = _run(build_parser, argv, prog)
    if output is not None and output.torn and code in _STOPPED:
        output.failure = BrokenPipeError()  # what is kept would be printed twice
    sys.stdout.flush()
    if output is None or output.failure is None:
        return code
    if not isinstance(output.failure, BrokenPipeError):  # whose reader has seen enough
        print(f"{prog}: cannot print: {output.failure.strerror}", file=sys.stderr)
    # What was decided about a model stays so, whoever hears of it; else the output is all there is.
    return code if code or not _JUDGES.isdisjoint(argv) else 1


_JUDGES = {"sign", "verify"}  # commands
_STOPPED = {130, 143}  # exit codes


def own_process() -> None:
    """What a process that runs one program of ours begins with.

    It is started again where the locale is not UTF-8: names are (OMS 6.1.2). It ends without
    looking for garbage once more, which frees nothing.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606
    atexit.register(gc.freeze)


class _Output(io.FileIO):
    """A stream that nobody may be reading: what cannot be written does not end the program."""

    failure: OSError | None = None
    torn = False
    """Whether Ctrl-C came while something was written: the buffer above keeps it nevertheless."""

    def write(self, data: Buffer) -> int:
        """As a file; after a failure into the void."""
        if self.failure is None:
            self.torn = True
            try:
                written = super().write(data)
                self.torn = False
                return written
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def _standard_streams() -> _Output | None:
    """Whatever the standard streams are, they can be used; returns standard output, if it is ours.

    Nothing that is opened later gets the number of a closed one: a library's warning could end up
    in a signature.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, "r+" if number else "r", closefd=False))  # noqa: SIM115
    outputs = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        raw = None
        if isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            raw = _Output(stream.fileno(), "w", closefd=False)
            text = io.TextIOWrapper(
                io.BufferedWriter(raw),
                # No name looks different in another locale, unless somebody wants it to,
                stream.encoding if "PYTHONIOENCODING" in os.environ else "utf-8",
                "backslashreplace",  # and none stops a result.
                # Nothing waits for the end where that is wanted (PYTHONUNBUFFERED).
                line_buffering=stream.line_buffering or stream.write_through or name == "stderr",
                write_through=stream.write_through,
            )
            setattr(sys, name, text)
        outputs.append(raw)
    return outputs[0]


def _run(build_parser: Callable[[], argparse.ArgumentParser], argv: list[str], prog: str) -> int:
    before = _on_sigterm(_terminate)  # what is open is closed and removed, as after Ctrl-C
    try:
        args = build_parser().parse_args(argv)
        code: int = args.run(args)
        return code
    except SystemExit as error:  # --help and --version
        return error.code if isinstance(error.code, int) else 0
    except _Terminated:
        print("terminated", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        found = refusal(error)
    finally:
        _on_sigterm(before)
    if "--format json" in " ".join(argv).replace("=", " "):  # also where it cannot be parsed
        import json

        print(json.dumps(as_document(found)))
    else:
        print(folded(f"{prog}: error: {found}", sys.stderr, 12), file=sys.stderr)
    return found.exit_code


def refusal(error: Exception) -> Error:
    """What to tell of any exception: a refusal is its own words.

    Raises:
        Exception: What is no refusal, if MODEL_TRANSPARENCY_DEBUG is set.
    """
    if isinstance(error, Error):
        return error
    if isinstance(error, MemoryError):
        return Error("not enough memory")
    if isinstance(error, RecursionError):
        return Error("the input is nested too deeply")
    if isinstance(error, OSError):
        return Error(error.strerror or type(error).__name__, where=error.filename)
    if os.environ.get("MODEL_TRANSPARENCY_DEBUG"):
        raise error
    return Error(
        "internal error",
        found=f"{type(error).__name__}: {error}",
        fix="set MODEL_TRANSPARENCY_DEBUG=1 to see where, and report it",
    )


def as_document(refusal: Error) -> dict[str, Any]:
    """A refusal as `--format json` has it."""
    files = {kind: list(names) for kind, names in refusal.files.items() if names}
    return {**refusal.as_dict(), **({"files": files} if files else {})}
