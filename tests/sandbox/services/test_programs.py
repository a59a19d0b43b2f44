"""`make services`: exact versions, checked digests, once; and no Go, an old one, or a careless one.

A script stands for Go, so that what the builder asks of it can be seen; `make test-services` builds
with the real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = json.loads((ROOT / "requirements/services.json").read_text())["programs"]
Build = Callable[..., "subprocess.CompletedProcess[str]"]

GO = r"""#!{python}
import json, os, pathlib, sys

folder = pathlib.Path({folder!r})
arguments = sys.argv[1:]
with (folder / "asked.jsonl").open("a") as asked:
    go = {{name: value for name, value in os.environ.items() if name.startswith(("GO", "XDG"))}}
    asked.write(json.dumps([arguments, go, os.getcwd()]) + "\n")
says = json.loads((folder / "says.json").read_text())
if arguments[0] == "env":
    print(json.dumps(says))
elif arguments[0] == "mod":
    module = folder / "module"
    module.mkdir(exist_ok=True)
    (module / "go.mod").write_text("module x")
    for program in {programs!r}.values():
        for file, (old, _) in program.get("edits", {{}}).items():
            (module / file).parent.mkdir(parents=True, exist_ok=True)
            (module / file).write_text("as it was" if says.get("changed") else old)
    sums = {{f"{{p['module']}}@{{p['version']}}": p["sum"] for p in {programs!r}.values()}}
    print(json.dumps({{"Sum": says.get("Sum") or sums[arguments[-1]], "Dir": str(module)}}))
else:
    if says.get("error"):
        sys.exit(says["error"])
    built = pathlib.Path(os.environ["GOBIN"], "some-name")
    if arguments[0] == "build":
        with (folder / "edited").open("a") as edited:
            edited.writelines(path.read_text() for path in pathlib.Path().rglob("*.go"))
        built = pathlib.Path(arguments[arguments.index("-o") + 1])
    built.parent.mkdir(exist_ok=True)
    built.write_text("#!/bin/sh\nexit %d\n" % says.get("exit", 0))
    built.chmod(0o755)
"""


@pytest.fixture
def says(tmp_path: Path) -> Callable[..., None]:
    """Puts a Go there, and into its mouth what it says."""

    def put(**said: object) -> None:
        go = tmp_path / "bin/go"
        go.parent.mkdir(exist_ok=True)
        go.write_text(GO.format(python=sys.executable, folder=str(tmp_path), programs=PROGRAMS))
        go.chmod(0o755)
        usual = {"GOVERSION": "go1.26.8", "GOSUMDB": "database.example.test", "GOPROXY": "direct"}
        (tmp_path / "says.json").write_text(json.dumps({**usual, **said}))

    return put


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """`python -m sandbox services NAME...` with a cache of its own."""

    def run(*names: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sandbox", "services", *names],
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if name[:2] != "GO"},
                "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
                "MODEL_TRANSPARENCY_CACHE": str(tmp_path / "cache"),
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def asked(folder: Path) -> list[tuple[list[str], dict[str, str], str]]:
    lines = (folder / "asked.jsonl").read_text().splitlines()
    return [tuple(json.loads(line)) for line in lines]


def test_every_program_is_built_once_and_listed(
    says: Callable[..., None], build: Build, tmp_path: Path
) -> None:
    says()
    first = build()
    assert first.returncode == 0, first.stderr
    rows = [line.split("\t") for line in first.stdout.splitlines()]
    assert [row[:2] for row in rows] == [[name, p["version"]] for name, p in PROGRAMS.items()]
    for _, _, path in rows:
        assert os.access(path, os.X_OK)
    before = asked(tmp_path)
    (tmp_path / "bin/go").unlink()  # nothing is to be built: nobody needs it
    again = build()
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")
    assert asked(tmp_path) == before


def test_what_go_is_told(says: Callable[..., None], build: Build, tmp_path: Path) -> None:
    says()
    loose = {"GOFLAGS": "-mod=mod", "GONOSUMDB": "*", "GOPRIVATE": "*", "GONOSUMCHECK": "1"}
    assert build("rekor", "kyverno", **loose, GOTOOLCHAIN="auto").returncode == 0
    cache = tmp_path / "cache"
    for arguments, variables, where in asked(tmp_path):
        if arguments[0] == "env":
            continue
        assert not {"GONOSUMDB", "GOPRIVATE", "GONOSUMCHECK"} & variables.keys()
        assert (variables["GOTOOLCHAIN"], variables["GOENV"]) == ("local", "off")
        assert variables["GOSUMDB"] == "database.example.test"
        for name in ("GOPATH", "GOCACHE", "GOTMPDIR", "GOBIN", "XDG_CONFIG_HOME"):
            assert Path(variables[name]).is_relative_to(cache)
        assert Path(where).is_relative_to(cache)
    commands = [arguments for arguments, _, _ in asked(tmp_path)]
    rekor, kyverno = PROGRAMS["rekor"], PROGRAMS["kyverno"]
    assert [
        *("install", "-trimpath"),
        f"{rekor['module']}/cmd/rekor-server/posix@{rekor['version']}",
    ] in commands
    (in_folder,) = [command for command in commands if command[0] == "build"]
    assert "-mod=readonly" in in_folder
    assert in_folder[-1] == kyverno["package"]
    assert not (cache / "go").exists()
    left = {path.name for path in (cache / "environments").glob("*/*")}
    assert left == {"bin"}


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ({"GOVERSION": "go1.25.9"}, 2, "is too old, go1.25.9: install Go 1.26"),
        ({"GOSUMDB": "off"}, 2, "GOSUMDB=off"),
        ({"Sum": "h1:other"}, 1, "is not what our lock has (expected h1:"),
        ({"error": "x: checksum mismatch"}, 1, "is not what Go's checksum database has"),
        ({"error": "dial tcp: no such host"}, 1, "is there a network?"),
        ({"error": "write: no space left on device"}, 1, "no space left in"),
        ({"error": "undefined: y"}, 1, "rekor was not built: undefined: y"),
        ({"exit": 3}, 1, "rekor was built and does not run"),
    ],
)
def test_refusals(
    said: dict[str, object],
    code: int,
    words: str,
    says: Callable[..., None],
    build: Build,
    tmp_path: Path,
) -> None:
    says(**said)
    done = build("rekor")
    assert (done.returncode, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("services: ")
    assert words in last
    assert not list((tmp_path / "cache").glob("environments/*/bin/*"))


def test_what_is_edited(says: Callable[..., None], build: Build, tmp_path: Path) -> None:
    """In a copy, where it is as expected; else nothing is built."""
    name, program = next(item for item in PROGRAMS.items() if "edits" in item[1])
    ((file, (old, new)),) = program["edits"].items()
    says()
    assert build(name).returncode == 0
    assert (tmp_path / "edited").read_text() == new
    assert (tmp_path / "module" / file).read_text() == old
    says(changed=True)
    done = build(name, MODEL_TRANSPARENCY_CACHE=str(tmp_path / "other"))
    assert done.returncode == 1
    assert f"{file} has not one {old}" in done.stderr


def test_no_go(build: Build) -> None:
    done = build("rekor")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "install Go 1.26" in done.stderr


def test_a_name_that_is_unknown(build: Build) -> None:
    done = build("rekord")
    assert done.returncode == 2
    assert "there is no 'rekord', only fulcio, " in done.stderr


def test_a_new_version_is_another_program(
    says: Callable[..., None], build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sandbox.services import programs

    monkeypatch.setenv("MODEL_TRANSPARENCY_CACHE", str(tmp_path / "cache"))
    says()
    assert build("rekor").returncode == 0
    assert programs.missing(["rekor"]) == []
    document = json.loads(programs.LOCK.read_text())
    document["programs"]["rekor"]["version"] = "v9.9.9"
    (tmp_path / "lock.json").write_text(json.dumps(document))
    monkeypatch.setattr(programs, "LOCK", tmp_path / "lock.json")
    programs.locked_programs.cache_clear()
    try:
        assert programs.missing(["rekor"]) == ["rekor"]
    finally:
        programs.locked_programs.cache_clear()
