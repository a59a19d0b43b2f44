"""G. What is in the model: whoever loads it may run code of it, and relies on what it says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from model_signing.comparison import some
from model_signing.errors import FileError
from model_signing.safe_files import failed
from model_signing.sources.local import LocalSource, on_disk
from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.evidence.subjects import ModelDigests
from slsa_for_models.models import contents
from slsa_for_models.models.contents import Code
from slsa_for_models.verdict.expectations import Expectations
from slsa_for_models.verdict.result import Evidence
from slsa_for_models.verdict.table import POLICY, Table

_CODE = ("Code in it", f"{POLICY}, load.code")
_SAYS = ("What it says of itself", POLICY)
_SHOWN = 10
_Paths = Callable[[str], Path]


def examine(table: Table, model: ModelDigests, evidence: Evidence, expected: Expectations) -> None:
    """Adds what of the model is code, and refuses it where none is expected; and what it says.

    A header or an index that its files do not bear out is refused where the model is to be loaded,
    that is where something is expected of its code. The copy is looked into, if there is one; else
    the model where it lies, on this machine; else names alone decide.

    Raises:
        FileError: A file cannot be read.
    """
    if table.refusal:
        table.not_checked(model.name, *_CODE, "not checked: the model was refused")
        return
    paths = _paths(evidence.model if evidence.copy is None else evidence.copy.source)
    compared, steps = expected.code is not None, Table()
    check = partial(_checked, model, paths, expected.code)
    try:
        code = steps.step(model.name, *_CODE, check, _shown, compared=compared)
        if compared or code != []:
            table.steps += steps.steps
        if paths is not None:
            _say(table, model, paths, compared=compared)
    except OSError as error:
        failed(str(error.filename), error)


def _say(table: Table, model: ModelDigests, paths: _Paths, *, compared: bool) -> None:
    try:
        said = contents.statements(model.files.keys(), paths)
    except UnsafeModelError as error:
        if compared:
            table.refused(model.name, *_SAYS, error)
            return
        said = [f"malformed: {error.message} ({error.where})"]
    if said:
        shown = "; ".join(said[:_SHOWN]) + (" ..." if said[_SHOWN:] else "")
        table.note(model.name, *_SAYS, shown)


def _paths(lies: object) -> _Paths | None:
    if not isinstance(lies, LocalSource):
        return None
    root, single = Path(lies.path), lies.single

    def path(name: str) -> Path:
        found = root if single else root / on_disk(name)
        if not found.is_file():  # a FIFO, put there since it was hashed, would block us
            raise FileError("the file changed after it was verified", where=str(found))
        return found

    return path


def _checked(model: ModelDigests, paths: _Paths | None, expected: str | None) -> list[Code]:
    code = contents.code(model.files, paths)
    elsewhere = [one for one in code if one.elsewhere]
    if expected == "refused" and code:
        raise UnsafeModelError(
            "the model holds code, and loading it can run that",
            where=code[0].file,
            expected="none",
            found=some([*map(str, code)]),
            fix='trust its signer with your rights: --code allowed, or [load] code = "allowed"',
        )
    if expected is not None and elsewhere:
        raise UnsafeModelError(
            "the model takes code from elsewhere, which nobody signed",
            where=elsewhere[0].file,
            expected="code of the model itself at most",
            found=some([*map(str, elsewhere)]),
        )
    return code


def _shown(code: list[Code]) -> str:
    return f"loading it can run {some([*map(str, code)])}" if code else "none is known of"
