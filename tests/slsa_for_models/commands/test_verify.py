"""The command line of `verify`: its options and their mistakes."""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox.hub import Hub
from slsa_for_models import cli
from slsa_for_models.cli import main
from tests.support.crafted import (
    CHAINS,
    COMMIT,
    DATASET,
    REF,
    SOURCE,
    TRAIN,
    Workshop,
    new_key,
    private_pem,
    refusals,
)
from tests.support.material import ROOT, public_pem

EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)


def test_each_file_of_evidence_may_lie_at_an_address(workshop: Workshop, hub: Hub) -> None:
    model = workshop.model()
    options = ("--signature", "--provenance", "--training-record")
    paths = (
        workshop.sign_model(model),
        workshop.train_provenance(model),
        workshop.record_file(model),
    )
    here = {f"{number}/{'evidence' * 40}": path.read_bytes() for number, path in enumerate(paths)}
    hub.commit("org/evidence", here)
    words = [word for pair in zip(options, here, strict=True) for word in pair]
    words = [f"hf://org/evidence/{word}" if word in here else word for word in words]
    page = workshop.folder / "summary.md"
    page.write_text("summary\n")
    code, verdict = workshop.verify(model, *words, *EXPECTED, "--summary", page)
    assert (code, refusals(verdict)) == (0, [])
    assert "--provenance hf://org/evidence/1/evidence" in page.read_text()
    for number in range(3):
        hub.commit("org/evidence", {**here, f"{number}/{'evidence' * 40}": b"other"})
        assert workshop.verify(model, *words, *EXPECTED)[0] == 1
    hub.commit("org/evidence", {"other": b""})
    assert workshop.verify(model, *words, *EXPECTED)[0] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--source-uri", "octo-org"),
        ("--source-uri", f"{SOURCE}/"),
        ("--source-uri", f"{SOURCE}.git"),
        ("--source-uri", f"{SOURCE}@main"),
        ("--source-uri", "octo-org/models"),
        ("--source-uri", f"https://{SOURCE}/tree"),
        ("--source-commit", COMMIT[:12]),
        ("--source-commit", "main"),
        ("--dataset-digest", DATASET.upper()),
        ("--dataset-digest", f"sha256:{DATASET}"),
        ("--source-tag", "v1.2.3", "--source-versioned-tag", "v1"),
        ("--source-versioned-tag", "v\u0661.2.3"),
        ("--source-versioned-tag", f"v{'9' * 5000}.0.0"),
        ("--builder-id", "train.yml"),
        ("--builder-id", f"{TRAIN}@a@b"),
        ("--builder-id", f"{TRAIN}@"),
        ("--build-workflow-input", "novalue"),
        ("--build-workflow-input", "=novalue"),
        ("--source-versioned-tag", "1.2.3"),
        ("--identity-provider", "https://accounts.example"),
        ("--identity", "a@b.example", "--public-key", __file__),
        ("--base-policy", "x.toml"),
        ("--attest-verdict", "vsa.json"),
        ("--builder-id", TRAIN, "--builder-key", __file__),
        ("--minimum-level", "4"),
    ],
)
def test_usage_errors(workshop: Workshop, arguments: tuple[str, ...]) -> None:
    code, verdict = workshop.verify(workshop.model(), "--provenance", "p.json", *arguments)
    assert (code, verdict["error"]) == (2, "UsageError")


def verify_parser() -> argparse.ArgumentParser:
    (commands,) = [item for item in cli.build_parser()._actions if item.nargs == argparse.PARSER]
    return commands.choices["verify"]  # type: ignore[index, no-any-return, call-overload]


OPTIONS = [
    action.option_strings[0]
    for action in verify_parser()._actions
    if action.option_strings and action.nargs is None and not action.choices
]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("form", ["{} ", "{}="])
def test_an_empty_value_is_an_unset_variable(workshop: Workshop, option: str, form: str) -> None:
    model = workshop.model()
    evidence = ("--provenance", workshop.train_provenance(model), *EXPECTED)
    name, *value = form.format(option).split(" ")
    code, error = workshop.verify(model, *evidence, name, *value)
    assert (code, error["error"]) == (2, "UsageError")
    assert error["message"].startswith(option) and error["message"].endswith(" is empty")
    assert "unset" in error["fix"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "", "--provenance", "p.json"),
        ("subjects", ""),
        ("subjects", "model", "--expected", ""),
        ("provenance", "model", "--training-record", "", "--output", "p.json"),
        ("train", "pytorch_model.pth", "--output-dir", ""),
        ("policy", "init", "model", "--output", ""),
        ("load", ""),
    ],
)
def test_an_empty_value_of_any_command(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert "is empty" in capsys.readouterr().err


def test_nothing_to_verify_against(workshop: Workshop) -> None:
    code, error = workshop.verify(workshop.model(), *EXPECTED)
    assert (code, error["error"]) == (2, "UsageError")


@pytest.mark.parametrize("name", ["missing", "folder"])
@pytest.mark.parametrize(
    "option", ["--provenance", "--signature", "--training-record", "--vsa", "--policy"]
)
def test_what_cannot_be_read_is_no_verdict(workshop: Workshop, option: str, name: str) -> None:
    model = workshop.model()
    (workshop.folder / "folder").mkdir()
    options = ("--provenance", workshop.train_provenance(model), *EXPECTED)
    code, error = workshop.verify(model, *options, option, workshop.folder / name)
    assert (code, error["error"]) == (1, "FileError")
    assert error["where"].endswith(name)


def test_a_file_that_is_no_public_key_is_named_before_the_work(workshop: Workshop) -> None:
    """By its own path, whatever the evidence is and whoever states the key."""
    model, key = workshop.model(), new_key()
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    # P-256's object identifier with another last number: a curve that nobody knows.
    p256 = b"\x2a\x86\x48\xce\x3d\x03\x01"
    unknown = base64.encodebytes(info.replace(p256 + b"\x07", p256 + b"\x0f"))
    for data, words in (
        (b"", "not a public key"),
        (b"no key", "not a public key"),
        (private_pem(key), "not a public key"),
        (b"-----BEGIN PUBLIC KEY-----\n%b-----END PUBLIC KEY-----\n" % unknown, "not a public key"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "this kind of key is not supported"),
    ):
        path = workshop.write("key.pub", data)
        stated: list[tuple[object, ...]] = [
            ("--public-key", path),
            ("--builder-id", CHAINS, "--builder-key", path),
        ]
        for number, table in enumerate(("signer", "[builder]", "[vsa.verifier]")):
            name = "" if table == "signer" else f'id = "{CHAINS}"'
            text = f'version = 1\n[{table}]\n{name}\npublic_key = "key.pub"\n'
            stated.append(("--policy", workshop.write(f"{number}.toml", text.encode())))
        for options in stated:
            code, error = workshop.verify(model, "--provenance", model, *options)
            assert (code, error["error"], error["message"]) == (1, "FileError", words)
            assert error["where"] == str(path)


def test_without_a_trust_root_there_is_no_verdict(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = workshop.model()
    options = ["--provenance", str(workshop.train_provenance(model)), *EXPECTED]
    broken = workshop.write("trust.json", b"{}")
    for config, message in (
        ("none.json", "there is no such file"),
        (str(broken), "not a Sigstore client trust configuration"),
    ):
        assert main(["verify", str(model), *options, "--trust-config", config]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert message in output.err
    # No network: the public trust root cannot be refreshed.
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert main(["verify", str(model), *options]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "--offline" in output.err


@pytest.mark.parametrize("option", ["--summary", "--attest-verdict"])
def test_an_output_that_cannot_be_written_is_refused_first(
    workshop: Workshop, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--policy": "p.toml", "--resource-uri": "r", "--verifier-id": "v"}
    options = [word for pair in given.items() for word in pair] if "attest" in option else []
    for place in (workshop.folder / "none" / "x.md", workshop.folder):
        assert main(["verify", "m", "--vsa", "v", *options, option, str(place)]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert "the output cannot be written" in output.err


@pytest.mark.parametrize("option", ["--html", "--summary", "--attest-verdict"])
def test_an_output_destroys_nothing(workshop: Workshop, option: str) -> None:
    """Neither what is verified nor anything else; also through a link or another spelling."""
    model, folder = workshop.model(), workshop.directory()
    policy = workshop.write("policy.toml", b"version = 1\n")
    provenance, trust = workshop.train_provenance(model), workshop.trust_config
    shutil.copy(trust, workshop.folder / "trust.json")
    link, linked = workshop.folder / "link", workshop.folder / "hard link"
    link.symlink_to(model)
    linked.hardlink_to(model)
    key = workshop.write("key.pem", private_pem(new_key()))
    notes = workshop.write("notes.bin", b"\0\1")
    code, spelt = 1, workshop.folder / ".." / workshop.folder.name / "model.pth"
    given = ["--provenance", provenance, "--policy", policy, "--private-key", key]
    given += ["--verifier-id", "v", "--resource-uri", "r"]
    for one, outputs in (
        (model, (model, link, linked, spelt, provenance, policy, key, trust, notes)),
        (folder, (folder / "page.html", folder / "variables" / "0000")),
    ):
        for output in outputs:
            before = output.read_bytes() if output.exists() else None
            code, error = workshop.verify(one, *given, option, output)
            assert (code, error["error"], error["where"]) == (1, "FileError", str(output))
            assert (output.read_bytes() if output.exists() else None) == before


def test_an_older_page_is_replaced_and_a_summary_is_added_to(workshop: Workshop) -> None:
    model = workshop.model()
    options = ["--provenance", workshop.train_provenance(model), *EXPECTED]
    html, summary = workshop.folder / "v.html", workshop.write("s.md", "# Möwe\n".encode())
    for _ in range(2):
        assert workshop.verify(model, *options, "--html", html, "--summary", summary)[0] == 0
    assert html.read_text().count("<h1") == 1
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("# Möwe\n## ✅ VERIFIED") and text.count("✅ VERIFIED") == 2


def test_evidence_beside_the_model_is_found_by_its_names(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = workshop.write(
        "policy.toml",
        f"""
version = 1
[source]
uri = "{SOURCE}"
[[builder]]
id = "{TRAIN}"
[require]
evidence = ["signature", "train"]
""".encode(),
    )
    first, second = workshop.model(b"1", "a.pth"), workshop.directory(name="b")
    code, said = workshop.verify(first, "--policy", policy)
    assert (code, said["error"]) == (2, "UsageError")
    assert "a.pth.provenance.sigstore.json" in said["expected"]
    for model in (first, second):
        workshop.sign_model(model)
        workshop.train_provenance(model, f"{model.name}.provenance.sigstore.json")
    capsys.readouterr()
    for model in (first, second):
        code, verdict = workshop.verify(model, "--policy", policy)
        assert (code, refusals(verdict)) == (0, [])
        named = [item["name"] for item in verdict["basis"]["evidence"]]
        assert sorted(named) == [f"{model.name}.provenance.sigstore.json", f"{model.name}.sig"]
        assert f"{model.name}.sig, {model.name}.prov" in capsys.readouterr().err
    monkeypatch.chdir(second)
    assert workshop.verify(Path(), "--policy", policy)[0] == 0
    _several_at_once(workshop, capsys, policy, [first, second])
    # What is named is taken, and nothing else with it.
    alone = ("--provenance", workshop.folder / "a.pth.provenance.sigstore.json")
    code, verdict = workshop.verify(first, *alone, "--policy", policy)
    assert (code, refusals(verdict)) == (1, ["ChainError"])


def _several_at_once(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], policy: Path, models: list[Path]
) -> None:
    third = workshop.model(b"3", "c.pth")
    trust = ["--trust-config", str(workshop.trust_config)]
    line = ["verify", *map(str, models), "--policy", str(policy), *trust]
    capsys.readouterr()
    assert main(line) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert f"{models[0]}: VERIFIED a.pth, SLSA Build L3\n" in output.out
    assert re.search(r"verified +2 ", output.out)
    line.insert(1, str(third))
    assert main([*line, "--format", "json"]) == 1
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert lines.pop() == {"result": "summary", "models": 3, "refused": 1}
    schema = json.loads((ROOT / "slsa_for_models/schemas/verdict.v1.json").read_text())
    for said in lines:
        if said["path"] == str(third):
            assert said["message"] == "nothing to verify against"
        else:
            jsonschema.Draft202012Validator(schema).validate(said)
    assert {said["path"] for said in lines} == {str(third), *map(str, models)}
    models[0].write_bytes(b"other")
    summary = workshop.folder / "summary.md"
    assert main([*line, "--summary", str(summary)]) == 1
    output = capsys.readouterr()
    assert f"slsa_for_models: refused: {models[0]}: " in output.err
    assert summary.read_text().count("\n## ") + summary.read_text().startswith("## ") == 2
    models[0].write_bytes(b"1")
    for option in (
        "--signature",
        "--provenance",
        "--vsa",
        "--training-record",
        "--html",
        "--copy-to",
    ):
        assert main([*line, option, "x"]) == 2
        assert f"{option} is of one model" in capsys.readouterr().err


DRAWN = """
import sys
from model_signing.terminal import progress
from slsa_for_models.cli import main
progress._FIRST_AFTER = 0  # of a model that takes a second
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_long_lines_fold_at_a_terminals_width(workshop: Workshop) -> None:
    pty = pytest.importorskip("pty", reason="not tested: this system has no pseudo-terminals")
    fcntl, termios = (pytest.importorskip(name) for name in ("fcntl", "termios"))
    model = workshop.model()
    arguments = ["verify", model, "--provenance", workshop.train_provenance(model), *EXPECTED]
    arguments += ["--trust-config", workshop.trust_config]
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 90, 0, 0))
    done = subprocess.run(
        [sys.executable, "-m", "slsa_for_models", *map(str, arguments)],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    os.write(writer, b"end")
    shown = b""
    while not shown.endswith(b"end"):
        shown += os.read(reader, 65536)
    os.close(reader)
    os.close(writer)
    lines = shown.decode().replace("\r", "").splitlines()
    assert done.stderr == b""
    assert len([line for line in lines if len(line) > 90]) == 0
    assert any(f"{TRAIN}@{REF}" in line for line in lines)  # in one piece


@pytest.mark.slow
@pytest.mark.parametrize("given", [(), ("--no-progress",)])
def test_progress_is_drawn_on_a_terminal(workshop: Workshop, given: tuple[str, ...]) -> None:
    pty = pytest.importorskip("pty", reason="not tested: this system has no pseudo-terminals")
    model = workshop.model(b"1" * 5_000_000)
    arguments = ["verify", model, "--provenance", workshop.train_provenance(model), *EXPECTED]
    arguments += ["--trust-config", workshop.trust_config, *given]
    reader, writer = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", DRAWN, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=writer,
        timeout=60,
        check=True,
    )
    os.write(writer, b"end")
    drawn = b""
    while not drawn.endswith(b"end"):
        drawn += os.read(reader, 65536)
    os.close(reader)
    os.close(writer)
    assert (b"5.0/5.0 MB" in drawn) is (not given)
    assert b"VERIFIED" in done.stdout and b"MB" not in done.stdout
