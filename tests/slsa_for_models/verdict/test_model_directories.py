"""Models that are folders: which files they have, under which names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import model_signing
from model_signing import HashOptions, SigstoreSigning, sigstore_signer
from slsa_for_models.evidence import subjects
from tests.support.crafted import SOURCE, TRAIN, Json, Workshop, github_statement, refusals

EXPECTED = ("--source-uri", SOURCE, "--builder-id", TRAIN)


def test_directory_by_name_and_digest(workshop: Workshop) -> None:
    model = workshop.directory()
    provenance = workshop.train_provenance(model)
    signature = workshop.sign_model(model)
    options = ("--provenance", provenance, *EXPECTED)
    assert workshop.verify(model, *options)[0] == 0
    assert workshop.verify(model, *options, "--signature", signature)[0] == 0
    moved = model.rename(model.with_name("renamed"))
    assert workshop.verify(moved, *options)[0] == 0


def damage(kind: str, model: Path) -> None:
    first, second = model / "variables" / "0000", model / "variables" / "0001"
    if kind == "flipped":
        first.write_bytes(b"x")
    elif kind == "added":
        (model / "extra").write_bytes(b"")
    elif kind == "removed":
        first.unlink()
    elif kind == "renamed":
        first.rename(model / "variables" / "0000x")
    elif kind == "swapped":
        one, two = first.read_bytes(), second.read_bytes()
        first.write_bytes(two)
        second.write_bytes(one)
    else:
        first.rename(model / "variables" / "0002x")


@pytest.mark.parametrize("kind", ["flipped", "added", "removed", "renamed", "swapped", "moved"])
def test_changed_directory(workshop: Workshop, kind: str) -> None:
    model = workshop.directory()
    provenance = workshop.train_provenance(model)
    damage(kind, model)
    code, verdict = workshop.verify(model, "--provenance", provenance, *EXPECTED)
    assert (code, refusals(verdict)[0]) == (1, "SubjectError")


def test_the_root_digest_never_stands_alone(workshop: Workshop) -> None:
    model = workshop.directory()
    statement = workshop.train_statement(model, workshop.record(model))
    statement["subject"] = statement["subject"][-1:]
    assert statement["subject"][0]["name"] == "saved_model"
    data = workshop.write("p.json", workshop.sign(statement, workshop.token()))
    code, verdict = workshop.verify(model, "--provenance", data, *EXPECTED)
    assert (code, refusals(verdict)[0]) == (1, "SubjectError")


def test_one_of_many_subjects_is_ambiguous_or_missing(workshop: Workshop) -> None:
    model = workshop.directory()
    statement = workshop.train_statement(model, workshop.record(model))
    first = statement["subject"][0]
    for listed in (
        [*statement["subject"], {**first, "digest": {"sha256": "e" * 64}}],
        statement["subject"][1:],
    ):
        forged: Json = {**statement, "subject": listed}
        data = workshop.write("p.json", workshop.sign(forged, workshop.token()))
        code, verdict = workshop.verify(model, "--provenance", data, *EXPECTED)
        assert (code, refusals(verdict)[0]) == (1, "SubjectError")


def test_files_listed_without_a_root_have_to_be_all(workshop: Workshop) -> None:
    """As actions/attest lists the files of a folder."""
    model = workshop.directory()
    statement = workshop.train_statement(model, workshop.record(model))
    named = [
        {**subject, "name": subject["name"].removeprefix("saved_model/")}
        for subject in statement["subject"][:-1]
    ]
    for listed, code in ((named, 0), (named[1:], 1), ([*named, named[0]], 1)):
        forged: Json = {**statement, "subject": listed}
        data = workshop.write("p.json", workshop.sign(forged, workshop.token()))
        assert workshop.verify(model, "--provenance", data, *EXPECTED)[0] == code


@pytest.mark.slow
def test_above_a_thousand_files_the_signed_list_is_the_subject(workshop: Workshop) -> None:
    model = workshop.directory(files=1_001)
    about = subjects.of_model(subjects.measure(model))
    assert [subject.name for subject in about] == ["saved_model"]
    small = workshop.model()
    statement = workshop.train_statement(small, workshop.record(model))
    statement["subject"] = [
        {"name": item.name, "digest": {"sha256": item.sha256}} for item in about
    ]
    provenance = workshop.write("p.json", workshop.sign(statement, workshop.token()))
    signature = workshop.sign_model(model)
    options = ("--provenance", provenance, *EXPECTED)
    assert workshop.verify(model, *options, "--signature", signature)[0] == 0
    assert workshop.verify(model, *options)[0] == 0  # the list that signing would make
    (model / "variables" / "1000").rename(model / "variables" / "1000x")
    code, verdict = workshop.verify(model, *options)
    assert (code, refusals(verdict)[0]) == (1, "SubjectError")


HF = ("config.json", "model.safetensors", "tokenizer/vocab.json")


def subject(name: str, content: str | None = None, algorithm: str = "sha256") -> Json:
    said = (name.rpartition("/")[2] if content is None else content).encode()
    return {"name": name, "digest": {algorithm: hashlib.new(algorithm, said).hexdigest()}}


def below(folder: str, *names: str) -> list[Json]:
    return [subject(f"{folder}{name}") for name in names or HF]


AS_OTHERS = {
    "relative": below(""),
    "below ./": below("./"),
    "sha256sum hf/*": below("hf/"),
    "sha256sum ./out/hf/*": below("./out/hf/"),
    "base names": below("", "config.json", "model.safetensors", "vocab.json"),
    "beside others": [*below("hf/"), subject("pkg.whl"), subject("other/config.json", "other")],
    "base names beside others": [
        *below("", "config.json", "model.safetensors", "vocab.json"),
        subject("pkg.whl"),
    ],
    "below two folders": [*below("a/"), *below("b/")],
    "after another model": [
        *below("a/", *HF[:2]),
        subject("a/tokenizer/vocab.json", "x"),
        *below("b/"),
    ],
    "a file twice as large": [*below("hf/"), subject("hf.tar", algorithm="sha512")],
}
NOT_THIS = {
    "one missing": (below("hf/", *HF[:2]), None),
    "one more in the folder": ([*below("hf/"), subject("hf/pickle.bin")], None),
    "swapped": (
        [*below("hf/", HF[2]), subject("hf/config.json", HF[1]), subject(f"hf/{HF[1]}", HF[0])],
        None,
    ),
    "ambiguous": ([*below("hf/"), subject("hf/config.json", "other")], None),
    "ambiguous base names": (
        [*below("", "config.json", "model.safetensors", "vocab.json"), subject("vocab.json", "x")],
        None,
    ),
    "in two folders": ([*below("a/", *HF[:2]), *below("b/", HF[2])], None),
    "other case": (below("hf/", "Config.json", *HF[1:]), "upper and lower case"),
    "sha512 only": (
        [*below("hf/", *HF[1:]), subject("hf/config.json", algorithm="sha512")],
        "no sha256",
    ),
}


def attested_as(workshop: Workshop, subjects: list[Json]) -> tuple[int, Json]:
    model = workshop.folder / "hf"
    for name in HF:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(name.rpartition("/")[2].encode())
    statement = github_statement(workshop.model(name="one"))
    data = workshop.sign({**statement, "subject": subjects}, workshop.token())
    return workshop.verify(model, "--provenance", workshop.write("p.json", data), *EXPECTED)


@pytest.mark.parametrize("name", AS_OTHERS)
def test_a_folder_as_other_tools_attest_it(workshop: Workshop, name: str) -> None:
    code, verdict = attested_as(workshop, AS_OTHERS[name])
    (found,) = (step["found"] for step in verdict["steps"] if step["clause"].endswith("1.2"))
    assert (code, refusals(verdict)) == (0, [])
    assert "3 files" in found
    assert ("base name" in found) is name.startswith("base names")
    assert ("other subjects" in found) is ("beside" in name or "two" in name or "after" in name)


@pytest.mark.parametrize("name", NOT_THIS)
def test_a_folder_that_is_not_the_one_attested(workshop: Workshop, name: str) -> None:
    subjects, said = NOT_THIS[name]
    code, verdict = attested_as(workshop, subjects)
    assert (code, refusals(verdict)[:1]) == (1, ["SubjectError"])
    assert said is None or said in verdict["refusal"]["fix"]


@pytest.mark.parametrize("signed", [False, True])
def test_a_copy_is_there_when_the_whole_verdict_is_that_it_is_verified(
    workshop: Workshop, signed: bool
) -> None:
    model = workshop.directory()
    provenance, copies = workshop.train_provenance(model), workshop.folder / "copies"
    copies.mkdir()
    options: list[object] = ["--provenance", provenance, *EXPECTED, "--copy-to", copies / "copy"]
    options += ["--signature", workshop.sign_model(model)] if signed else []
    another = [*options, "--source-branch", "another"]  # the bytes hold, their origin does not
    assert workshop.verify(model, *another)[0] == 1
    assert list(copies.iterdir()) == []
    assert workshop.verify(model, *options)[0] == 0
    copied = subjects.measure(copies / "copy")
    assert copied.files == subjects.measure(model).files
    assert [path.name for path in copies.iterdir()] == ["copy"]


def test_a_copy_of_what_is_signed_in_other_digests_is_what_provenance_is_about(
    workshop: Workshop,
) -> None:
    """Then the files are hashed a second time: those of the copy, whatever happens to the model."""
    model = workshop.directory()
    provenance, signature = workshop.train_provenance(model), workshop.folder / "shards.sig"
    trust, token = workshop.trust_config, workshop.token()
    signer = sigstore_signer(SigstoreSigning(trust_config=trust, identity_token=token))
    model_signing.sign(model, signature, signer, HashOptions(method="shards", shard_size=1000))
    copy = workshop.folder / "copy"
    code, _ = workshop.verify(
        model, "--provenance", provenance, *EXPECTED, "--signature", signature, "--copy-to", copy
    )
    assert code == 0
    assert subjects.measure(copy).files == subjects.measure(model).files
