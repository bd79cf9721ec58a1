"""The tokens of the cluster's cases: what they are called says what they are; pure, for clients and stubs alike."""

import time
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

from bench.settings import GRANTED

SECONDS: Final = 3600
BAD: Final = ("inactive.", "expired.", "narrow.")
"""How tokens begin that no gateway may let through."""
_fresh = count(1)


def good(number: int, name: str = "user") -> str:
    """Return an active token whose subject is `subject(token)`."""
    return f"good.{name}-{number}.0123456789abcdef0123456789abcdef"


def slow(milliseconds: int, number: int, name: str = "slow") -> str:
    """Return an active token about which the identity provider thinks so long."""
    return f"wait.{name}-{number}.{milliseconds}.0123456789abcdef"


def until(at: int, number: int) -> str:
    """Return a token that is active until a second of the wall clock."""
    return f"until.user-{number}.{at}.0123456789abcdef"


def bad(kind: str, number: int) -> str:
    """Return a token of one of the kinds of `BAD`, without their dot."""
    return f"{kind}.user-{number}.0123456789abcdef0123456789abcdef"


def fresh(name: str = "fresh") -> Iterator[str]:
    """Return good tokens that nobody has used, without end."""
    while True:
        yield good(next(_fresh), name)


def subject(token: str) -> str:
    """The subject that stands in a token."""
    return token.split(".")[1]


def claims(token: str, now: float | None = None) -> dict[str, Any]:
    """What the identity provider says (RFC 7662 section 2.2)."""
    now = time.time() if now is None else now
    kind, *words = token.split(".")
    if len(words) < 2 or kind not in {"good", "wait", "until", "expired", "narrow"}:
        return {"active": False}
    exp = int(words[1]) if kind == "until" else int(now) - 60 if kind == "expired" else int(now) + SECONDS
    if kind == "until" and exp <= now:
        return {"active": False}
    scope = "bench.other" if kind == "narrow" else GRANTED
    return {"active": True, "sub": words[0], "client_id": "bench", "scope": scope, "exp": exp}


def thinks(token: str) -> float:
    """Seconds that the identity provider takes to answer."""
    words = token.split(".")
    return int(words[2]) / 1000 if words[0] == "wait" else 0.0
