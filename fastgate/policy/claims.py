"""Reading claims where a configuration says they stand (RFC 7662 section 2.2, RFC 7519 section 4)."""

from collections.abc import Mapping
from typing import Any, Final

from fastgate.model import ClaimPath

ABSENT: Final = object()
"""What a path that leads nowhere leads to; not the same as null."""


def claim(claims: Mapping[str, Any], path: ClaimPath) -> Any:
    """Follow a path through objects (RFC 8259 section 4)."""
    value: Any = claims.get(path[0], ABSENT) if path else ABSENT
    for name in path[1:]:
        if not isinstance(value, dict):
            return ABSENT
        value = value.get(name, ABSENT)
    return value


def words(value: Any, *, split: bool = True) -> frozenset[str]:
    """Read a claim as a set of words: space-separated (RFC 6749 section 3.3), or an array of strings.

    With `split` off a string is one word whatever it holds, as an audience is (RFC 7519 section 4.1.3). Empty
    when the value is neither.
    """
    if isinstance(value, str):
        return frozenset(value.split(" ") if split else (value,))
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return frozenset(value)
    return frozenset()
