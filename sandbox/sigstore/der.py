"""Writes the few DER values (ITU-T X.690) for which `cryptography` has no builder.

For demonstrations and tests only: RFC 3161 tokens, certificate extensions, SCT lists.
"""

from __future__ import annotations


def tlv(tag: int, *parts: bytes) -> bytes:
    """One value of type `tag` whose contents are `parts`, in DER's shortest length form (8.1.3)."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def sequence(*parts: bytes) -> bytes:
    """A SEQUENCE of already encoded values."""
    return tlv(0x30, *parts)


def set_of(*parts: bytes) -> bytes:
    """A SET OF already encoded values, in ascending order as DER demands (11.6)."""
    return tlv(0x31, *sorted(parts))


def explicit(number: int, value: bytes) -> bytes:
    """An already encoded value under the EXPLICIT context tag `number`."""
    return tlv(0xA0 | number, value)


def implicit(number: int, value: bytes) -> bytes:
    """An already encoded constructed value, its tag replaced by the IMPLICIT one `number`."""
    return bytes([0xA0 | number]) + value[1:]


def integer(number: int) -> bytes:
    """A non-negative INTEGER; a leading zero keeps the sign bit clear."""
    return tlv(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def octet_string(value: bytes) -> bytes:
    """An OCTET STRING."""
    return tlv(0x04, value)


def utf8_string(value: str) -> bytes:
    """A UTF8String."""
    return tlv(0x0C, value.encode())


def generalized_time(text: str) -> bytes:
    """A GeneralizedTime, given as `YYYYMMDDhhmmssZ`."""
    return tlv(0x18, text.encode())


def object_identifier(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER given in dotted form (8.19): seven bits a byte."""
    first, second, *rest = map(int, dotted.split("."))
    encoded = bytearray()
    for arc in (40 * first + second, *rest):
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(0x80 | arc & 0x7F)
        encoded += bytes(reversed(digits))
    return tlv(0x06, bytes(encoded))
