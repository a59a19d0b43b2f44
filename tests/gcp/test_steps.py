"""`slsa_for_models gcp`: the steps, against git repositories and a bucket on this machine."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sandbox.clusters import tekton_demo
from sandbox.github import repositories
from slsa_for_models.cli import main
from slsa_for_models.evidence import training_record as record
from tests.support.records import RECORD

URL = "https://git.example.test/org/repo"


# clone


@pytest.fixture
def repository(tmp_path, monkeypatch) -> str:
    """A repository with one commit, served at URL; returns the commit."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.py").write_text("print('hello')\n")
    commit = repositories.snapshot(source, tmp_path / "served")
    for name, value in tekton_demo.redirect_git(URL, tmp_path / "served").items():
        monkeypatch.setenv(name, value)
    return commit


def clone(folder: Path, revision: str, url: str = URL) -> int:
    (folder / "clone").mkdir()
    return main(
        [
            *("gcp", "clone", url, f"--revision={revision}"),
            *("--output-dir", str(folder / "clone"), "--source-result", str(folder / "result")),
        ]
    )


def test_clone_fetches_a_commit_and_reports_it(repository, tmp_path):
    assert clone(tmp_path, repository) == 0
    assert (tmp_path / "clone/train.py").read_text() == "print('hello')\n"
    assert json.loads((tmp_path / "result").read_text()) == {
        "uri": f"git+{URL}.git",
        "digest": f"sha1:{repository}",
    }


def test_clone_of_a_branch_reports_the_commit_and_the_branch(repository, tmp_path):
    assert clone(tmp_path, "refs/heads/main") == 0
    assert json.loads((tmp_path / "result").read_text()) == {
        "uri": f"git+{URL}.git@refs/heads/main",
        "digest": f"sha1:{repository}",
    }


@pytest.mark.parametrize(
    ("revision", "url", "code", "message"),
    [
        ("refs/heads/other", URL, 1, "`git fetch` failed"),
        ("0" * 40, URL, 1, "`git fetch` failed"),
        ("main", URL, 2, "refs/heads/NAME"),
        ("--upload-pack=touch /tmp/x", URL, 2, "not a revision"),
        ("refs/heads/main", f"{URL}.git", 2, "https://HOST/ORG/REPO"),
        ("refs/heads/main", "ext::sh -c touch% /tmp/x", 2, "https://HOST/ORG/REPO"),
        ("refs/heads/main", "file:///etc", 2, "https://HOST/ORG/REPO"),
    ],
)
def test_clone_refuses(repository, tmp_path, capsys, revision, url, code, message):
    assert clone(tmp_path, revision, url) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


def test_clone_without_git(repository, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert clone(tmp_path, repository) == 1
    assert "git cannot be run" in capsys.readouterr().err


# upload and download


@pytest.fixture(scope="module")
def storage():
    with tekton_demo.bucket_server() as url:
        yield url


@dataclass(frozen=True)
class Files:
    """What the train and sign Tasks leave; uploading looks into the record only."""

    model: Path
    signature: Path
    record: Path


@pytest.fixture
def files(tmp_path) -> Files:
    folder = tmp_path / "files"
    folder.mkdir()
    made = Files(folder / "m.pth", folder / "m.pth.sig", folder / "training.json")
    made.model.write_bytes(b"weights")
    made.signature.write_bytes(b"{}")
    made.record.write_bytes(
        record.encode(replace(RECORD, dataset=record.Dataset("d" * 64, (RECORD.dataset.files[0],))))
    )
    return made


@pytest.fixture
def upload(storage, files, tmp_path, request):
    """Uploads the files, to a folder of this test's own."""
    folder = (
        f"gs://{tekton_demo.BUCKET}/{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}"
    )

    def run(destination: str = folder, **others: Path) -> int:
        given = {"model": files.model, "signature": files.signature, "record": files.record}
        given |= others
        results = [
            f"--{what}-result={tmp_path / what}"
            for what in ("model", "signature", "record", "dataset")
        ]
        return main(
            [
                *("gcp", "upload", str(given["model"]), "--signature", str(given["signature"])),
                *("--training-record", str(given["record"])),
                *("--destination", destination, *results),
            ]
        )

    run.folder = folder
    return run


def test_upload_then_download(upload, files, tmp_path, capsys):
    assert upload() == 0
    digest = hashlib.sha256(files.model.read_bytes()).hexdigest()
    assert json.loads((tmp_path / "model").read_text()) == {
        "uri": f"{upload.folder}/{files.model.name}",
        "digest": f"sha256:{digest}",
        "isBuildArtifact": "true",
    }
    assert "isBuildArtifact" not in json.loads((tmp_path / "signature").read_text())
    assert json.loads((tmp_path / "dataset").read_text()) == {
        "uri": "https://example.test/data.csv",
        "digest": f"sha256:{'d' * 64}",
    }
    reference = capsys.readouterr().out.splitlines()[0]
    assert main(["gcp", "download", reference, "--output-dir", str(tmp_path / "down")]) == 0
    assert [path.name for path in (tmp_path / "down").iterdir()] == [files.model.name]
    assert (tmp_path / "down" / files.model.name).read_bytes() == files.model.read_bytes()


def test_an_object_is_never_replaced(upload, capsys):
    assert upload() == 0
    assert upload() == 1
    assert "exists already" in capsys.readouterr().err


def test_a_hostile_training_record_is_refused_before_anything_is_uploaded(
    upload, files, tmp_path, capsys
):
    hostile = tmp_path / "training.json"
    hostile.write_bytes(b'{"model": ' + b"[" * 100_000)
    assert upload(record=hostile) == 1
    assert "training record" in capsys.readouterr().err
    digest = hashlib.sha256(files.model.read_bytes()).hexdigest()
    reference = f"{upload.folder}/{files.model.name}@sha256:{digest}"
    assert main(["gcp", "download", reference, "--output-dir", str(tmp_path / "down")]) == 1


@pytest.mark.parametrize(
    ("destination", "code", "message"),
    [
        ("gs://no-such-bucket/x", 1, "the bucket did not do"),
        ("gs://bucket/../x", 2, "gs://BUCKET/OBJECT"),
        ("https://bucket/x", 2, "gs://BUCKET/OBJECT"),
        (f"gs://{tekton_demo.BUCKET}/" + "x" * 700, 2, "too long for Tekton"),
    ],
)
def test_upload_refuses_a_destination(upload, capsys, destination, code, message):
    assert upload(destination) == code
    assert message in capsys.readouterr().err


def test_upload_of_a_missing_model(upload, tmp_path, capsys):
    assert upload(model=tmp_path / "nothing.pth") == 1
    assert "cannot read the file" in capsys.readouterr().err


def test_download_refuses_other_bytes_and_leaves_nothing(upload, files, tmp_path, capsys):
    assert upload() == 0
    reference = f"{upload.folder}/{files.model.name}@sha256:{'0' * 64}"
    assert main(["gcp", "download", reference, "--output-dir", str(tmp_path / "down")]) == 1
    message = capsys.readouterr().err
    assert "not the one that was named" in message
    assert f"expected: sha256:{'0' * 64}" in message
    assert list((tmp_path / "down").iterdir()) == []


@pytest.mark.parametrize(
    ("reference", "code", "message"),
    [
        (f"gs://{tekton_demo.BUCKET}/none@sha256:{'0' * 64}", 1, "the bucket did not do"),
        (f"gs://{tekton_demo.BUCKET}/none", 2, "not a reference"),
        (f"gs://{tekton_demo.BUCKET}/a/@sha256:{'0' * 64}", 2, "no file name"),
        (f"gs://{tekton_demo.BUCKET}/../..@sha256:{'0' * 64}", 2, "not an object's URI"),
    ],
)
def test_download_refuses_a_reference(storage, tmp_path, capsys, reference, code, message):
    assert main(["gcp", "download", reference, "--output-dir", str(tmp_path)]) == code
    assert message in capsys.readouterr().err


def test_a_bucket_that_cannot_be_reached(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr("slsa_for_models.gcp.steps.TIMEOUT", 1)
    reference = f"gs://{tekton_demo.BUCKET}/none@sha256:{'0' * 64}"
    assert main(["gcp", "download", reference, "--output-dir", str(tmp_path)]) == 1
    assert "the bucket did not do" in capsys.readouterr().err
