"""JSON from a peer, read strictly and within bounds (RFC 8259, RFC 7493)."""

import json
import re
from typing import Any, Final

import orjson

from fastgate.errors import Cannot, IntrospectionError

MAX_DEPTH: Final = 32
"""Arrays and objects inside each other."""

_STRUCTURE: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)


def read_object(body: bytes, max_size: int) -> dict[str, Any]:
    """Read one JSON object (RFC 8259 section 4).

    Raises IntrospectionError (MALFORMED) for more than `max_size` octets, a nesting beyond MAX_DEPTH, a byte order
    mark, NaN, trailing text, a name that occurs twice in one object, and anything that is not an object.
    """
    if len(body) > max_size:
        raise malformed("the answer is too large")
    # The depth comes first: no parser should have to survive it.
    if _depth(body) > MAX_DEPTH:
        raise malformed("the answer is nested too deeply")
    try:
        value = orjson.loads(body)
        # orjson keeps the last of several equal names; the slower parser is asked only for their sake.
        _SLOWER.decode(body.decode())
    except ValueError:
        raise malformed("the answer is not JSON, or names something twice") from None
    if not isinstance(value, dict):
        raise malformed("the answer is not a JSON object")
    return value


def malformed(detail: str) -> IntrospectionError:
    """Say that an answer cannot be trusted; `detail` holds nothing of the answer."""
    return IntrospectionError(Cannot.MALFORMED, detail)


def _depth(body: bytes) -> int:
    """Measure the nesting, outside strings, in one pass."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for token in _STRUCTURE.finditer(body):
        mark = token[0]
        if mark in {b"[", b"{"}:
            depth += 1
            deepest = max(deepest, depth)
        elif mark in {b"]", b"}"}:
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


_SLOWER: Final = json.JSONDecoder(object_pairs_hook=_unique)
