"""Services, containers and other people's locales: streams closed or full, names as on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.material import ROOT, new_key, private_pem, public_pem

pytestmark = pytest.mark.skipif(os.name != "posix", reason="not tested: POSIX streams and locales")
KEY = new_key()
LATIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}


@pytest.fixture
def arguments(model: Path, signature: Path, tmp_path: Path) -> dict[str, list[str]]:
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(private_pem(KEY))
    public.write_bytes(public_pem(KEY))
    common = ["key", str(model), "--signature", str(signature)]
    return {
        "sign": ["sign", *common, "--private-key", str(private)],
        "verify": ["verify", *common, "--public-key", str(public)],
        "digest": ["digest", str(model)],
        "inspect": ["inspect", str(signature)],
    }


def shell(
    script: str, arguments: list[str], **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs `"$@"` as a shell redirects it."""
    command = [sys.executable, "-m", "model_signing", *arguments]
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script, "bash", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        check=False,
        timeout=300,
    )


STREAMS = {
    "stdin closed": '"$@" <&-',
    "stdout closed": '"$@" >&-',
    "stderr closed": '"$@" 2>&-',
    "all closed": '"$@" <&- >&- 2>&-',
    "stdout full": '"$@" >/dev/full',
    "stderr full": '"$@" 2>/dev/full',
    "a reader that leaves": '"$@" | true',
    "a reader that leaves, of both": '"$@" 2>&1 | true',
}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    ("output", "unbuffered"),
    [
        ("text", ""),
        ("json", "1"),
        pytest.param("text", "1", marks=pytest.mark.full),
        pytest.param("json", "", marks=pytest.mark.full),
    ],
)
def test_the_exit_code_says_what_happened_to_the_model(
    arguments: dict[str, list[str]], model: Path, stream: str, output: str, unbuffered: str
) -> None:
    script, json = STREAMS[stream], ["--format", output]
    for command, code in (("sign", 0), ("verify", 0)):
        done = shell(script, [*arguments[command], *json], PYTHONUNBUFFERED=unbuffered)
        assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr
        assert b"error" not in done.stderr, done.stderr
    (model / "a").write_bytes(b"changed")
    done = shell(script, [*arguments["verify"], *json], PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, b"Traceback" in done.stderr) == (1, False), done.stderr
    assert b"internal" not in done.stderr


@pytest.mark.parametrize("command", ["digest", "inspect"])
def test_a_result_that_cannot_be_printed_is_none(
    arguments: dict[str, list[str]], command: str
) -> None:
    assert shell('"$@"', arguments["sign"]).returncode == 0
    done = shell('"$@" > /dev/full', arguments[command])
    assert (done.returncode, done.stderr) == (
        1,
        b"model_signing: cannot print: No space left on device\n",
    )


PRINTS = """
import sys
from model_signing.terminal import command_line

def prints(_):
    print("first")
    print("second", file=sys.stderr)
    return 0

parser = command_line.Parser()
parser.set_defaults(run=prints)
command_line.run(lambda: parser, [], "prints")
"""


def test_a_line_is_there_when_it_is_printed() -> None:
    """Where that is wanted, as in a container's log."""
    done = subprocess.run(
        [sys.executable, "-c", PRINTS],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        timeout=300,
    )
    assert done.stdout == b"first\nsecond\n"


def test_nothing_that_is_opened_gets_the_number_of_a_closed_stream(
    arguments: dict[str, list[str]], tmp_path: Path
) -> None:
    done = shell('"$@" --signature /dev/stdout >&-', arguments["sign"][:3] + arguments["sign"][5:])
    assert done.returncode == 1
    assert b"it is closed" in done.stderr


@pytest.mark.parametrize("where", ["the command line", "Python"])
def test_another_locale_changes_no_name(
    arguments: dict[str, list[str]], model: Path, signature: Path, where: str
) -> None:
    (model / "模型 é.bin").write_bytes(b"x")
    moved = model.rename(model.with_name("modèle"))
    given = {
        name: [str(moved) if word == str(model) else word for word in words]
        for name, words in arguments.items()
    }
    key, public = given["sign"][-1], given["verify"][-1]
    code = f"""
import model_signing as m
signer, verifier = m.key_signer({key!r}), m.key_verifier({public!r})
import os
model = os.fsdecode({str(moved).encode()!r})
m.{{}}"""
    if where == "Python":
        calls = {
            "sign": f"sign(model, {str(signature)!r}, signer)",
            "verify": f"verify(model, {str(signature)!r}, verifier)",
        }
    for locales in (({}, LATIN), (LATIN, {})):
        payloads = []
        for locale, command in zip(locales, ("sign", "verify"), strict=True):
            if where == "Python":
                call = [sys.executable, "-c", code.format(calls[command])]
                environment = {**os.environ, "PYTHONPATH": str(ROOT), **locale}
                done = subprocess.run(
                    call, env=environment, capture_output=True, check=False, timeout=300
                )
            else:
                done = shell('"$@"', given[command], **locale)
                assert "modèle".encode() in done.stdout
            assert done.returncode == 0, done.stderr
            payloads.append(shell('"$@"', given["inspect"]).stdout)
        assert payloads[0] == payloads[1]
        assert "subject:" in payloads[0].decode()
        assert "modèle" in payloads[0].decode()


def test_a_message_has_the_name_on_disk(arguments: dict[str, list[str]], model: Path) -> None:
    assert shell('"$@"', arguments["sign"]).returncode == 0
    (model / "sub/deep/é.bin").write_bytes(b"changed")
    done = shell('"$@"', arguments["verify"], **LATIN)
    assert done.returncode == 1
    assert "sub/deep/é.bin" in done.stderr.decode()


def test_an_encrypted_key_without_stdin_asks_for_the_password(
    arguments: dict[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem(KEY, b"secret"))
    done = shell('"$@" <&-', arguments["sign"])
    assert (done.returncode, b"MODEL_SIGNING_PASSWORD" in done.stderr) == (1, True)
