"""Strict JSON for untrusted input (RFC 8259), for the bundle and for the signed statement.

Where two readers could disagree (Python keeps the last of two equal keys and accepts NaN), and for
a number that could stall or overflow a later step, there is an error.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from model_signing.errors import Error

_SURROGATE = rb"\\u[dD][89a-fA-F]"
# An escape: a pair of surrogates, half of one, or any other. Compiled where there are some.
_ESCAPE = rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F])|.)"
_SMALL = 1 << 20  # bytes; below, nothing costs much
_MAX_ESCAPES = 1_000_000  # in larger texts; base64 may have `\\/`, one in 64 characters
_MAX_WIDE = 4 << 20  # bytes
_OTHERS = bytes(range(128, 256))
_BEYOND_ASCII = rb"[\x80-\xff]+"
_WINDOW = 1 << 20  # bytes
_APART = "(the list is taken apart)"
_MAX_NUMBER_LENGTH = 40  # characters; every number OMS and Sigstore use fits into 64 bits


def loads(
    data: bytes,
    refusal: type[Error],
    what: str,
    most_parts: int | None = None,
    most_wide: int = _MAX_WIDE,
) -> Any:  # noqa: ANN401 - JSON is untyped
    """Parses one JSON text: UTF-8, without byte order mark; `what` names it in messages.

    What takes many times its size in memory is refused before it is parsed.

    Raises:
        Error: As `refusal`: not UTF-8, not JSON, duplicate keys, lone surrogates, NaN, infinities,
            numbers longer than 40 characters, nesting beyond the interpreter's limit; more
            than `most_parts`; more bytes than `most_wide`, and than an eighth, of texts with
            something in them that is not ASCII.
    """
    if most_parts is not None and len(data) > most_parts and parts(data) > most_parts:
        raise refusal(f"{what} has too many parts", expected=f"at most {most_parts}")
    with _Refused(refusal, what):
        text = _narrow(data, refusal, what, most_wide).decode("utf-8")
        value = _DECODER.decode(text)
        _require_pairs(data, refusal, what)
    return value


def loads_apart(
    data: bytes,
    refusal: type[Error],
    what: str,
    path: tuple[str, ...],
    take: Callable[[Any], None],
    most_parts: int,
) -> Any:  # noqa: ANN401 - as above
    """As `loads`, of a text that is one long list and little else: never parsed as a whole.

    Args:
        data: The text.
        refusal: What is raised.
        what: Names it in messages.
        path: The keys that lead to the list.
        take: Gets the items one after the other; what it raises is passed on.
        most_parts: See `loads`.

    Returns:
        The rest, with an empty list in its place; None if the list is not where `path` says:
        then nothing that was taken counts, and `loads` has to read it all.
    """
    if parts(data) > most_parts:
        raise refusal(f"{what} has too many parts", expected=f"at most {most_parts}")
    start = re.search(rb'"%b"[ \t\r\n]*:[ \t\r\n]*\[' % path[-1].encode(), data)
    if start is None or _APART.encode() in data:
        return None
    with _Refused(refusal, what):
        end = _items(data, start.end(), _DECODER, take)
        _require_pairs(data, refusal, what)
    rest = b'%b"%b"%b' % (data[: start.end() - 1], _APART.encode(), data[end:])
    inner = document = loads(rest, refusal, what)
    for key in path[:-1]:
        inner = inner.get(key) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or inner.get(path[-1]) != _APART:
        return None
    inner[path[-1]] = []
    return document


def _items(data: bytes, start: int, decoder: json.JSONDecoder, take: Callable[[Any], None]) -> int:
    """Gives `take` the items of the list that begins there; returns where it ends.

    The text is decoded a window at a time. What does not parse may only be cut off by its end: so
    it is tried again with more, as long as there is more.
    """
    utf8 = codecs.getincrementaldecoder("utf-8")()
    text, at, read, window = "", 0, start, _WINDOW
    is_first = True
    while True:
        try:
            begin = _blank(text, at)
            if is_first and text[begin] == "]":
                at = begin + 1
                break
            value, after = decoder.raw_decode(text, begin)
            after = _blank(text, after)
            follows = text[after]
            if follows not in ",]":
                raise ValueError("no comma")
        except (ValueError, IndexError) as error:
            if read >= len(data):
                raise ValueError(f"a list has no end: {error}") from None
            more = utf8.decode(data[read : read + window], final=read + window >= len(data))
            text, at, read, window = text[at:] + more, 0, read + window, window * 2
            continue
        take(value)
        at, is_first, window = after + 1, False, _WINDOW
        if follows == "]":
            break
    return min(read, len(data)) - len(utf8.getstate()[0]) - len(text[at:].encode())


def _blank(text: str, at: int) -> int:
    """Where the white space there ends (RFC 8259, 2)."""
    while text[at] in " \t\r\n":
        at += 1
    return at


def _require_pairs(data: bytes, refusal: type[Error], what: str) -> None:
    surrogates = b"\\u" in data and re.search(_SURROGATE, data)
    if surrogates and any(half[1] for half in re.finditer(_ESCAPE, data)):
        raise refusal(f"{what} is not valid Unicode", found="half of a surrogate pair")


class _AmbiguousError(Exception):
    """What two readers would take differently: what it is, and the text."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise _AmbiguousError("has a duplicate key", json.dumps(twice[:80]))
    return result


def _number(text: str, kind: Callable[[str], float] = float) -> float:
    if len(text) > _MAX_NUMBER_LENGTH:
        raise _AmbiguousError("contains an oversized number", f"{text[:20]}...")
    value = kind(text)
    if not math.isfinite(value):  # NaN and Infinity; 1e999 parses as infinity, too
        raise _AmbiguousError("contains a number that JSON does not have", text)
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=lambda digits: _number(digits, int),
    parse_float=_number,
    parse_constant=_number,
)


class _Refused:
    """Says of a text why it cannot be read (for each of a thousand models: no `contextmanager`)."""

    def __init__(self, refusal: type[Error], what: str) -> None:
        self._refusal, self._what = refusal, what

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        refusal, what = self._refusal, self._what
        if isinstance(error, _AmbiguousError):
            problem, found = error.args
            raise refusal(f"{what} {problem}", found=found) from None
        if isinstance(error, UnicodeError):
            raise refusal(f"{what} is not valid Unicode", found=str(error)[-80:]) from error
        if isinstance(error, RecursionError):
            raise refusal(f"{what} is nested too deeply") from error
        if isinstance(error, ValueError):
            raise refusal(f"{what} is not valid JSON", found=str(error)) from error


def _narrow(data: bytes, refusal: type[Error], what: str, most_wide: int) -> bytes:
    """The same JSON, with its characters beyond ASCII escaped where they are few.

    Python has a text in as many bytes a character as its widest one needs: with one emoji among
    them, 64 MiB become 256 to read, and as much again when parsed.

    Raises:
        Error: As `refusal`: more escapes, or more in texts that are not ASCII, than anybody needs.
    """
    if len(data) <= _SMALL:
        return data
    most = max(most_wide, len(data) // 8)
    if most < len(data):  # else it is a list of names, each of its own length
        if data.count(b"\\") > _MAX_ESCAPES:
            raise refusal(f"{what} has too many escapes", expected=f"at most {_MAX_ESCAPES}")
        if _wide(data, most) > most:
            expected = f"at most {most} bytes of it"
            raise refusal(f"{what} has too much text that is not ASCII", expected=expected)
    others = 0 if data.isascii() else len(data) - len(data.translate(None, _OTHERS))
    if not 0 < others <= len(data) // 16:  # an escape is twice as long as what it stands for
        return data
    return re.sub(_BEYOND_ASCII, _escaped, data)


def _escaped(match: re.Match[bytes]) -> bytes:
    start = end = match.start()
    while start and match.string[start - 1] == ord("\\"):
        start -= 1
    if (end - start) % 2:  # it would become part of an escape
        raise ValueError("an escape that JSON does not have")
    return json.dumps(match[0].decode())[1:-1].encode()


def _wide(data: bytes, most: int) -> int:
    """The bytes of all texts with something that is not ASCII; counted until there are `most`."""
    total = at = 0
    character = escape = -1  # where the next one is
    beyond = re.compile(_BEYOND_ASCII)
    while total <= most:
        if character < at:
            found = beyond.search(data, at)
            character = found.start() if found else len(data)
        if escape < at:
            escape = data.find(b"\\u", at)
            escape = len(data) if escape < 0 else escape
        hit = min(character, escape)
        if hit == len(data):
            break
        start = data.rfind(b'"', at, hit)
        while start > at and data[start - 1] == ord("\\"):  # of the text, not its beginning
            start = data.rfind(b'"', at, start)
        end = data.find(b'"', hit + 1)
        while end > 0 and data[end - 1] == ord("\\"):
            end = data.find(b'"', end + 1)
        end = len(data) if end < 0 else end
        # It is an object of its own, too; and many short ones must not take long.
        total, at = total + end - max(start, at) + 64, end
    return total


def parts(data: bytes) -> int:
    """How many objects, lists and commas a JSON text has at most.

    Each takes some 70 bytes or more once it is parsed, so that this is looked at before.
    """
    return sum(map(data.count, (b"{", b"[", b",")))


@lru_cache
def _names(required: str, optional: str | None) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(required.split()), frozenset(f"{required} {optional or ''}".split())


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
    needed, known = _names(required, optional)
    there = value.keys()
    if there >= needed and (optional is None or there <= known):
        return value
    missing = [name for name in required.split() if name not in value]
    raise refusal(
        "a field is missing" if missing else "an unknown field",
        where=where,
        expected=missing[0] if missing else ", ".join(f"{required} {optional}".split()),
        found=", ".join(value)[:200],
    )
