"""Claims written as header fields for the upstream (RFC 9110 section 5.5)."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import orjson

from fastgate.model import ClaimHeader
from fastgate.policy.claims import ABSENT, claim

MAX_VALUE: Final = 8192
"""Octets of an identity header's value; a longer one is not sent at all."""

_PLAIN: Final = re.compile(r"[!-$&-~](?:[ -$&-~]*[!-$&-~])?")
_SAFE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_EDGES: Final = re.compile(r"\A +| +\Z")


def identity(headers: tuple[ClaimHeader, ...], claims: Mapping[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """Write claims as fields, each in one line whatever it holds (RFC 9110 section 5.5).

    A string is itself, anything else compact JSON. Control characters, non-ASCII characters (as UTF-8), "%" and
    spaces at either end are percent-encoded, so that one percent-decoding always gives the claim back. No field
    is made of an absent claim, of null, of "" or of what exceeds MAX_VALUE; of two claims for one header the
    first present one is taken.
    """
    fields: dict[bytes, tuple[bytes, bytes]] = {}
    for header in headers:
        value = _value(claim(claims, header.claim))
        if value:
            fields.setdefault(header.name.lower(), (header.name, value))
    return tuple(fields.values())


def _value(value: Any) -> bytes | None:
    if value is None or value is ABSENT:
        return None
    text = value if isinstance(value, str) else _json(value)
    if text is None or len(text) > MAX_VALUE:
        return None
    if not _PLAIN.fullmatch(text):
        text = quote(text, safe=_SAFE, errors="surrogatepass")
        text = _EDGES.sub(lambda spaces: "%20" * len(spaces[0]), text)
    return text.encode("ascii") if len(text) <= MAX_VALUE else None


def _json(value: Any) -> str | None:
    try:
        return orjson.dumps(value).decode("utf-8")
    except orjson.JSONEncodeError:
        return None
