"""How a token state lies in Redis: sealed for its key, with the time it was asked for."""

import math
import struct
from typing import Final, NamedTuple

import orjson
from aiocache.serializers import BaseSerializer

from fastgate.clock import Clock
from fastgate.errors import FastgateError, IntrospectionError
from fastgate.model import INACTIVE, TokenState
from fastgate.policy.introspection import MAX_BODY, token_state
from fastgate.policy.strict_json import read_object
from fastgate.tokens.shared.sealing import MARK_SIZE, Keyring, Unopened

PURPOSE: Final = b"state"
AHEAD_MAX: Final = 60.0
"""Seconds that the clock of another host may be ahead of ours before what it writes is not believed."""
_TIMES: Final = struct.Struct(">dd")
_INACTIVE: Final = {"active": False}


class Unusable(FastgateError):  # noqa: N818 - it happens to values, it is no fault
    """What lies under a key cannot be believed; `reason` is the label of the counter."""

    def __init__(self, reason: str, name: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.name = name
        """As of `Opened`."""


class Entry(NamedTuple):
    """What is written."""

    key: str
    state: TokenState
    at: float
    """Wall seconds when the question was sent."""
    life: float
    """Seconds from then on that it may be used at most."""


class Found(NamedTuple):
    """What Redis holds."""

    key: str
    sealed: bytes
    left: float | None
    """Seconds until Redis forgets it; None: it says never."""


class Opened(NamedTuple):
    """What is read."""

    state: TokenState
    age: float
    """Seconds; never less than in truth, as far as either clock tells."""
    at: float
    """Wall seconds of whoever asked."""
    name: bytes
    """How the sealed value begins: tells it apart from every other one."""


class StateSerializer(BaseSerializer):  # type: ignore[misc]  # aiocache has no types
    """The codec of the shared tier, as aiocache asks for one."""

    DEFAULT_ENCODING = None

    def __init__(self, keyring: Keyring, clock: Clock) -> None:
        super().__init__()
        self._keyring = keyring
        self._clock = clock

    def dumps(self, value: Entry) -> bytes:
        """Seal. Raises Unusable (too_large)."""
        claims = _INACTIVE if value.state is INACTIVE else {**value.state.claims, "active": True}
        said = orjson.dumps(claims)
        if len(said) > MAX_BODY:
            raise Unusable("too_large")
        return self._keyring.seal(PURPOSE, value.key.encode(), _TIMES.pack(value.at, value.life) + said)

    def loads(self, value: Found | None) -> Opened | None:
        """Open, and read as strictly as an answer of the authorization server. Raises Unusable."""
        if value is None:
            return None
        name = value.sealed[:MARK_SIZE]
        try:
            plain = self._keyring.open(PURPOSE, value.key.encode(), value.sealed)
            at, life = _TIMES.unpack_from(plain)
            state = token_state(read_object(plain[_TIMES.size :], MAX_BODY))
        except Unopened as error:
            raise Unusable(error.reason, name) from None
        except (IntrospectionError, struct.error):
            raise Unusable("malformed", name) from None
        # The larger of what our clock says and what has passed for Redis: hosts' clocks differ, and Redis may lie.
        age = self._clock.now() - at
        passed = life - value.left if value.left is not None and value.left <= life else 0.0
        if not math.isfinite(age + life) or age < -AHEAD_MAX:
            raise Unusable("ahead", name)
        return Opened(state, max(0.0, age, passed), at, name)
