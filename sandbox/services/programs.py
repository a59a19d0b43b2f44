"""Builds the real services, once, from the Go module proxy into the cache folder.

`requirements/services.json` has the exact version of each, and the digest of its module as Go's
checksum database has it; what a module needs is checked by that database, or by the module's own
`go.sum` where it has to be built in its folder. All that Go writes stays in the cache folder.
Standard library only. For demonstrations and tests only.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from sandbox.checkout import ROOT, SetupError

sys.path.insert(0, str(ROOT / "actions/setup"))
import environment as builder

LOCK = ROOT / "requirements/services.json"
# In the key: programs that an earlier way of building made are not met again.
WAY_OF_BUILDING = "1"
BUILD_SECONDS = 3600
# What of Go's settings is kept: where modules come from. None may switch a check off.
KEPT = ("GOPROXY", "GOSUMDB", "GOAUTH", "GOMAXPROCS", "GOROOT", "GODEBUG")


class GoError(SetupError):
    """There is no Go, or none that may build these programs; the message says what to do."""


@dataclass(frozen=True)
class Program:
    """A program as the lock has it.

    Attributes:
        module: Its Go module.
        version: The module's version.
        sum: The module's digest, as `go.sum` files write it.
        package: The folder in it that is the program.
        in_its_folder: The module replaces others, so that `go install` refuses it: it is built in
            a copy of its folder, where its own `go.sum` has the digests.
        edits: Text to replace in a file of that copy, once, with what stands for it. Such as the
            port of metrics, without which two could not run on one machine.
    """

    module: str
    version: str
    sum: str
    package: str
    in_its_folder: bool = False
    edits: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@cache
def locked_programs() -> Mapping[str, Program]:
    """What the lock names."""
    document = json.loads(LOCK.read_text(encoding="utf-8"))
    return {name: Program(**fields) for name, fields in document["programs"].items()}


def programs(names: Iterable[str] = ()) -> dict[str, Path]:
    """The programs of these names, or all; those that are missing are built first.

    Raises:
        GoError: Something has to be built, and there is no Go that can.
        SetupError: A download or a build failed, or a module has another digest.
    """
    wanted = list(names) or list(locked_programs())
    try:
        if missing(wanted):
            go = Go.of_this_machine()
            work = builder.cache_folder() / "go"
            work.mkdir(parents=True, exist_ok=True)
            with builder.locked(work.with_suffix(".lock")):  # Go uses every core itself
                for name in wanted:
                    _build(go, name)
                shutil.rmtree(work, ignore_errors=True)  # gigabytes that no program needs
        return {name: _build(None, name) for name in wanted}
    except builder.SetupError as error:
        raise SetupError(str(error)) from None
    except OSError as error:
        raise SetupError(builder.words_of_system(error)) from None


def missing(names: Iterable[str] = ()) -> list[str]:
    """Those of these programs, or of all, that would have to be built."""
    return [name for name in list(names) or locked_programs() if not _file(name).exists()]


def _key(name: str) -> str:
    """Digest of what goes into a program."""
    known = {key: value for key, value in asdict(locked_programs()[name]).items() if value != {}}
    fields = json.dumps([WAY_OF_BUILDING, name, known])
    digest = hashlib.sha256(f"{fields} {sys.platform} {platform.machine()}".encode())
    return digest.hexdigest()[:20]


def _file(name: str) -> Path:
    return builder.cache_folder() / f"environments/{name}-{_key(name)}" / _mark(name)


def _mark(name: str) -> str:
    return f"bin/{name}"


def _build(go: Go | None, name: str) -> Path:
    """The program; built by `go`, which may only be missing where there is nothing to build."""
    program = locked_programs()[name]

    def build(folder: Path) -> None:
        assert go is not None
        go.build(name, program, folder)

    doing = f"building {name} {program.version}"
    return builder.once(name, _key(name), _mark(name), doing, build) / _mark(name)


@dataclass(frozen=True)
class Go:
    """The Go of this machine, and its settings as far as they are kept."""

    program: str
    settings: Mapping[str, str]

    @classmethod
    def of_this_machine(cls) -> Go:
        """Looks for it.

        Raises:
            GoError: There is none, it is too old, or it is told to check nothing.
        """
        needed = json.loads(LOCK.read_text(encoding="utf-8"))["go"]
        advice = f"install Go {needed} or later (https://go.dev/dl), and have it on PATH"
        program = shutil.which("go")
        if program is None:
            raise GoError(f"the real services are built with Go, and there is none: {advice}")
        home = os.environ.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
        # The user's settings, by their own file; what Go writes down is not written there.
        environment = {
            **_go_environment({}),
            **{name: value for name, value in os.environ.items() if name in KEPT},
            "GOENV": os.environ.get("GOENV") or f"{home}/go/env",
        }
        asked = [program, "env", "-json", "GOVERSION", *KEPT]
        done = subprocess.run(
            asked, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            said = builder.last_line(done.stderr)
            raise GoError(f"the Go at {program} does not work ({said}): {advice}")
        found = json.loads(done.stdout)
        if _numbers(found["GOVERSION"]) < _numbers(needed):
            raise GoError(f"the Go at {program} is too old, {found['GOVERSION']}: {advice}")
        if found["GOSUMDB"] == "off":
            raise GoError(
                "GOSUMDB=off: Go would build what nobody has checked; "
                "run `go env -u GOSUMDB`, and unset the variable"
            )
        return cls(program, {name: found[name] for name in KEPT if found.get(name)})

    def build(self, name: str, program: Program, folder: Path) -> None:
        """Builds a program into `folder`, and tries it."""
        (folder / "tmp").mkdir()
        environment = {
            **_go_environment(self.settings),
            "GOTMPDIR": str(folder / "tmp"),
            "GOBIN": str(folder / "bin"),
        }
        at = f"{program.module}@{program.version}"
        answer = self._run(name, ["mod", "download", "-json", at], folder, environment)
        module = json.loads(answer)
        if module["Sum"] != program.sum:
            raise builder.SetupError(
                f"{at} is not what our lock has (expected {program.sum}, found {module['Sum']}): "
                "do not use that module proxy before you know why"
            )
        if program.in_its_folder:
            source = folder / "source"
            shutil.copytree(module["Dir"], source, copy_function=shutil.copyfile)
            for file, (old, new) in program.edits.items():
                text = (source / file).read_text(encoding="utf-8")
                if text.count(old) != 1:
                    raise builder.SetupError(f"{at}: {file} has not one {old}: see {LOCK}")
                (source / file).write_text(text.replace(old, new), encoding="utf-8")
            output = ["-o", str(folder / _mark(name)), program.package]
            self._run(name, ["build", "-mod=readonly", "-trimpath", *output], source, environment)
            shutil.rmtree(source)
        else:
            package = f"{program.module}/{program.package.removeprefix('./')}".removesuffix("/.")
            install = ["install", "-trimpath", f"{package}@{program.version}"]
            self._run(name, install, folder, environment)
            (built,) = (folder / "bin").iterdir()
            built.rename(folder / _mark(name))
        shutil.rmtree(folder / "tmp")
        _try(name, folder)

    def _run(self, name: str, arguments: list[str], cwd: Path, variables: dict[str, str]) -> str:
        command = [self.program, *arguments]
        done = subprocess.run(
            command,
            cwd=cwd,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
        )
        if done.returncode:
            raise builder.SetupError(
                f"{_said(name, done)} ({builder.keep_log(name, command, done)})"
            )
        return done.stdout


def _go_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The variables of a Go that writes into the cache folder only, and obeys these settings."""
    work = builder.cache_folder() / "go"
    others = {name: value for name, value in os.environ.items() if not name.startswith("GO")}
    return {
        **others,
        **settings,
        "GOENV": "off",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "GOPATH": str(work / "path"),
        "GOCACHE": str(work / "build"),
        "XDG_CONFIG_HOME": str(work / "config"),  # counters of Go's own
    }


def _try(name: str, folder: Path) -> None:
    """The program runs, or is not published."""
    command = [str(folder / _mark(name)), "--help"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise builder.SetupError(
            f"{name} was built and does not run: {builder.last_line(done.stderr)} "
            f"({builder.keep_log(name, command, done)})"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """`go1.26.8` and `1.26.8` as numbers; a development version is the newest."""
    found = re.match(r"(?:go)?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, found[1].split("."))) if found else (sys.maxsize,)


def _said(name: str, done: subprocess.CompletedProcess[str]) -> str:
    """The cause of a failure, from Go's own words, and what to do."""
    text = re.sub(r"\s+", " ", done.stderr + done.stdout)
    for pattern, says in CAUSES:
        if found := re.search(pattern, text):
            return says.format(name=name, cache=builder.cache_folder(), **found.groupdict())
    return f"{name} was not built: {builder.last_line(done.stderr or done.stdout)}"


CAUSES = (
    (
        r"No space left on device|no space left on device|[Dd]isk quota exceeded",
        "no space left in {cache} for {name}: make room there, or set MODEL_TRANSPARENCY_CACHE to "
        "a folder on another disk",
    ),
    (
        r"(?P<what>\S+): (?:SECURITY ERROR|checksum mismatch|verifying module: checksum mismatch)",
        "{what} is not what Go's checksum database has: do not use that module proxy before you "
        "know why",
    ),
    (
        r"(?P<why>dial tcp[^\"]*|no such host|i/o timeout|connection refused|certificate[^\"]*)",
        "{name} cannot be fetched ({why}): is there a network? Behind a proxy set HTTPS_PROXY, for "
        "another module proxy GOPROXY",
    ),
)


def build_and_list(names: list[str]) -> int:
    """Prints name and path of programs, built first; 0 there, 1 failed, 2 no Go, no such name."""
    unknown = [name for name in names if name not in locked_programs()]
    if unknown:
        known = ", ".join(locked_programs())
        print(f"services: there is no {unknown[0]!r}, only {known}", file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        found = programs(names)
    except GoError as error:
        print(f"services: {error}", file=sys.stderr)
        return 2
    except SetupError as error:
        print(f"services: {error}", file=sys.stderr)
        return 1
    if (seconds := time.monotonic() - started) > 1:
        print(f"services: ready after {seconds:.0f} s", file=sys.stderr)
    for name, path in found.items():
        print(f"{name}\t{locked_programs()[name].version}\t{path}")
    return 0
