"""Every command in every document runs, in order, as a newcomer would type it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sandbox.sigstore import LocalSigstore
from tests.support.commands import blocks

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
GOOGLE = "https://accounts.google.com"


def documents() -> list[Path]:
    """All Markdown files of the repository."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    return sorted(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


DOCUMENTS = documents()
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
# What it does takes a minute; the tests of PyTorch do the same with less.
LONG = ("docs/training.md",)


@pytest.fixture(scope="module")
def programs() -> Path:
    """The installed programs, as a user has them; with PyTorch, so that they can train."""
    builder = [sys.executable, "-I", str(ROOT / "actions/setup/environment.py"), "pytorch"]
    return Path(
        subprocess.run(
            builder,
            capture_output=True,
            text=True,
            check=True,
            timeout=1800,
        ).stdout.strip()
    )


@pytest.fixture(scope="module")
def environment(
    programs: Path,
    sigstore: LocalSigstore,
    trust_config: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """PATH with the stand-in before the programs, and what the stand-in needs."""
    front = tmp_path_factory.mktemp("front")
    stand_ins = dict.fromkeys(("model_signing", "slsa_for_models"), "in_sandbox.py")
    for name, source in {**stand_ins, "gh": "gh_run_download.py"}.items():
        program = front / name
        program.write_text(f"#!{sys.executable} -I\n" + (HERE / source).read_text())
        program.chmod(0o755)
    sigstore.oidc.keys.setdefault(GOOGLE, ec.generate_private_key(ec.SECP256R1()))
    return {
        # As in a reader's shell; also what a command compiles of its modules is kept.
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GITHUB_") and name != "PYTHONDONTWRITEBYTECODE"
        },
        "PATH": f"{front}:{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "DOCUMENTS_PROGRAMS": str(programs),
        "DOCUMENTS_TRUST_CONFIG": str(trust_config),
        "DOCUMENTS_IDENTITY_TOKEN": sigstore.oidc.token(
            "you@example.com", issuer=GOOGLE, lifetime=timedelta(hours=2)
        ),
    }


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(ROOT / name, id=name, marks=[pytest.mark.full] * (name in LONG))
        for name in NAMES
    ],
)
def test_the_commands_run(
    document: Path, environment: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    todo = [block for block in blocks(document) if block.not_run is None]
    if any("out/" in block.text for block in todo):
        shutil.copytree(request.getfixturevalue("demonstration")[1], tmp_path / "out")
    for block in todo:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        where = f"{document.relative_to(ROOT)}:{block.line}"
        said = f"{where}\n{block.text}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == block.exit_code, said
        assert "Traceback" not in done.stderr, said


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_what_is_not_run_says_why(document: Path) -> None:
    for block in blocks(document):
        if block.not_run is not None:
            assert len(block.not_run.split()) >= 3, f"{document.name}:{block.line}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_the_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = {}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{document.relative_to(ROOT)} links to {target}"
        if anchor and path.suffix == ".md":
            if path not in headings:
                headings[path] = [
                    re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
                    for line in path.read_text(encoding="utf-8").splitlines()
                    if line.startswith("#")
                ]
            assert anchor in headings[path], f"{document.relative_to(ROOT)} links to {target}"


def test_the_messages_quoted_are_those_of_the_programs() -> None:
    folders = ("model_signing", "slsa_for_models", "actions", ".github")
    sources = [path for name in folders for path in (ROOT / name).rglob("*")]
    said = " ".join(path.read_text() for path in sources if path.suffix in (".py", ".yml"))
    said = " ".join(re.sub(r'"\s*\n\s*f?"', "", said).split())
    section = re.compile(r"## (?:What goes wrong|Common refusals)\n(.*?)(?:\n## |\Z)", re.DOTALL)
    tables = [text for path in DOCUMENTS for text in section.findall(path.read_text())]
    cells = re.findall(r"^\| (.+?) \|", "\n".join(tables), re.MULTILINE)
    ours = " ".join(cell for cell in cells if "from GitHub" not in cell)
    quoted = [a or b for a, b in re.findall(r"\*([^*]+)\*|`([^`]+)`", ours)]
    pieces = [piece.strip() for text in quoted for piece in text.split("...")]
    assert len(quoted) > 20
    assert [piece for piece in pieces if piece not in said] == []
