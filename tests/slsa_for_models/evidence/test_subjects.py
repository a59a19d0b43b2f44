"""`slsa_for_models subjects`: what provenance is about, as sha256sum itself sees it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from model_signing import api
from model_signing.methods.key import key_signer, key_verifier
from slsa_for_models.cli import main
from slsa_for_models.evidence import subjects
from tests.support.crafted import new_key, private_pem, public_pem
from tests.support.memory_source import MemorySource


def lines(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["subjects", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "saved_model"
    (root / "variables").mkdir(parents=True)
    (root / "saved_model.pb").write_bytes(b"graph")
    (root / "variables" / "data").write_bytes(b"numbers")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_bytes(b"not part of the model")
    return root


def test_file_as_sha256sum_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.pth"
    model.write_bytes(b"weights")
    printed = subprocess.run(
        ["sha256sum", "model.pth"],
        cwd=tmp_path,
        capture_output=True,
        timeout=300,
    )
    encoded = lines(capsys, model)
    assert encoded.count("\n") == 1
    assert base64.b64decode(encoded) == printed.stdout
    assert lines(capsys, model, "--format", "text").encode() == printed.stdout


def test_directory_lists_its_files_and_its_root(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = json.loads(lines(capsys, folder, "--format", "json"))
    digests = {item["name"]: item["sha256"] for item in listed}
    root = digests.pop("saved_model")
    assert list(digests) == ["saved_model/saved_model.pb", "saved_model/variables/data"]
    # OMS 6.5.1, computed here by hand: over the raw digests, sorted by name.
    raw = [sha256(content).digest() for content in (b"graph", b"numbers")]
    assert root == sha256(b"".join(raw)).hexdigest() == api.digest(folder)
    check = subprocess.run(
        ["sha256sum", "--check", "--strict"],
        cwd=folder.parent,
        input="".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode(),
        timeout=300,
    )
    assert check.returncode == 0


@pytest.mark.parametrize(
    ("count", "name", "listed"),
    [(900, "{}", 901), (2000, "{}", 1), (500, "{:0100}", 1), (400, "{:0100}", 401)],
)
def test_many_files_have_one_subject_the_signed_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, name: str, listed: int
) -> None:
    """What is printed fits into one environment variable of Linux, 128 KiB."""
    root = tmp_path / "model"
    root.mkdir()
    for number in range(count):
        (root / name.format(number)).touch()
    encoded = lines(capsys, root).strip()
    assert len(encoded) <= 96 * 1024
    found = base64.b64decode(encoded).decode().splitlines()
    assert len(found) == listed
    if listed == 1:
        signed = api.sign(root, tmp_path / "model.sig", key_signer(private_pem(new_key())))
        assert found == [f"{signed.payload_digest}  model"]
    given = ["bash", "-c", 'test "$SUBJECTS" = "$1"', "-", encoded]
    subprocess.run(
        given,
        env={**os.environ, "SUBJECTS": encoded},
        check=True,
        timeout=300,
    )
    assert lines(capsys, root, "--expected", encoded).strip() == encoded
    (root / name.format(0)).write_bytes(b"changed")
    assert main(["subjects", str(root), "--expected", encoded]) == 1


def test_a_signature_in_shards_names_the_files(tmp_path: Path, folder: Path) -> None:
    """They are hashed once more as provenance does; what was never signed stays out."""
    key = new_key()
    options = api.HashOptions("shards", shard_size=3, ignore_git_paths=False)
    shutil.rmtree(folder / ".git")
    signature = tmp_path / "model.sig"
    api.sign(folder, signature, key_signer(private_pem(key)), options)
    expected = dict(subjects.measure(folder).files)
    (folder / ".gitignore").write_text("unsigned, and excused as a git path")
    verified = api.verify(folder, signature, key_verifier(public_pem(key)))
    found = subjects.of_verified(folder, verified)
    assert found.files == expected
    assert found.payload_sha256 == verified.payload_digest


def test_a_signature_with_links_and_another_algorithm(tmp_path: Path, folder: Path) -> None:
    (folder / "link").symlink_to("saved_model.pb")
    key = new_key()
    options = api.HashOptions(algorithm="blake2b", allow_symlinks=True)
    api.sign(folder, tmp_path / "model.sig", key_signer(private_pem(key)), options)
    verified = api.verify(folder, tmp_path / "model.sig", key_verifier(public_pem(key)))
    found = subjects.of_verified(folder, verified)
    assert found.files["link"] == found.files["saved_model.pb"] == sha256(b"graph").hexdigest()


def test_a_model_that_lies_elsewhere(tmp_path: Path, folder: Path) -> None:
    there = MemorySource(
        folder.name,
        {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        },
    )
    assert subjects.measure(there) == subjects.measure(folder)
    key, signature = new_key(), tmp_path / "model.sig"
    shards = api.HashOptions(method="shards", shard_size=5)
    api.sign(there, signature, key_signer(private_pem(key)), shards)
    verified = api.verify(there, signature, key_verifier(public_pem(key)))
    assert subjects.of_verified(there, verified) == subjects.of_verified(folder, verified)


def test_several_models(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.pth"
    model.write_bytes(b"weights")
    assert len(lines(capsys, model, folder, "--format", "text").splitlines()) == 4


def test_two_models_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "model", tmp_path / "other" / "model"):
        path.write_bytes(b"weights")
    code = main(["subjects", str(tmp_path / "model"), str(tmp_path / "other" / "model")])
    assert code == 2
    assert "same name" in capsys.readouterr().err


def test_expected_subjects(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reported = lines(capsys, folder).strip()
    assert lines(capsys, folder, "--expected", reported).strip() == reported
    (folder / "saved_model.pb").write_bytes(b"other")
    assert main(["subjects", str(folder), "--expected", reported]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "saved_model/saved_model.pb" in output.err
    assert "expected" in output.err
    (folder / "variables" / "extra").touch()
    assert main(["subjects", str(folder), "--expected", reported]) == 1
    assert "expected: not listed" in capsys.readouterr().err


def test_no_digests_were_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subjects", str(folder), "--expected", ""]) == 2
    assert "--expected is empty" in capsys.readouterr().err
    nothing = base64.b64encode(b"\n").decode()
    assert main(["subjects", str(folder), "--expected", nothing]) == 1


@pytest.mark.parametrize("reported", ["not base64!", base64.b64encode(b"\xff").decode()])
def test_expected_is_no_list_of_subjects(
    folder: Path, capsys: pytest.CaptureFixture[str], reported: str
) -> None:
    assert main(["subjects", str(folder), "--expected", reported]) == 2
    assert "base64" in capsys.readouterr().err


@pytest.mark.parametrize("twist", ["same name twice", "another line break"])
def test_expected_says_something_else_besides(
    folder: Path, capsys: pytest.CaptureFixture[str], twist: str
) -> None:
    reported = base64.b64decode(lines(capsys, folder)).decode()
    smuggled = f"{'e' * 64}  saved_model"
    text = {
        "same name twice": f"{smuggled}\n{reported}",
        "another line break": f"{smuggled}\x0b{reported}",
    }[twist]
    encoded = base64.b64encode(text.encode()).decode()
    assert main(["subjects", str(folder), "--expected", encoded]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "twice" in output.err or "not the one that was reported" in output.err


def spoil(kind: str, folder: Path) -> None:
    if kind == "symbolic link":
        (folder / "link").symlink_to("saved_model.pb")
    elif kind == "FIFO":
        os.mkfifo(folder / "pipe")
    elif kind == "line break":
        (folder / "two\nlines").touch()
    else:
        for path in (folder / "saved_model.pb", folder / "variables" / "data"):
            path.unlink()


@pytest.mark.parametrize("kind", ["symbolic link", "FIFO", "line break", "no files"])
def test_models_that_cannot_be_listed(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    if os.name == "nt" and kind in ("FIFO", "line break"):
        pytest.skip("Windows has no such files")
    spoil(kind, folder)
    assert main(["subjects", str(folder)]) == 1
    assert capsys.readouterr().err


def test_no_such_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subjects", str(tmp_path / "missing")]) == 1
    assert "missing" in capsys.readouterr().err


def test_what_the_hubs_client_leaves_is_no_part_of_the_model(folder: Path, tmp_path: Path) -> None:
    """As signing has it, down to the digest of the statement."""
    before = subjects.measure(folder)
    (folder / ".cache/huggingface/download").mkdir(parents=True)
    (folder / ".cache/huggingface/download/saved_model.pb.metadata").write_bytes(b"etag")
    key = new_key()
    signed = api.sign(folder, tmp_path / "model.sig", key_signer(private_pem(key)))
    measured = subjects.measure(folder)
    assert measured.files == before.files
    assert measured.payload_sha256 == signed.payload_digest != before.payload_sha256
    (folder / ".cache/other").write_bytes(b"a file like any other")
    assert ".cache/other" in subjects.measure(folder).files
