"""What clients send, as the octets of whole requests; pure, and the same in every run."""

import json
import random
from itertools import accumulate

TOKEN = "bench-token-0123456789abcdef0123456789abcdef"
"""Any token that begins with "bench" is active at the bench's identity provider."""
INACTIVE = "stale-token-0123456789abcdef0123456789abcdef"
NARROW = "bench-narrow-0123456789abcdef0123456789abcde"
"""An active token without the scope that the route requires."""
TOKENS = 10_000
DRAWN = 65_536
"""Requests drawn from the TOKENS: some 8,000 of them occur, the first one 6,700 times."""
INVENTED = 100_000
_VARIANTS = 4096


def slow_token(milliseconds: int, number: int) -> str:
    """Return a token about which the identity provider thinks so long."""
    return f"bench-wait-{milliseconds}-{number:08}"


def get(token: str = TOKEN, *fields: str, path: str = "/") -> bytes:
    """Compose a request: Host, Authorization, and these fields."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}", *fields, "", ""]
    return "\r\n".join(lines).encode()


def same() -> tuple[bytes, ...]:
    """One request, again and again."""
    return (get(),)


def inactive() -> tuple[bytes, ...]:
    """The same with a token that is not active."""
    return (get(INACTIVE),)


def varied() -> tuple[bytes, ...]:
    """Ten fields in all, of which three are new with every request: trace, trace state, request identifier."""
    chance = random.Random(10)
    return tuple(get(TOKEN, *_USUAL, *_trace(chance)) for _ in range(_VARIANTS))


def post() -> tuple[bytes, ...]:
    """Send 1024 octets of JSON."""
    body = json.dumps({"note": ""})
    body = json.dumps({"note": "x" * (1024 - len(body))})
    head = get(TOKEN, "Content-Type: application/json", f"Content-Length: {len(body)}").replace(b"GET", b"POST", 1)
    return (head + body.encode(),)


def one_token() -> tuple[bytes, ...]:
    """Send what `zipf` sends, but all of it with one token."""
    return (get(known(0)),)


def zipf() -> tuple[bytes, ...]:
    """TOKENS tokens, the k-th of them used 1/k times as often as the first."""
    weights = list(accumulate(1 / rank for rank in range(1, TOKENS + 1)))
    drawn = random.Random(7).choices(range(TOKENS), cum_weights=weights, k=DRAWN)
    return tuple(get(known(number)) for number in drawn)


def known(number: int) -> str:
    """Return one of the TOKENS tokens, as long as TOKEN."""
    return f"bench-{number:08}-0123456789abcdef0123456789012"


def cold() -> tuple[bytes, ...]:
    """As many tokens, about each of which the identity provider is silent for a minute."""
    return tuple(get(slow_token(60_000, number)) for number in range(TOKENS))


def invented() -> tuple[bytes, ...]:
    """More tokens than come to be used twice in one measurement, none of which the identity provider knows."""
    return tuple(get(f"no-such-token-{number:08}-{number * 7919:012}") for number in range(INVENTED))


_USUAL = (
    "User-Agent: bench/1.0 (x86_64; Linux)",
    "Accept: application/json",
    "Accept-Encoding: gzip, deflate, br",
    "Accept-Language: en-GB,en;q=0.9",
    "X-Client-Version: 2026.11.1",
)


def _trace(chance: random.Random) -> tuple[str, str, str]:
    trace, span, request = (chance.randbytes(octets).hex() for octets in (16, 8, 16))
    return (f"Traceparent: 00-{trace}-{span}-01", f"Tracestate: bench={span}", f"X-Request-Id: {request}")
