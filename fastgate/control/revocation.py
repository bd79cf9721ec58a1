"""The body of `POST /tokens/revoke`: exactly one thing to revoke, said without room for doubt."""

import json
from typing import Any, Final

import orjson

MAX_BODY: Final = 64 * 1024
"""Octets."""
NAMES: Final = ("token", "sub", "sid", "client_id", "all")


class RevocationError(ValueError):
    """The body does not say what to revoke; the message says what is wrong and repeats nothing of it."""


def parse_revocation(body: bytes) -> dict[str, Any]:
    """Read one of `{"token": ...}`, `{"sub": ...}`, `{"sid": ...}`, `{"client_id": ...}` and `{"all": true}`.

    The result is the keyword argument for `Operations.revoke`. Raises RevocationError.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RevocationError("body is not JSON") from None
    if not isinstance(value, dict):
        raise RevocationError(f"body is not a JSON object with one of {', '.join(NAMES)}")
    if any(name not in NAMES for name in value):
        raise RevocationError(f"unknown key: only {', '.join(NAMES)} are known")
    if _pairs(body) != 1:
        raise RevocationError(f"exactly one of {', '.join(NAMES)} must be there")
    ((name, said),) = value.items()
    if name == "all":
        if said is not True:
            raise RevocationError("all must be true")
    elif not isinstance(said, str) or not said:
        raise RevocationError(f"{name} must be a string that is not empty")
    elif name == "token" and not (said.isascii() and said.isprintable()):
        raise RevocationError("token holds characters that no token has (RFC 6750 section 2.1)")
    return {name: said}


def _pairs(body: bytes) -> int:
    """Count the pairs as written: orjson keeps the last of equal keys, the first token would stay valid."""
    try:
        return len(json.loads(body, object_pairs_hook=list))
    except RecursionError:  # arrays upon arrays behind a repeated key
        return 2
