"""Models in buckets: a real server of S3, and one that lies."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import threading
import uuid
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

import model_signing
from model_signing import HashOptions
from model_signing.cli import main
from model_signing.errors import FileError, MismatchError
from model_signing.oms.names import Selection
from model_signing.sources import ahead, open_source, remote
from sandbox.local_server import LocalServer, Reply, Request
from tests.support.buckets import azurite, seaweedfs
from tests.support.material import new_key, private_pem, public_pem
from tests.support.training_runs import train_on

pytest.importorskip("obstore", reason="not tested: no obstore")
object_storage = importlib.import_module("model_signing.sources.object_storage")
write_file = object_storage.write_file

KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
FILES = {
    ".gitattributes": b"*.bin filter=lfs\n",
    "config.json": b'{"layers": 3}',
    "empty.txt": b"",
    "weights/model.bin": os.urandom(50_000),
    "weights/größe, 100%+.bin": os.urandom(5_000),
}


def set_variables(variables: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    for name in [one for one in os.environ if one.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        patch.delenv(name)
    for name, value in variables.items():
        patch.setenv(name, value)
    object_storage._store.cache_clear()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as variables:
        yield variables


@pytest.fixture
def bucket(storage: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    set_variables(storage, monkeypatch)
    return f"s3://models/{uuid.uuid4().hex[:8]}"  # each bucket would take a few volumes


def test_a_training_reads_a_pinned_object(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = b"x,y\n" * 1000
    for name in ("train.csv", "folder/train.csv", "folder/other.csv"):
        write_file(f"{bucket}/{name}", rows)
    digest = sha256(rows).hexdigest()
    assert train_on(tmp_path, digest, f"{bucket}/train.csv") == (0, rows)
    for pinned, place, words in (
        ("0" * 64, f"{bucket}/train.csv", "not the one that was pinned"),
        (digest, f"{bucket}/absent.csv", "nothing below"),
        (digest, f"{bucket}/folder", "has to be that of one file"),
    ):
        assert train_on(tmp_path, pinned, place) == (1, None)
        assert words in capsys.readouterr().err


def put(address: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        write_file(f"{address}/{name}", data)


@pytest.fixture
def address(bucket: str) -> str:
    put(bucket, {f"team/my-model/{name}": data for name, data in FILES.items()})
    put(bucket, {"team/my-model-2/other": b"x", "team/my": b"y"})
    return f"{bucket}/team/my-model"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "my-model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my-model" / name).write_bytes(data)
    return tmp_path / "my-model"


@pytest.mark.parametrize("options", [HashOptions(), HashOptions(method="shards", shard_size=1000)])
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_same_signature_here_and_there(
    address: str,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: HashOptions,
    slash: str,
) -> None:
    if options.shard_size:
        options = HashOptions("shards", shard_size=1000, ignore_paths=("empty.txt",))
    monkeypatch.setattr(remote, "PIECE", 700)
    monkeypatch.setattr(remote, "JUDGED", 0.0)
    there = model_signing.sign(address + slash, tmp_path / "there.sig", SIGN, options)
    local = model_signing.sign(here, tmp_path / "here.sig", SIGN, options)
    assert there.payload_digest == local.payload_digest
    assert there.resolved == address
    copy = tmp_path / "copy"
    model_signing.verify(address + slash, tmp_path / "here.sig", VERIFY, copy_to=copy)
    model_signing.verify(copy, tmp_path / "there.sig", VERIFY)
    source = open_source(address)
    assert pickle.loads(pickle.dumps(source)) == source


def test_a_model_is_one_object_or_a_whole_bucket(bucket: str, tmp_path: Path) -> None:
    bucket = "s3://a-whole-bucket"
    put(bucket, {"weights.bin": FILES["weights/model.bin"]})
    (tmp_path / "weights.bin").write_bytes(FILES["weights/model.bin"])
    model_signing.sign(f"{bucket}/weights.bin", f"{bucket}/weights.bin.sig", SIGN)
    verified = model_signing.verify(f"{bucket}/weights.bin", None, VERIFY)
    assert verified.signature == f"{bucket}/weights.bin.sig"
    (tmp_path / "s.sig").write_bytes(verified.bundle)
    model_signing.verify(tmp_path / "weights.bin", tmp_path / "s.sig", VERIFY)
    model_signing.sign(bucket, f"{bucket}/model.sig", SIGN)
    whole = model_signing.verify(bucket, None, VERIFY)
    assert sorted(whole.manifest.files) == ["weights.bin", "weights.bin.sig"]


def test_signatures_are_put_and_found(
    address: str, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "key.pub"
    key.write_bytes(private_pem(KEY))
    public.write_bytes(public_pem(KEY))
    sign = ["sign", "key", address, "--private-key", str(key), "--signature"]
    verify = ["verify", "key", address, "--public-key", str(public), "--format", "json"]
    for place in (f"{address}/model.sig", f"{address}.sig"):  # in it, beside it
        assert main([*sign, place]) == 0
        assert main([*sign, place]) == 0  # again: the older one is no part of the model
        capsys.readouterr()
        assert main(verify) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["resolved"] == address
    assert said["signature"] == f"{address}/model.sig"
    assert said["other_signatures"] == [f"{address}.sig"]
    assert main([*sign, f"{address}/config.json"]) == 1
    assert "is no signature" in capsys.readouterr().err


def test_what_changes_between_listing_and_reading_is_refused(
    address: str, bucket: str, tmp_path: Path
) -> None:
    source = open_source(address)
    put(bucket, {"team/my-model/empty.txt": b""})

    def change(done: int, _total: int) -> None:
        put(bucket, {"team/my-model/weights/model.bin": os.urandom(50_000)})

    put(bucket, {"team/my-model/a.bin": bytes(9 << 20)})  # is hashed first, and alone
    with pytest.raises(FileError, match=r"changed after it was listed|another version"):
        model_signing.sign(source, None, SIGN, HashOptions(jobs=1), progress=change)


def test_another_object_is_refused(address: str, bucket: str, tmp_path: Path) -> None:
    model_signing.sign(address, tmp_path / "model.sig", SIGN)
    put(bucket, {"team/my-model/weights/model.bin": bytes(50_000)})
    with pytest.raises(MismatchError, match="not what was signed"):
        model_signing.verify(address, tmp_path / "model.sig", VERIFY, copy_to=tmp_path / "copy")
    put(bucket, {"team/my-model/extra": b""})
    with pytest.raises(MismatchError, match="does not have the files"):
        model_signing.verify(address, tmp_path / "model.sig", VERIFY, copy_to=tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent", "nothing below this prefix"),
        ("team/my-mod", "nothing below this prefix"),  # a part of a name is no prefix
        ("a//b", "cannot be read"),
        ("a/../b", "cannot be read"),
        ("a\nb", "not the address"),
        ("a?versionId=1", "cannot be read|nothing below"),
    ],
)
def test_what_is_not_there_is_told(address: str, bucket: str, path: str, message: str) -> None:
    with pytest.raises(FileError, match=message) as refusal:
        model_signing.digest(f"{bucket}/{path}")
    assert (refusal.value.where or "").startswith(bucket)


def test_who_may_not_read_is_told(
    address: str, storage: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_variables({**storage, "AWS_SECRET_ACCESS_KEY": "another"}, monkeypatch)
    with pytest.raises(FileError, match="access is refused") as refusal:
        model_signing.digest(address)
    assert "another" not in str(refusal.value)


def test_who_has_no_credentials_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalServer(lambda _: Reply(403, b"no", "text/plain")) as server:
        set_variables({"AWS_METADATA_ENDPOINT": f"http://127.0.0.1:{server.port}"}, monkeypatch)
        with pytest.raises(FileError, match="no credentials for the bucket are set"):
            model_signing.digest("s3://models/my-model")


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [("AWS_ENDPOINT_URL", "127.0.0.1:9000"), ("AWS_ENDPOINT_URL", ""), ("AWS_ENDPOINT", "me:pw@a")],
)
def test_an_endpoint_that_is_no_address_is_told(
    name: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    set_variables({**keys, name: endpoint}, monkeypatch)
    with pytest.raises(FileError, match="endpoint of the bucket is no address") as refusal:
        model_signing.digest("s3://models/m")
    assert refusal.value.where == name
    set_variables({**keys, name: "http://a b"}, monkeypatch)  # the client panics
    with pytest.raises(FileError, match="cannot be read"):
        model_signing.digest("s3://models/m")


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "k"}
    set_variables({**nowhere, "AWS_SECRET_ACCESS_KEY": "s"}, monkeypatch)
    with pytest.raises(FileError, match="cannot be read") as refusal:
        model_signing.digest("s3://models/my-model")
    assert "127.0.0.1:9" in (refusal.value.found or "")


@pytest.mark.full
def test_the_same_in_azure(
    here: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with azurite(tmp_path_factory.mktemp("azurite"), "models") as variables:
        set_variables(variables, monkeypatch)
        monkeypatch.setattr(remote, "PIECE", 700)
        monkeypatch.setattr(remote, "JUDGED", 0.0)
        address = "az://models/team/my-model"
        put(address, FILES)
        there = model_signing.sign(address, f"{address}/model.sig", SIGN)
        assert there.manifest.digests == model_signing.sign(here, None, SIGN).manifest.digests
        verified = model_signing.verify(address, None, VERIFY, copy_to=tmp_path / "copy")
        assert verified.signature == f"{address}/model.sig"
        source = open_source(address)
        entries, _ = source.entries(Selection())
        put(address, {"config.json": b'{"layers": 4}'})
        with pytest.raises(FileError, match="changed after it was listed"):
            list(source.read("config.json", entries["config.json"], 0, 13))
        with pytest.raises(MismatchError):
            model_signing.verify(address, None, VERIFY)
        with pytest.raises(FileError, match="nothing below"):
            model_signing.digest("az://models/absent")


# A server that lies ------------------------------------------------------------------------------

ETAG = '"0123456789abcdef0123456789abcdef"'


class LyingS3:
    """Lists what it is told to, and answers for objects as it likes."""

    def __init__(self) -> None:
        self.keys: list[tuple[str, int, str]] = []
        self.objects = lambda request: Reply(404, b"")

    def answer(self, request: Request) -> Reply:
        if "list-type=2" not in request.target:
            return self.objects(request)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size>{etag}"
            "<LastModified>2026-11-28T22:00:00.000Z</LastModified></Contents>"
            for key, size, etag in self.keys
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        return Reply(200, body.encode(), "application/xml")


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingS3]:
    s3 = LyingS3()
    monkeypatch.setattr(remote.time, "sleep", lambda _: None)
    with LocalServer(s3.answer) as server:
        url = f"http://127.0.0.1:{server.port}"
        variables = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "k"}
        set_variables({**variables, "AWS_SECRET_ACCESS_KEY": "s"}, monkeypatch)
        yield s3


@pytest.mark.parametrize("key", ["m/../evil", "m//etc/passwd", "m/a\x1b[2J", "m/a", "other/a"])
def test_hostile_names_are_refused(lying: LyingS3, key: str) -> None:
    lying.keys = [(one, 1, f"<ETag>{escape(ETAG)}</ETag>") for one in ("m/a", "m/b", key)]
    with pytest.raises(FileError) as refusal:
        model_signing.digest("s3://models/m")
    assert (refusal.value.where or "").startswith("s3://models")
    assert "\x1b" not in str(refusal.value)


def test_marks_of_folders_are_no_files(lying: LyingS3) -> None:
    lying.keys = [
        (key, size, f"<ETag>{escape(ETAG)}</ETag>")
        for key, size in (("m/", 0), ("m/empty/", 0), ("m/file", 0), ("m/sub/", 0), ("m/sub/a", 1))
    ]
    lying.objects = lambda one: Reply(
        200 if one.target.endswith("/m/file") else 404,
        b"",
        headers=(("ETag", ETAG), ("Last-Modified", "Sat, 28 Nov 2026 22:00:00 GMT")),
    )
    files, _ = open_source("s3://models/m").entries(Selection())
    assert sorted(files) == ["file", "sub/a"]


def test_an_object_without_a_version_is_refused(lying: LyingS3) -> None:
    lying.keys = [("m/a", 1, "")]
    with pytest.raises(FileError, match="no version"):
        model_signing.digest("s3://models/m")


@pytest.mark.parametrize(
    "lie", ["short", "long", "endless", "etag", "size", "ignores the condition", "breaks"]
)
def test_an_answer_that_is_not_what_was_listed_is_refused(lying: LyingS3, lie: str) -> None:
    def answer(request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(404, b"")
        total = 101 if lie == "size" else 100
        etag = '"another"' if lie in ("etag", "ignores the condition") else ETAG
        data = bytes({"short": 50, "long": 150, "endless": 50 << 20}.get(lie, 100))
        headers = (
            ("ETag", etag),
            ("Content-Range", f"bytes 0-99/{total}"),
            ("Last-Modified", "Sat, 28 Nov 2026 22:00:00 GMT"),
        )
        return Reply(206, data, headers=headers, breaks_after=50 if lie == "breaks" else None)

    lying.keys = [("m/a", 100, f"<ETag>{escape(ETAG)}</ETag>")]
    lying.objects = answer
    with pytest.raises(FileError):
        model_signing.digest("s3://models/m")


def test_a_bucket_that_is_silent_is_asked_again(
    lying: LyingS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, waited_for = threading.Event(), list[bool]()

    def answer(request: Request) -> Reply:
        if request.method == "HEAD":
            return Reply(404, b"")
        if not waited_for:
            waited_for.append(True)
            waited_for.append(ended.wait(60))
        date = ("Last-Modified", "Sat, 28 Nov 2026 22:00:00 GMT")
        return Reply(
            206, bytes(100), headers=(("ETag", ETAG), ("Content-Range", "bytes 0-99/100"), date)
        )

    monkeypatch.setitem(object_storage._CLIENT, "read_timeout", "1s")
    lying.keys = [("m/a", 100, f"<ETag>{escape(ETAG)}</ETag>")]
    lying.objects = answer
    model_signing.digest("s3://models/m")
    assert waited_for == [True]  # and nobody waits for it any more
    ended.set()


def test_ctrl_c_is_heard_while_a_bucket_is_silent(
    lying: LyingS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, waited_for = threading.Event(), list[str]()

    def silent(request: Request) -> Reply:
        if not ended.wait(60):
            waited_for.append(request.target)
        return Reply(404, b"")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    lying.objects = silent
    monkeypatch.setattr(ahead, "_HEARD", 0.01)
    monkeypatch.setattr(ahead, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model_signing.digest("s3://models/m")
    ended.set()
    assert not waited_for


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "refused"), (404, "no such"), (412, "changed"), (500, "own"), (429, "too many")],
)
def test_each_failure_has_one_clear_message(lying: LyingS3, status: int, message: str) -> None:
    lying.keys = [("m/a", 100, f"<ETag>{escape(ETAG)}</ETag>")]
    lying.objects = lambda one: Reply(404 if one.method == "HEAD" else status, b"<Error/>")
    with pytest.raises(FileError, match=message) as refusal:
        model_signing.digest("s3://models/m")
    assert refusal.value.where == "s3://models/m/a"
