"""In-toto statements, and access to the untrusted JSON within them.

Reading is strict where a verifier could be misled (statement and predicate types, digests, unknown
external parameters) and lenient where the specification demands it (unknown fields are ignored,
in-toto "parsing rules").

Sources: in-toto Statement v0.1 and v1, ResourceDescriptor.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_signing.oms import strict_json
from slsa_for_models.errors import ParameterError, PredicateTypeError, ProvenanceError

STATEMENT_V01 = "https://in-toto.io/Statement/v0.1"
STATEMENT_V1 = "https://in-toto.io/Statement/v1"

MAX_SUBJECTS = 100_000
MAX_PARTS = 6 * MAX_SUBJECTS  # of JSON
HEX = re.compile(r"[0-9a-f]{40,128}")
"""A digest or a commit."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Resource:
    """A subject or a dependency: in-toto's ResourceDescriptor, as far as it matters here.

    Attributes:
        name: Its name, or "".
        uri: Its URI, or "".
        digests: Algorithm -> lower-case hexadecimal digest.
        content: The bytes themselves, where they are embedded.
        claimed_by: Who says so, where the builder only passes it on (the annotation `claimedBy` of
            docs/buildtypes/train-v1.md); "" where the builder itself says it.
    """

    name: str
    uri: str
    digests: Mapping[str, str]
    content: bytes | None = None
    claimed_by: str = ""

    @property
    def sha256(self) -> str | None:
        """The SHA-256 digest, hexadecimal."""
        return self.digests.get("sha256")

    @property
    def commit(self) -> str | None:
        """The git commit, hexadecimal (`gitCommit`, or `sha1` as older formats call it)."""
        return self.digests.get("gitCommit") or self.digests.get("sha1")


@dataclass(frozen=True)
class Statement:
    """An in-toto statement: what is said, and of what.

    Attributes:
        predicate_type: The predicate's type.
        subjects: What it is about.
        predicate: What is said.
        remark: How it differs from the form that is specified, and is accepted all the same; or "".
    """

    predicate_type: str
    subjects: tuple[Resource, ...]
    predicate: Json
    remark: str = ""


def read(payload: bytes, versions: Mapping[str, str]) -> Statement:
    """Reads an authenticated statement.

    Args:
        payload: The signed bytes.
        versions: The predicate types accepted, each with the statement's type that it is used with.
            Statement v0.1 has the same fields with the same meaning, and cosign writes it around
            every predicate: it is accepted, too.

    Raises:
        PredicateTypeError: Its predicate type is none of those, or its `_type` another.
        ProvenanceError: Malformed.
    """
    statement = strict_json.loads(payload, ProvenanceError, "the signed payload", MAX_PARTS)
    if not isinstance(statement, dict):
        raise ProvenanceError("the signed payload is not an in-toto statement")
    predicate_type = text_at(statement, "predicateType")
    if predicate_type not in versions:
        raise PredicateTypeError(
            "a signed statement of another type",
            where="predicateType",
            expected=" or ".join(versions),
            found=predicate_type,
        )
    specified, found = versions[predicate_type], statement.get("_type")
    if found not in (specified, STATEMENT_V01):
        raise PredicateTypeError(
            "the versions of statement and predicate do not belong together",
            where="_type",
            expected=f"{specified} with {predicate_type}",
            found=ascii(found),
        )
    subjects = resources_at(statement, "subject")
    if not 0 < len(subjects) <= MAX_SUBJECTS:
        raise ProvenanceError(
            "the number of subjects is not acceptable",
            where="subject",
            expected=f"1 to {MAX_SUBJECTS}",
            found=str(len(subjects)),
        )
    older = "" if found == specified else f"in-toto Statement v0.1 around {predicate_type}"
    return Statement(predicate_type, subjects, object_at(statement, "predicate"), older)


# Access to untrusted JSON -------------------------------------------------------------------------


def value_at(document: object, path: str) -> object:
    """What stands at a path of names and list indexes, or None."""
    for name in path.split("."):
        if isinstance(document, list) and name.isdecimal() and int(name) < len(document):
            document = document[int(name)]
        else:
            document = document.get(name) if isinstance(document, dict) else None
    return document


def text_at(document: object, path: str, *, default: str | None = None) -> str:
    """The text at a path.

    Raises:
        ProvenanceError: It is not text, or it is absent and there is no default.
    """
    value = value_at(document, path)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ProvenanceError("a field is missing or not text", where=path)
    return value


def object_at(document: object, path: str) -> Json:
    """The JSON object at a path.

    Raises:
        ProvenanceError: There is none.
    """
    value = value_at(document, path)
    if not isinstance(value, dict):
        raise ProvenanceError("a field is missing or not a JSON object", where=path)
    return value


def list_at(document: Json, name: str) -> list[Json]:
    """The JSON objects in the list of that name; none, where there is no list.

    Raises:
        ProvenanceError: It is another thing.
    """
    value = document.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ProvenanceError("a field is not a list of JSON objects", where=name)
    return value


def resources_at(document: Json, name: str) -> tuple[Resource, ...]:
    """The resources in the list of that name.

    Raises:
        ProvenanceError: One is malformed.
    """
    items = list_at(document, name)
    return tuple(_resource(item, f"{name}[{index}]") for index, item in enumerate(items))


def refuse_unknown(value: object, known: set[str], where: str) -> None:
    """SLSA v1.2 verifying-artifacts, step 2: unrecognized external parameters are refused.

    Raises:
        ParameterError: One that is not known, or no object.
    """
    unknown = sorted(set(value) - known) if isinstance(value, dict) else ["not an object"]
    if unknown:
        raise ParameterError(
            "an external parameter that the build type does not define",
            where=where,
            expected=", ".join(sorted(known)),
            found=", ".join(unknown),
        )


def as_text(inputs: Json) -> Mapping[str, str]:
    """Inputs as GitHub's expressions print them: `true`, `5`, text as it is; null was not given.

    A list of texts is joined with commas; anything else is JSON.
    """
    return {name: _scalar(value) for name, value in inputs.items() if value is not None}


def _scalar(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _resource(item: Json, where: str) -> Resource:
    try:
        digests = dict(object_at(item, "digest")) if value_at(item, "digest") is not None else {}
        resource = Resource(
            name=text_at(item, "name", default=""),
            uri=text_at(item, "uri", default=""),
            digests=digests,
            content=_content(value_at(item, "content")),
            claimed_by=text_at(item, "annotations.claimedBy", default=""),
        )
    except ProvenanceError as error:
        raise ProvenanceError(error.message, where=f"{where}.{error.where}") from None
    for algorithm, digest in digests.items():
        if not isinstance(digest, str) or not HEX.fullmatch(digest):
            raise ProvenanceError(
                "a digest is not lower-case hexadecimal",
                where=f"{where}.digest.{algorithm}",
                found=ascii(digest)[:80],
            )
    return resource


def _content(value: object) -> bytes | None:
    if value is None:
        return None
    try:
        content = base64.b64decode(str(value), validate=True)
        if base64.b64encode(content).decode() != value:  # RFC 4648 3.5: unused bits are zero
            raise ValueError
        return content
    except ValueError:
        raise ProvenanceError("not base64", where="content") from None
