"""Models that are folders: which files they have, under which names."""

from __future__ import annotations

from pathlib import Path

import pytest

from slsa_for_models.evidence import subjects
from tests.support.crafted import SOURCE, TRAIN, Json, Workshop, refusals

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
