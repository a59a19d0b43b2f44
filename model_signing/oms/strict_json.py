"""Strict JSON for untrusted input (RFC 8259), for the bundle and for the signed statement.

Where two readers could disagree (Python keeps the last of two equal keys and accepts NaN), and for
a number that could stall or overflow a later step, there is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from model_signing.errors import Error

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_MAX_NUMBER_LENGTH = 40  # characters; every number OMS and Sigstore use fits into 64 bits


def loads(data: bytes, refusal: type[Error], what: str) -> Any:  # noqa: ANN401 - JSON is untyped
    """Parses one JSON text: UTF-8, without byte order mark; `what` names it in messages.

    Raises:
        Error: As `refusal`: not UTF-8, not JSON, duplicate keys, lone surrogates, NaN, infinities,
            numbers longer than 40 characters, or nesting beyond the interpreter's limit.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
            raise refusal(f"{what} has a duplicate key", found=json.dumps(twice[:80]))
        return result

    def number(text: str, kind: Callable[[str], float] = float) -> float:
        if len(text) > _MAX_NUMBER_LENGTH:
            raise refusal(f"{what} contains an oversized number", found=f"{text[:20]}...")
        value = kind(text)
        if not math.isfinite(value):  # NaN and Infinity; 1e999 parses as infinity, too
            raise refusal(f"{what} contains a number that JSON does not have", found=text)
        return value

    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=unique,
            parse_int=lambda digits: number(digits, int),
            parse_float=number,
            parse_constant=number,
        )
        if _SURROGATE.search(text):  # such an escape may be half of a pair
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise refusal(f"{what} is not valid Unicode", found=str(error)[-80:]) from error
    except RecursionError as error:
        raise refusal(f"{what} is nested too deeply") from error
    except ValueError as error:
        raise refusal(f"{what} is not valid JSON", found=str(error)) from error
    return value


def parts(data: bytes) -> int:
    """How many objects, lists and commas a JSON text has at most.

    Each takes some 70 bytes or more once it is parsed, so that this is looked at before.
    """
    return sum(map(data.count, (b"{", b"[", b",")))


def fields(
    value: object, refusal: type[Error], where: str, required: str, optional: str | None = ""
) -> dict[str, Any]:
    """`value`, if it is a JSON object with these fields; `where` names it in messages.

    Names are separated by spaces; if `optional` is None, any other field may be there.

    Raises:
        Error: As `refusal`: another kind of value, a missing field, or an unknown one.
    """
    if not isinstance(value, dict):
        found = "nothing" if value is None else "another kind of JSON value"
        raise refusal("a part is missing", where=where, expected="a JSON object", found=found)
    missing = [name for name in required.split() if name not in value]
    known = f"{required} {optional}".split()
    unknown = [] if optional is None else [name for name in value if name not in known]
    if missing or unknown:
        raise refusal(
            "a field is missing" if missing else "an unknown field",
            where=where,
            expected=missing[0] if missing else ", ".join(known),
            found=", ".join(value)[:200],
        )
    return value
