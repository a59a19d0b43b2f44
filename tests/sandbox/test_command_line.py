"""`python -m sandbox sigstore`: stays, can be used from a shell as it says, and ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
import requests

from tests.support.limits import limited

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def kept(tmp_path):
    """The running command, and what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "sigstore", f"--trust-config={tmp_path / 'trust.json'}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    printed = ""
    with limited(process, 300):
        for line in process.stdout:
            printed += line
            if line.startswith("Ctrl-C"):
                break
        yield process, printed


def test_it_says_how_to_use_it(kept, tmp_path):
    _, printed = kept
    config = json.loads((tmp_path / "trust.json").read_text())
    url = re.search(r"URL +(\S+)", printed).group(1)
    assert config["signingConfig"]["caUrls"][0]["url"] == url
    curl = re.search(r"a person +(curl .*)", printed).group(1)
    token = subprocess.run(
        ["bash", "-c", curl],
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["email"] == "developer@example.test"
    job = dict(re.findall(r"export (\w+)='?([^'\s]+)'?", printed))
    reply = requests.get(
        f"{job['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience=sigstore",
        headers={"Authorization": f"bearer {job['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"},
        timeout=10,
    )
    assert jwt.decode(reply.json()["value"], options={"verify_signature": False})["sub"].startswith(
        "repo:"
    )


def test_a_model_is_signed_and_verified_with_it(kept, tmp_path):
    from model_signing import cli

    url = re.search(r"URL +(\S+)", kept[1]).group(1)
    token = requests.get(f"{url}/identity-token?email=me@example.test", timeout=10).text
    model, signature = tmp_path / "model.bin", tmp_path / "model.sig"
    model.write_bytes(b"weights")
    trust = ["--trust-config", str(tmp_path / "trust.json"), "--signature", str(signature)]
    assert cli.main(["sign", "sigstore", str(model), *trust, "--identity-token", token]) == 0
    identity = ["--identity", "me@example.test", "--identity-provider", url]
    assert cli.main(["verify", "sigstore", str(model), *trust, *identity]) == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_told(kept, how):
    process, _ = kept
    process.send_signal(how)
    assert process.wait(60) == 0


def test_it_says_that_it_proves_nothing(kept):
    assert "prove nothing" in kept[1]
