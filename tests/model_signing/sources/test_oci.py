"""Models in OCI registries: a real one, and one that fails as no real one does when asked to."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import pickle
import socket
import tarfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import oras.client
import pytest

import model_signing
from model_signing import HashOptions
from model_signing.cli import main
from model_signing.errors import Error, FileError, MismatchError
from model_signing.hashing import hash_model
from model_signing.oms.manifest import Serialization
from model_signing.oms.names import Selection
from model_signing.sources import Source, oci, oci_referrers, oci_registry, open_source, remote
from tests.support import registries
from tests.support.material import new_key, private_pem, public_pem
from tests.support.registries import FaultyRegistry, Handler, Layer, push, titled

pytestmark = pytest.mark.slow

KEY = new_key()
SIGN = model_signing.key_signer(private_pem(KEY))
VERIFY = model_signing.key_verifier(public_pem(KEY))
FILES = {"config.json": b'{"layers": 3}', "w/0.bin": b"0" * 50_000, "w/1.bin": b"", "é.txt": b"e"}
LAYERS = [titled(name, data) for name, data in FILES.items()]
SHARDS = HashOptions(method="shards", shard_size=9000)
BLAKE3 = HashOptions(algorithm="blake3")
USER, PASSWORD = "tester", "for tests only"
PASSWORD_HASH = "$2b$04$qMrejqaQQoyNGTeX0EM3buXDtG5785li4bDjobT9eZmGqHQLXf4cy"
IMAGE = "application/vnd.oci.image.config.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
UNPACK = "io.deis.oras.content.unpack"
KITOPS = "application/vnd.kitops.modelkit.model.v1.tar"
MODELPACK = "application/vnd.cncf.model"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registries.started(registries.docker_registry(), tmp_path_factory.mktemp("oci")) as host:
        yield host


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyRegistry]:
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    with registries.faulty() as running:
        yield running


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "model"


def files_of(source: Source) -> dict[str, bytes]:
    entries, _ = source.entries(Selection())
    return {
        name: b"".join(map(bytes, source.read(name, entry, 0, entry.size)))
        for name, entry in entries.items()
    }


def tar(*members: tuple[str, bytes | str], kind: bytes = tarfile.REGTYPE) -> bytes:
    """An archive; text is where a link leads."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


# Layouts


@pytest.mark.parametrize("options", [HashOptions(), SHARDS, BLAKE3], ids=["files", "shards", "b3"])
def test_the_place_does_not_matter(
    registry: str, here: Path, tmp_path: Path, options: HashOptions
) -> None:
    if options is SHARDS:
        (here / "w/1.bin").write_bytes(b"1" * 3500)  # empty files are not signed in shards
    layers = [titled(p.relative_to(here).as_posix(), p.read_bytes()) for p in here.rglob("*.*")]
    digest = push(registry, "org/model", *layers)
    address = f"oci://{registry}/org/model"
    for signed, verified in ((here, f"{address}:v1"), (f"{address}@{digest}", here)):
        made = model_signing.sign(signed, tmp_path / "model.sig", SIGN, options)
        found = model_signing.verify(verified, tmp_path / "model.sig", VERIFY)
        assert found.files == 4
        assert found.manifest.digests == made.manifest.digests
    source = open_source(f"{address}:v1")
    assert str(source) == f"{address}@{digest}"
    assert source.name == "model"
    assert not source.single
    assert files_of(pickle.loads(pickle.dumps(source))) == files_of(source)


def test_what_oras_pushes_is_a_model(
    registry: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    client = oras.client.OrasClient(insecure=True)
    files = ["config.json", "w/0.bin", "w/1.bin"]  # oras names a file without its folder
    assert client.push(target=f"{registry}/by/oras:v1", files=files, quiet=True).ok
    model = f"oci://{registry}/by/oras:v1"
    model_signing.sign(model, tmp_path / "model.sig", SIGN)
    client.pull(target=f"{registry}/by/oras:v1", outdir=str(tmp_path / "pulled"))
    assert model_signing.verify(tmp_path / "pulled", tmp_path / "model.sig", VERIFY).files == 3


def test_a_tag_is_resolved_once(registry: str, tmp_path: Path) -> None:
    first = push(registry, "moving", titled("a", b"first"), titled("b", b""))
    source = open_source(f"oci://{registry}/moving:v1")
    push(registry, "moving", titled("a", b"other"), titled("b", b""))
    assert files_of(source) == {"a": b"first", "b": b""}
    assert str(source).endswith(first)


def test_one_file_is_a_model_of_its_own_name(registry: str, tmp_path: Path) -> None:
    push(registry, "single", titled("model.gguf", b"weights"))
    source = open_source(f"oci://{registry}/single:v1")
    assert source.single
    assert source.name == "model.gguf"
    model_signing.sign(source, tmp_path / "model.sig", SIGN)
    (tmp_path / "model.gguf").write_bytes(b"weights")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/model.gguf").write_bytes(b"weights")
    for model in ("model.gguf", "folder"):
        model_signing.verify(tmp_path / model, tmp_path / "model.sig", VERIFY)


def test_raw_layers_of_modelpack_are_files(registry: str) -> None:
    path = "org.cncf.model.filepath"
    push(
        registry,
        "modelpack",
        Layer(b"{}", f"{MODELPACK}.weight.config.v1.raw", {path: "config.json"}),
        Layer(b"weights", f"{MODELPACK}.weight.v1.raw", {path: "w/model.safetensors"}),
        config=b'{"descriptor": {"name": "m"}}',
        config_kind=f"{MODELPACK}.config.v1+json",
        artifactType=f"{MODELPACK}.manifest.v1+json",
    )
    assert files_of(open_source(f"oci://{registry}/modelpack:v1")) == {
        "config.json": b"{}",
        "w/model.safetensors": b"weights",
    }


def test_tar_layers_of_kitops_are_read_as_archives(registry: str, tmp_path: Path) -> None:
    large = os.urandom(100_000)
    push(
        registry,
        "kitops",
        Layer(tar(("./model/w.bin", large), ("model/" + "long" * 60, b"x")), KITOPS),
        Layer(tar(("docs/README.md", b"# Read me")), KITOPS.replace(".model.", ".docs.")),
    )
    source = open_source(f"oci://{registry}/kitops:v1")
    expected = {"model/w.bin": large, "model/" + "long" * 60: b"x", "docs/README.md": b"# Read me"}
    assert files_of(source) == expected
    model_signing.sign(source, tmp_path / "model.sig", SIGN)
    for name, data in expected.items():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(data)
    assert model_signing.verify(tmp_path / "m", tmp_path / "model.sig", VERIFY).files == 3


def test_a_modelcar_image_has_its_model_below_models(registry: str) -> None:
    base = tar(("bin/sh", b"#!"), ("bin/ls", "sh"), ("models/w.bin", b"old"))
    push(
        registry,
        "modelcar",
        Layer(base, TAR),
        Layer(tar(("models/w.bin", b"new"), ("models/sub/a", b"a")), TAR),
        config=b'{"rootfs": {}}',
        config_kind=IMAGE,
    )
    files = files_of(open_source(f"oci://{registry}/modelcar:v1"))
    assert files == {"w.bin": b"new", "sub/a": b"a"}  # an upper layer covers what is below it


@pytest.mark.parametrize("kind", ["gzip", "a folder of oras", "of another type", "plain"])
@pytest.mark.parametrize("options", [HashOptions(), SHARDS, BLAKE3], ids=["files", "shards", "b3"])
def test_an_archive_is_read_once_unless_a_copy_is_made(
    faulty: FaultyRegistry, tmp_path: Path, kind: str, options: HashOptions
) -> None:
    files = {"d/w.bin": os.urandom(50_000), "d/a": b"a" * 3000, "d/z": os.urandom(5000)}
    data = tar(*files.items())
    half = data[:20_480], data[20_480:]
    layer = {
        "gzip": Layer(b"".join(map(gzip.compress, half)), f"{TAR}+gzip"),  # as pigz writes it
        "a folder of oras": Layer(gzip.compress(data), f"{TAR}+gzip", {registries.TITLE: "d"}),
        "of another type": Layer(
            gzip.compress(data), "application/x", {registries.TITLE: "d", UNPACK: "true"}
        ),
        "plain": Layer(data, KITOPS),
    }[kind]
    push(faulty.host, "m", layer)
    address = f"oci://{faulty.host}/m:v1"
    made = model_signing.sign(address, tmp_path / "model.sig", SIGN, options)
    asked = [path for method, path, _ in faulty.requests if method == "GET" and "/blobs/" in path]
    assert (len(asked) == 1) is (options == HashOptions())
    for name, content in files.items():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(content)
    found = model_signing.verify(tmp_path / "m", tmp_path / "model.sig", VERIFY)
    assert found.manifest.digests == made.manifest.digests
    copied = model_signing.verify(address, tmp_path / "model.sig", VERIFY, copy_to=tmp_path / "c")
    assert {name: (tmp_path / "c" / name).read_bytes() for name in files} == files
    with copied.open("d/z") as file:
        assert file.read() == files["d/z"]
    # What is sent the second time is looked at, too.
    source = open_source(address)
    entries, _ = source.entries(Selection())
    for evil in (
        tar(*((name, b"evil") for name in files)),
        gzip.compress(b"evil"),
        b"evil" * 20_000,
    ):
        faulty.blobs[registries.digest_of(layer.data)] = evil
        with pytest.raises(FileError):
            hash_model(source, entries, Serialization("files", "blake3", None, False, ()))


REFUSED: dict[str, tuple[list[Layer], dict[str, object], str]] = {
    "zstd": ([Layer(b"junk", f"{MODELPACK}.weight.v1.tar+zstd")], {}, "compression of a layer"),
    "no gzip": (
        [Layer(b"junk", "application/vnd.docker.image.rootfs.diff.tar.gzip")],
        {},
        "is no tar archive",
    ),
    "cut gzip": (
        [Layer(gzip.compress(tar(("a", os.urandom(500))))[:-9], f"{TAR}+gzip")],
        {},
        "is no tar archive",
    ),
    "more than gzip": (
        [Layer(gzip.compress(tar(("a", b"a"))) + b"junk", f"{TAR}+gzip")],
        {},
        "is no tar archive",
    ),
    "no name": ([Layer(b"x")], {}, "a layer has no name"),
    "no tar": ([Layer(b"junk" * 300, KITOPS)], {}, "is no tar archive"),
    "cut tar": ([Layer(tar(("a", b"a" * 5000))[:2000], KITOPS)], {}, "is no tar archive"),
    "link": ([Layer(tar(("a", "/etc/passwd")), KITOPS)], {}, "a link, a device or a removal"),
    "whiteout": (
        [Layer(tar(("models/.wh.a", b""), ("models/b", b"")), TAR)],
        {"config_kind": IMAGE},
        "a link, a device or a removal",
    ),
    **{
        f"in place of a modelcar's folder, by {name!r}": (
            [Layer(tar(("models/w", b"good")), TAR), Layer(tar((name, content)), TAR)],
            {"config_kind": IMAGE},
            message,
        )
        for name, content, message in (
            ("models", "evil", "something else in place of its model"),
            (".wh.models", b"", "something else in place of its model"),
            (".wh..wh..opq", b"", "something else in place of its model"),
            ("/models/w", b"evil", "not canonical"),
            ("a/../models/w", b"evil", "not canonical"),
            ("models/../models/w", b"evil", "not canonical"),
            (".//models/w", b"evil", "not canonical"),
            ("models/w", "/evil", "a link, a device or a removal"),
            ("models/.wh..wh..opq", b"", "a link, a device or a removal"),
        )
    },
    "up": ([titled("../evil", b"x")], {}, "leads out of the model"),
    "up in a tar": ([Layer(tar(("a/../../evil", b"x")), KITOPS)], {}, "leads out of the model"),
    "absolute": ([titled("/etc/passwd", b"x")], {}, "is absolute"),
    "control": ([titled("a\nb", b"x")], {}, "control characters"),
    "twice": ([titled("a", b"x"), titled("a", b"y")], {}, "listed twice"),
    "file and folder": ([titled("a", b"x"), titled("a/b", b"y")], {}, "a file and a folder"),
    "no layers": ([], {}, "no list of layers"),
    "index": ([], {"manifests": [{"digest": "sha256:aa"}]}, "a list of manifests"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model_is_refused_by_name(faulty: FaultyRegistry, case: str) -> None:
    layers, changes, message = REFUSED[case]
    push(faulty.host, "m", *layers, **changes)
    with pytest.raises(FileError, match=message) as refusal:
        model_signing.digest(f"oci://{faulty.host}/m:v1")
    assert refusal.value.where


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": [{"mediaType": "a", "digest": "sha256:" + "0" * 64, "size": -1}]},
        {"layers": [{"mediaType": "a", "digest": "sha256:" + "0" * 64, "size": 1e3}]},
        {"layers": [{"mediaType": "a", "digest": "sha256:" + "0" * 64, "size": True}]},
        {"layers": [{"mediaType": "a", "digest": "sha512:" + "0" * 128, "size": 1}]},
        {"layers": [{"mediaType": "a", "digest": "../../secret", "size": 1}]},
        {"layers": [{"mediaType": 1, "digest": "sha256:" + "0" * 64, "size": 1}]},
        {"layers": [{"digest": "sha256:" + "0" * 64}]},
        {"layers": {"a": 1}},
        {"layers": [[]]},
        {
            "layers": [
                {
                    "mediaType": "a",
                    "digest": "sha256:" + "0" * 64,
                    "size": 1,
                    "annotations": {registries.TITLE: ["a"]},
                }
            ]
        },
    ],
)
def test_a_malformed_manifest_is_refused(
    faulty: FaultyRegistry, changes: dict[str, object]
) -> None:
    push(faulty.host, "m", **changes)
    with pytest.raises(FileError):
        model_signing.digest(f"oci://{faulty.host}/m:v1")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"layers":[],"layers":[]}', b"\xff", b"1"])
def test_a_manifest_that_is_no_json_object_is_refused(faulty: FaultyRegistry, data: bytes) -> None:
    faulty.manifests["v1"] = (registries.MANIFEST, data)
    with pytest.raises(FileError):
        model_signing.digest(f"oci://{faulty.host}/m:v1")


@pytest.mark.parametrize(
    "address",
    [
        "oci://127.0.0.1/m",
        "oci://127.0.0.1",
        "oci://",
        "oci://127.0.0.1/Model:v1",
        "oci://user:secret@127.0.0.1/m:v1",
        "oci://127.0.0.1/m:v1?x=1",
        "oci://127.0.0.1/../m:v1",
        "oci://127.0.0.1/m@sha256:abc",
        "oci://127.0.0.1/m@sha512:" + "0" * 128,
        "oci://[:::::]/m:v1",
        "oci://127.0.0.1:99999/m:v1",
        "oci://127.0.0.1:0/m:v1",
    ],
)
def test_a_malformed_address_is_refused_before_any_request(address: str) -> None:
    with pytest.raises(FileError, match="not the address of a model in a registry"):
        open_source(address)


# What a registry sends


@pytest.mark.parametrize("options", [HashOptions(), SHARDS, BLAKE3], ids=["files", "shards", "b3"])
def test_other_bytes_than_the_digest_names_are_never_signed(
    faulty: FaultyRegistry, tmp_path: Path, options: HashOptions
) -> None:
    push(faulty.host, "m", titled("w.bin", b"good" * 1000), titled("a", b"a"))
    faulty.blobs[registries.digest_of(b"good" * 1000)] = b"evil" * 1000
    with pytest.raises(FileError, match="other bytes than the digest") as refusal:
        model_signing.sign(f"oci://{faulty.host}/m:v1", tmp_path / "model.sig", SIGN, options)
    assert "w.bin" in (refusal.value.where or "")
    assert not (tmp_path / "model.sig").exists()


def test_another_manifest_than_the_digest_names_is_refused(faulty: FaultyRegistry) -> None:
    digest = push(faulty.host, "m", titled("a", b"good"))
    push(faulty.host, "m", titled("a", b"evil"))
    faulty.manifests[digest] = faulty.manifests["v1"]
    with pytest.raises(FileError, match="other bytes than the digest names"):
        open_source(f"oci://{faulty.host}/m@{digest}")


def test_a_tar_layer_with_another_digest_is_refused(faulty: FaultyRegistry) -> None:
    layer = Layer(tar(("a", b"good")), KITOPS)
    push(faulty.host, "m", layer)
    faulty.blobs[registries.digest_of(layer.data)] = tar(("a", b"evil"))
    with pytest.raises(FileError, match="other bytes than the digest names"):
        model_signing.digest(f"oci://{faulty.host}/m:v1")


def test_a_tar_with_an_endless_header_is_refused_in_bounded_memory(faulty: FaultyRegistry) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 33
    push(faulty.host, "m", Layer(header.tobuf(tarfile.PAX_FORMAT) + b"x" * 5000, KITOPS))
    with pytest.raises(FileError, match="no tar archive"):
        model_signing.digest(f"oci://{faulty.host}/m:v1")


def header(name: str, kind: bytes = tarfile.REGTYPE, **bytes_at: bytes) -> bytes:
    """A header of an empty file, with other bytes at some offsets."""
    data = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    data[156:157] = kind
    for at, value in bytes_at.items():
        data[int(at[1:]) : int(at[1:]) + len(value)] = value
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


@pytest.mark.parametrize(
    "between",
    [header("x")[:148] + b"7777777\0" + header("x")[156:], b"\0" * 512],
    ids=["a header that is none", "an empty block"],
)
def test_nothing_is_passed_over_behind_what_looks_like_the_end_of_a_tar(
    faulty: FaultyRegistry, between: bytes
) -> None:
    seen = tar(("a", b"1"))[:1024]
    push(faulty.host, "m", Layer(seen + between + tar(("evil.py", b"2")), KITOPS))
    with pytest.raises(FileError, match="no tar archive") as refused:
        model_signing.digest(f"oci://{faulty.host}/m:v1")
    assert refused.value.found == "something follows the end of the archive"


def test_a_tar_whose_headers_go_on_and_on_is_refused_in_bounded_memory(
    faulty: FaultyRegistry,
) -> None:
    sparse = header("s", tarfile.GNUTYPE_SPARSE, _482=b"\1")
    more = b"00000000001\0" * 42 + b"\1" + b"\0" * 7
    data = gzip.compress(sparse + more * 20_000, 1)
    push(faulty.host, "m", Layer(data, f"{KITOPS}+gzip"))
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="no tar archive"):
            model_signing.digest(f"oci://{faulty.host}/m:v1")
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_name_for_all_files_that_follow_is_refused(faulty: FaultyRegistry) -> None:
    for_all = tarfile.TarInfo.create_pax_global_header({"path": "z"})
    push(faulty.host, "m", Layer(for_all + tar(("a", b"1"), ("b", b"2")), KITOPS))
    with pytest.raises(FileError, match="no tar archive"):
        model_signing.digest(f"oci://{faulty.host}/m:v1")


def test_a_header_of_a_tar_may_come_in_two_pieces() -> None:
    """Of which the first is gone when the second is there."""
    archive, room = tar(("n" * 2000, b"1" * 2000), ("b", b"2")), bytearray(700)

    def pieces() -> Iterator[memoryview]:
        for start in range(0, len(archive), len(room)):
            part = archive[start : start + len(room)]
            room[: len(part)] = part
            yield memoryview(room)[: len(part)]

    found = list(oci.oci_tar.Layer(pieces(), gzipped=False).members())
    assert [(one.name, one.size) for one in found] == [("n" * 2000, 2000), ("b", 1)]


def test_a_tar_of_too_many_files_is_refused_before_all_of_them_are_kept(
    faulty: FaultyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    member_of = oci.oci_tar.Member

    def noted(name: str, start: int, size: int, sha256: str | None) -> oci.oci_tar.Member:
        read.append(name)
        return member_of(name, start, size, sha256)

    monkeypatch.setattr(remote, "MAX_LISTED", 10)
    monkeypatch.setattr(oci.oci_tar, "Member", noted)
    push(faulty.host, "m", Layer(tar(*((f"{n}", b"") for n in range(1000))), KITOPS))
    with pytest.raises(FileError, match="too many files"):
        model_signing.digest(f"oci://{faulty.host}/m:v1")
    assert len(read) < 20


def test_a_registry_without_ranges_is_read_all_the_same(
    faulty: FaultyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PIECE", 1000)
    monkeypatch.setattr(remote, "ROOM", 1000)
    monkeypatch.setattr(remote, "JUDGED", 0.0)
    monkeypatch.setattr(oci_registry, "_BUFFER", 700)
    data = os.urandom(5500)
    push(faulty.host, "m", titled("w.bin", data), titled("a", b"a"))
    faulty.ranges = False
    source = open_source(f"oci://{faulty.host}/m:v1")
    faulty.requests.clear()
    assert files_of(source) == {"w.bin": data, "a": b"a"}
    assert len(faulty.requests) == 2  # each file from its start
    entries, _ = source.entries(Selection())
    part = map(bytes, source.read("w.bin", entries["w.bin"], 900, 4000))
    assert b"".join(part) == data[900:4000]
    faulty.fault = once(cut_of(data, 2000))
    assert files_of(source) == {"w.bin": data, "a": b"a"}
    faulty.fault = cut_of(data, 1000, promised=1000)
    with pytest.raises(FileError, match="other bytes than were asked for"):
        list(source.read("w.bin", entries["w.bin"], 0, 5500))


def cut_of(data: bytes, sent: int, promised: int = 5500) -> Callable[[Handler], bool]:
    def part(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(promised))
        handler.end_headers()
        handler.wfile.write(data[:sent])
        return promised == sent or hang_up(handler)

    return part


def once(fault: Callable[[Handler], bool], what: str = "/blobs/") -> Callable[[Handler], bool]:
    """Only the first request whose path has this."""
    met: list[str] = []
    lock = threading.Lock()

    def first(handler: Handler) -> bool:
        with lock:
            if met or what not in handler.path:
                return False
            met.append(handler.path)
        return fault(handler)

    return first


def cut(handler: Handler) -> bool:
    """Half of what was promised, then the connection ends."""
    handler.send_response(206)
    handler.send_header("Content-Range", "bytes 0-999/1000")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x" * 500)
    return hang_up(handler)


def answering(status: int, **headers: str) -> Callable[[Handler], bool]:
    def answer(handler: Handler) -> bool:
        registries.refuse(handler, status, "TEST", **headers)
        return True

    return answer


def hang_up(handler: Handler) -> bool:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
    return True


PASSING = {
    "cut": cut,
    "503": answering(503),
    "429": answering(429, retry_after="1"),
    "500": answering(500),
    "hang up": hang_up,
}


@pytest.mark.parametrize("case", PASSING)
def test_a_failure_in_the_middle_is_made_up_for(faulty: FaultyRegistry, case: str) -> None:
    push(faulty.host, "m", titled("w.bin", b"x" * 1000), titled("a", b"a"))
    source = open_source(f"oci://{faulty.host}/m:v1")
    faulty.fault = once(PASSING[case])
    assert files_of(source) == {"w.bin": b"x" * 1000, "a": b"a"}


def shorter(handler: Handler) -> bool:
    registries.send(handler, 206, b"x" * 10, content_range="bytes 0-9/1000")
    return True


def longer(handler: Handler) -> bool:
    registries.send(handler, 206, b"x" * 2000, content_range="bytes 0-1999/2000")
    return True


def other_range(handler: Handler) -> bool:
    registries.send(handler, 206, b"x" * 1000, content_range="bytes 5-1004/2000")
    return True


def packed(handler: Handler) -> bool:
    registries.send(handler, 200, gzip.compress(b"x" * 1000), content_encoding="gzip")
    return True


def to_a_file(handler: Handler) -> bool:
    registries.send(handler, 307, b"", location="file:///etc/passwd?key=secret")
    return True


LASTING: dict[str, tuple[Callable[[Handler], bool], str]] = {
    "401": (answering(401), "asks for a credential"),
    "403": (answering(403), "access is refused"),
    "404": (answering(404), "no such model or file"),
    "416": (answering(416), "shorter than it was listed"),
    "429": (answering(429), "too many requests"),
    "429 for an hour": (answering(429, retry_after="3600"), "too many requests"),
    "503": (answering(503), "a failure of its own"),
    "418": (answering(418), "HTTP 418: TEST: said by the test"),
    "cut": (cut, "the registry cannot be reached"),
    "hang up": (hang_up, "the registry cannot be reached"),
    "shorter": (shorter, "other bytes than were asked for"),
    "longer": (longer, "more bytes than were asked for"),
    "other range": (other_range, "other bytes than were asked for"),
    "packed": (packed, "other bytes than were asked for"),
    "to a file": (to_a_file, "the registry cannot be reached"),
}


@pytest.mark.parametrize("case", LASTING)
def test_what_lasts_is_told_once_and_nothing_is_signed(
    faulty: FaultyRegistry, tmp_path: Path, case: str
) -> None:
    fault, message = LASTING[case]
    push(faulty.host, "m", titled("w.bin", b"x" * 1000), titled("a", b"a" * 1000))
    faulty.fault = lambda handler: "/blobs/" in handler.path and fault(handler)
    with pytest.raises(FileError, match=message) as refusal:
        model_signing.sign(f"oci://{faulty.host}/m:v1", tmp_path / "model.sig", SIGN)
    assert faulty.host in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert not (tmp_path / "model.sig").exists()


def test_a_registry_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    with registries.faulty() as stopped:
        address = f"oci://{stopped.host}/m:v1"
    with pytest.raises(FileError, match="cannot be reached") as refusal:
        open_source(address)
    assert refusal.value.found == "Connection refused"
    with pytest.raises(FileError, match="cannot be reached"):
        open_source("oci://registry.invalid/m:v1")


def test_no_such_tag_and_no_such_repository_are_told(registry: str) -> None:
    push(registry, "there", titled("a", b"a"))
    for name in ("there:v2", "nowhere:v1", "there@sha256:" + "0" * 64):
        with pytest.raises(FileError, match="no such model") as refusal:
            open_source(f"oci://{registry}/{name}")
        assert refusal.value.where == f"oci://{registry}/{name}"


@pytest.mark.parametrize("place", ["http://[", "http://x:99999/", "file:///etc/passwd"])
def test_an_address_that_is_none_is_told(faulty: FaultyRegistry, here: Path, place: str) -> None:
    push(faulty.host, "m", titled("a", b"a"), titled("b", b"b"))
    source, bundle = open_source(f"oci://{faulty.host}/m:v1"), signature_of(here)

    def misleading(handler: Handler) -> bool:
        if "/blobs/" in handler.path and handler.command == "GET":
            registries.send(handler, 307, b"", location=place)
        elif handler.command == "POST":
            registries.send(handler, 202, b"", location=place)
        elif "/referrers/" in handler.path:
            registries.send(handler, 200, b'{"manifests": []}', link=f'<{place}>; rel="next"')
        else:
            return False
        return True

    faulty.fault = misleading
    with pytest.raises(FileError):
        files_of(source)
    with pytest.raises(FileError):
        source.attach(bundle)
    with pytest.raises(FileError):
        list(source.signatures())


# Who we are


def log_in(folder: Path, host: str, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    """As `docker login` notes it."""
    both = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": both}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


def test_credentials_are_those_of_docker_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = tmp_path / "users"
    users.write_text(f"{USER}:{PASSWORD_HASH}\n")
    more = f"auth: {{htpasswd: {{realm: tests, path: {users}}}}}\n"
    with registries.started(registries.docker_registry(), tmp_path, more) as host:
        push(host, "private", *LAYERS, auth=(USER, PASSWORD))
        address = f"oci://{host}/private:v1"
        with pytest.raises(FileError, match="asks for a credential") as refusal:
            open_source(address)
        assert refusal.value.fix == f"log in with `docker login {host}`, or check the name"
        log_in(tmp_path, host, monkeypatch, "another")
        with pytest.raises(FileError, match="asks for a credential"):
            open_source(address)
        log_in(tmp_path, host, monkeypatch, PASSWORD)
        assert files_of(pickle.loads(pickle.dumps(open_source(address)))) == FILES
        # Those at home count where no other folder is named, and are not mixed with it.
        home = tmp_path / "home"
        (home / ".docker").mkdir(parents=True)
        (tmp_path / "config.json").rename(home / ".docker/config.json")
        monkeypatch.setenv("HOME", str(home))
        with pytest.raises(FileError, match="asks for a credential"):
            open_source(address)
        monkeypatch.delenv("DOCKER_CONFIG")
        assert files_of(open_source(address)) == FILES
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        (tmp_path / "config.json").write_text("junk")
        with pytest.raises(FileError, match="credentials cannot be read"):
            open_source(address)


@pytest.fixture
def tokens(faulty: FaultyRegistry) -> Iterator[FaultyRegistry]:
    """Sells tokens for that registry, each good for five requests."""
    left = {"": 0}

    def sell(handler: Handler) -> bool:
        token = f"token-{len(left)}"
        left[token] = 5
        registries.send(handler, 200, json.dumps({"token": token}).encode())
        return True

    with registries.faulty() as seller:
        seller.fault = sell

        def ask(handler: Handler) -> bool:
            token = handler.headers.get("authorization", "").removeprefix("Bearer ")
            left[token] = left.get(token, 0) - 1
            if left[token] < 0:
                realm = f'Bearer realm="http://{seller.host}/token",service="tests",scope="pull"'
                registries.refuse(handler, 401, "UNAUTHORIZED", www_authenticate=realm)
                return True
            return False

        push(faulty.host, "m", *LAYERS)
        faulty.fault = ask
        yield seller


def test_a_token_is_bought_and_bought_again_when_it_is_too_old(
    faulty: FaultyRegistry,
    tokens: FaultyRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = open_source(f"oci://{faulty.host}/m:v1")
    assert "Authorization" not in tokens.requests[0][2]
    for _ in range(4):
        assert files_of(source) == FILES
    log_in(tmp_path, faulty.host, monkeypatch, PASSWORD)
    tokens.requests.clear()
    open_source(f"oci://{faulty.host}/m:v1")
    assert tokens.requests[0][2]["Authorization"].startswith("Basic ")


def test_a_token_is_never_sent_to_another_host(
    faulty: FaultyRegistry, tokens: FaultyRegistry
) -> None:
    """Neither where a blob was moved to, nor on the next page of a list, nor to upload."""
    source = open_source(f"oci://{faulty.host}/m:v1")
    with registries.faulty() as storage:
        storage.blobs = faulty.blobs
        elsewhere = f"http://localhost:{storage.server.port}"
        ask = faulty.fault

        def move(handler: Handler) -> bool:
            if ask(handler):
                return True
            if "/blobs/" in handler.path and handler.command == "GET":
                registries.send(handler, 307, b"", location=elsewhere + handler.path)
                return True
            if "/referrers/" in handler.path:
                link = f'<{elsewhere}/v2/m/referrers/next>; rel="next"'
                registries.send(handler, 200, b'{"manifests": []}', link=link)
                return True
            if handler.command == "POST":
                registries.send(handler, 202, b"", location=f"{elsewhere}/upload")
                return True
            return False

        faulty.fault = move
        assert files_of(source) == FILES
        assert {path for _, path, _ in storage.requests}
        assert not any("authorization" in map(str.lower, h) for *_, h in storage.requests)
        storage.requests.clear()
        with pytest.raises(FileError, match="sends us to another host"):
            list(source.signatures())
        bundle = model_signing.sign(source, None, SIGN).bundle
        storage.requests.clear()
        with pytest.raises(FileError, match="sends us to another host"):
            source.attach(bundle)
        assert storage.requests == []
        # And what that host asks for is not answered.
        storage.fault = answering(401, www_authenticate=f'Bearer realm="{elsewhere}/token"')
        with pytest.raises(FileError, match="asks for a credential"):
            files_of(source)
        assert not any("token" in path for _, path, _ in storage.requests)


# Signatures that lie there


def signature_of(here: Path) -> bytes:
    return model_signing.sign(here, None, SIGN).bundle


@pytest.mark.parametrize("referrers", [False, True], ids=["tag", "list"])
def test_signatures_are_attached_and_found(
    faulty: FaultyRegistry, here: Path, tmp_path: Path, referrers: bool
) -> None:
    faulty.referrers = referrers
    digest = push(faulty.host, "m", *LAYERS)
    source = open_source(f"oci://{faulty.host}/m:v1")
    assert list(source.signatures()) == []
    other = model_signing.key_signer(private_pem(new_key()))
    bundles = [signature_of(here), model_signing.sign(here, None, other).bundle]
    places = [source.attach(bundle) for bundle in bundles]
    found = dict(source.signatures())
    assert sorted(found) == sorted(places)
    assert sorted(found.values()) == sorted(bundles)
    assert (f"sha256-{digest[7:]}" in faulty.manifests) is not referrers
    assert source.attach(bundles[0])  # once more does no harm
    assert bundles[0] in dict(source.signatures()).values()


def test_a_signature_is_a_referrer_as_cosign_writes_it(registry: str, here: Path) -> None:
    digest = push(registry, "attached", *LAYERS)
    source = open_source(f"oci://{registry}/attached:v1")
    bundle = signature_of(here)
    place = source.attach(bundle)
    client = oras.client.OrasClient(insecure=True)
    manifest = client.get_manifest(place.removeprefix("oci://"))
    bundle_type = "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert manifest["artifactType"] == bundle_type
    assert manifest["subject"]["digest"] == digest
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == bundle_type
    assert manifest["annotations"]["dev.sigstore.bundle.content"] == "dsse-envelope"
    assert (
        manifest["annotations"]["dev.sigstore.bundle.predicateType"]
        == "https://model_signing/signature/v1.0"
    )
    index = client.get_manifest(f"{registry}/attached:sha256-{digest[7:]}")
    (listed,) = index["manifests"]
    assert listed["digest"] == place.partition("@")[2]
    assert listed["artifactType"] == bundle_type
    blob = client.get_blob(f"{registry}/attached", layer["digest"])
    assert blob.content == bundle


def test_the_registry_of_today_does_the_same(tmp_path: Path, here: Path) -> None:
    with registries.started(registries.built("registry"), tmp_path) as host:
        push(host, "org/model", *LAYERS)
        address = f"oci://{host}/org/model:v1"
        made = model_signing.sign(address, None, SIGN, attach=True)
        found = model_signing.verify(address, None, VERIFY, copy_to=tmp_path / "copy")
        assert found.signature == made.attached
        assert model_signing.digest(tmp_path / "copy") == model_signing.digest(here)
        assert found.manifest == made.manifest


def test_a_signature_can_have_a_tag_of_its_own(registry: str, here: Path) -> None:
    push(registry, "tagged", *LAYERS)
    bundle, place = signature_of(here), f"oci://{registry}/tagged:signature"
    assert oci.read_file(place, 1 << 20) is None
    oci.write_file(place, bundle)
    assert oci.read_file(place, 1 << 20) == bundle
    assert len(oci.read_file(place, 100) or b"") == 100
    with pytest.raises(FileError, match="a model, or something else"):
        oci.read_file(f"oci://{registry}/tagged:v1", 1 << 20)
    with pytest.raises(FileError, match="address with a digest"):
        oci.write_file(f"oci://{registry}/tagged@sha256:{'0' * 64}", bundle)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `model_signing` beside two keys; its exit code, output and errors."""
    for name, key in (("key", KEY), ("other", new_key())):
        (tmp_path / f"{name}.pem").write_bytes(private_pem(key))
        (tmp_path / f"{name}.pub").write_bytes(public_pem(key))

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--no-progress"])
        return code, *capsys.readouterr()

    return command


def test_sign_attach_and_verify_need_no_file(registry: str, run: Run, tmp_path: Path) -> None:
    digest = push(registry, "org/by-command", *LAYERS)
    address, place = f"oci://{registry}/org/by-command:v1", f"oci://{registry}/org/by-command@"
    code, _, error = run("verify", "key", address, "--public-key", "key.pub")
    assert (code, "no signature lies with the model" in error) == (1, True)
    before = sorted(tmp_path.iterdir())
    for key in ("other", "key"):
        code, out, _ = run(
            *("sign", "key", address, "--private-key", f"{key}.pem", "--attach", "--format=json")
        )
        signed = json.loads(out)
        assert code == 0
        assert signed["signature"].startswith(place)
        assert signed["resolved"] == f"{place}{digest}"
    assert sorted(tmp_path.iterdir()) == before
    code, out, _ = run(
        *("verify", "key", address, "--public-key", "key.pub", "--format=json", "--copy-to=copy")
    )
    found = json.loads(out)
    assert code == 0
    assert found["signature"] == signed["signature"]
    (other,) = found["other_signatures"]
    assert other.startswith(place)
    assert {
        path.relative_to(tmp_path / "copy").as_posix(): path.read_bytes()
        for path in (tmp_path / "copy").rglob("*")
        if path.is_file()
    } == FILES
    # By its address; and of somebody whom nobody expects.
    named = ("verify", "key", address, "--public-key", "key.pub", "--signature")
    assert run(*named, found["signature"])[0] == 0
    code, _, error = run(*named, other)
    assert code == 1
    (tmp_path / "third.pub").write_bytes(public_pem(new_key()))
    assert run("verify", "key", address, "--public-key", "third.pub")[0] == 1
    # Another model under the same tag has none.
    push(registry, "org/by-command", titled("config.json", b"{}"), titled("w", b""))
    code, _, error = run("verify", "key", address, "--public-key", "key.pub")
    assert (code, "no signature lies with the model" in error) == (1, True)


def test_attach_and_a_file_and_what_cannot_be_attached(
    registry: str, here: Path, run: Run, tmp_path: Path
) -> None:
    push(registry, "org/both", *LAYERS)
    address = f"oci://{registry}/org/both:v1"
    sign = ("sign", "key", "--private-key", "key.pem", "--format=json", "--attach")
    code, out, _ = run(*sign, address, "--signature", "model.sig")
    assert code == 0
    assert json.loads(out)["signature"] == "model.sig"
    data = oci.read_file(json.loads(out)["attached"], 1 << 20)
    assert data == (tmp_path / "model.sig").read_bytes()
    assert run(*sign, address, address)[0] == 0
    wrong = [(str(here),), (address, address, "--signature=x"), (address, "--signature-name=x")]
    for arguments in wrong:
        code, out, _ = run(*sign, *arguments)
        assert (code, json.loads(out)["error"]) == (2, "UsageError")


def test_what_may_not_be_pushed_is_told_before_anything_is_signed(
    faulty: FaultyRegistry, here: Path
) -> None:
    push(faulty.host, "m", *LAYERS)
    faulty.fault = lambda handler: handler.command == "POST" and answering(403)(handler)
    faulty.blobs.pop(registries.digest_of(b"{}"))
    signed: list[bytes] = []
    with pytest.raises(FileError, match="access is refused"):
        model_signing.sign(
            f"oci://{faulty.host}/m:v1", None, lambda data: signed.append(data) or b"", attach=True
        )
    assert signed == []
    assert not any("/blobs/" in path for method, path, _ in faulty.requests if method == "GET")


@pytest.mark.parametrize("times", [1, 9])
def test_a_list_that_somebody_else_writes_at_once_is_written_again(
    faulty: FaultyRegistry, here: Path, times: int
) -> None:
    digest = push(faulty.host, "m", *LAYERS)
    source, bundle = open_source(f"oci://{faulty.host}/m:v1"), signature_of(here)
    tag, left = f"sha256-{digest[7:]}", times
    other = json.dumps({"manifests": [{"digest": digest}]}).encode()

    def overwritten(handler: Handler) -> bool:
        nonlocal left
        if handler.command != "PUT" or not handler.path.endswith(tag) or not left:
            return False
        left -= 1
        handler.rfile.read(int(handler.headers["content-length"]))
        faulty.manifests[tag] = (registries.MANIFEST, other)  # before it hears that it was written
        registries.send(handler, 201, b"")
        return True

    faulty.fault = overwritten
    if times == 9:
        with pytest.raises(FileError, match="others change the list"):
            source.attach(bundle)
        return
    source.attach(bundle)
    assert list(dict(source.signatures()).values()) == [bundle]
    assert digest in [one["digest"] for one in json.loads(faulty.manifests[tag][1])["manifests"]]


def test_a_list_that_lies_does_no_harm(faulty: FaultyRegistry, here: Path) -> None:
    """Of another model's signatures, things that are no bundles, and what is not there."""
    digest = push(faulty.host, "m", titled("a", b"another"))
    other = open_source(f"oci://{faulty.host}/m:v1")
    stolen = other.attach(signature_of(here)).partition("@")[2]
    mine = push(faulty.host, "m", *LAYERS)
    source = open_source(f"oci://{faulty.host}/m:v1")
    listed = json.loads(faulty.manifests[f"sha256-{digest[7:]}"][1])["manifests"]
    junk = {**listed[0], "digest": "sha256:" + "1" * 64}
    index = {"manifests": [*listed, junk, {"digest": "../../x"}, 7, {**listed[0], "digest": mine}]}
    tag = f"sha256-{mine[7:]}"
    faulty.manifests[tag] = (registries.MANIFEST, json.dumps(index).encode())
    assert stolen in json.dumps(index)
    assert list(source.signatures()) == []
    for wrong in (b"[]", b'{"manifests": {}}', b"junk"):
        faulty.manifests[tag] = (registries.MANIFEST, wrong)
        with pytest.raises(FileError):
            list(source.signatures())
        with pytest.raises(FileError):
            source.attach(signature_of(here))
        assert faulty.manifests[tag][1] == wrong  # what others wrote is not replaced


def test_a_list_without_end_is_refused(
    faulty: FaultyRegistry, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci_referrers, "_MAX_REFERRERS", 20)
    monkeypatch.setattr(oci_referrers, "_MAX_PAGES", 20)
    push(faulty.host, "m", *LAYERS)
    source = open_source(f"oci://{faulty.host}/m:v1")
    source.attach(signature_of(here))
    tag, (kind, data) = next(
        (tag, found) for tag, found in faulty.manifests.items() if tag.startswith("sha256-")
    )
    (one,) = json.loads(data)["manifests"]
    many = [{**one, "digest": f"sha256:{number:064x}"} for number in range(30)]
    faulty.manifests[tag] = (kind, json.dumps({"manifests": many}).encode())
    with pytest.raises(FileError, match="more lies with the model"):
        list(source.signatures())

    def endless(handler: Handler) -> bool:
        if "/referrers/" not in handler.path:
            return False
        registries.send(handler, 200, b'{"manifests": []}', link=f'<{handler.path}>; rel="next"')
        return True

    faulty.fault = endless
    with pytest.raises(FileError, match="more lies with the model"):
        list(source.signatures())


def test_only_a_bundle_is_attached(faulty: FaultyRegistry) -> None:
    push(faulty.host, "m", *LAYERS)
    source = open_source(f"oci://{faulty.host}/m:v1")
    before = len(faulty.requests)
    with pytest.raises(Error):
        source.attach(b"{}")
    assert len(faulty.requests) == before


def test_a_signature_that_lists_the_config_is_told_apart(
    faulty: FaultyRegistry, tmp_path: Path
) -> None:
    """As the Go port signs what is in a registry."""
    files = {"w.bin": b"weights", "a": b"a"}
    layers = [titled(name, data) for name, data in files.items()]
    push(faulty.host, "m", *layers, config=b'{"a": 1}')
    (tmp_path / "as-go-sees-it").mkdir()
    for name, data in {**files, "config.json": b'{"a": 1}'}.items():
        (tmp_path / "as-go-sees-it" / name).write_bytes(data)
    model_signing.sign(tmp_path / "as-go-sees-it", tmp_path / "model.sig", SIGN)
    with pytest.raises(MismatchError, match="manifest's config"):
        model_signing.verify(f"oci://{faulty.host}/m:v1", tmp_path / "model.sig", VERIFY)
