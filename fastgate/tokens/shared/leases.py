"""Leases: of all workers and hosts one asks about a token, and the others are told."""

import asyncio
import os
import struct
from enum import IntEnum
from typing import Any, Final, NamedTuple

import orjson

from fastgate.clock import Clock
from fastgate.errors import Cannot, IntrospectionError
from fastgate.stats import Stats
from fastgate.tokens.shared.batch import Batch
from fastgate.tokens.shared.cache import Landing, LeaseLostError, RedisStates, found
from fastgate.tokens.shared.faults import RedisError
from fastgate.tokens.shared.line import Line
from fastgate.tokens.shared.scripts import CLAIM, RENEW
from fastgate.tokens.shared.sealing import TAG_SIZE, Keyring, Unopened
from fastgate.tokens.shared.states import AHEAD_MAX, Entry, Found, Unusable
from fastgate.tokens.shared.wakeups import OWNER_SIZE

LEASE_SECONDS: Final = 0.75
"""A dead owner is noticed within this, or within a third of the provider's timeout where that is less."""
LEASE_SECONDS_MIN: Final = 0.1
RENEWALS: Final = 4
"""Times that a lease is renewed while it lasts: an owner that stands still for a moment keeps it."""
LEASE_SIZE_MAX: Final = 4096
"""Octets, with everybody who waits; whoever does not fit in looks again when the lease ends."""
WAITER_SIZE: Final = 16
LEASE: Final = b"lease"
WAKE: Final = b"wake"
FAILURE: Final = b"failure"
_AT: Final = struct.Struct(">d")
_CLAIM_SIZE: Final = _AT.size + OWNER_SIZE + TAG_SIZE


class Place(NamedTuple):
    """Where one token of one provider stands in Redis: both keys have the same hash tag."""

    state: str
    lease: str


class Lease(NamedTuple):
    """Ours to ask, while it lasts."""

    place: Place
    claim: bytes
    seconds: float
    over: str
    """What is wrong with what lies where the state should be; empty: nothing lies there."""

    @property
    def owner(self) -> bytes:
        """The fencing token."""
        return self.claim[_AT.size : _AT.size + OWNER_SIZE]


class Held(NamedTuple):
    """Somebody else asks."""

    owner: bytes
    at: float
    """Wall seconds of the owner when it began."""
    lapses: float
    """Seconds until the lease ends, unless it is renewed."""


class Odd(NamedTuple):
    """What lies under the lease's key is none of ours, or too old to be true: nobody can be waited for."""


class Told(IntEnum):
    """What a message says."""

    STATE = 1
    """A sealed state follows."""
    FAILURE = 2
    """A sealed failure follows."""
    NOTHING = 3
    """The owner did not ask; somebody else may."""


class Leases:
    """Claims, renews and ends leases; reads what owners tell."""

    def __init__(
        self,
        line: Line,
        states: RedisStates,
        keyring: Keyring,
        prefix: str,
        clock: Clock,
        stats: Stats,
        *,
        together: bool,
    ) -> None:
        """`together`: see `Batch`."""
        self._line = line
        self._claims = Batch(line, CLAIM, together=together)
        self._renewals = Batch(line, RENEW, together=together, urgent=True)
        self._states = states
        self._keyring = keyring
        self._clock = clock
        self._stats = stats
        self._channel = f"{prefix}:to:"
        self.waiter = os.urandom(WAITER_SIZE // 2).hex()
        """Our name among those who wait."""
        self._held: dict[bytes, Lease] = {}
        self._renewing: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._held)

    @property
    def channel(self) -> str:
        """Where messages for us come."""
        return self._channel + self.waiter

    # --- claiming -----------------------------------------------------------------------------------------

    async def claim(self, place: Place, known: bytes, timeout: float) -> Lease | Held | Found | Odd:  # noqa: ASYNC109
        """Ask for the lease of a place. Returns the state there instead, if there is one.

        `known` is how a state begins that will not do (empty: any will), `timeout` the provider's. Raises RedisError.
        """
        now, owner = self._clock.now(), os.urandom(OWNER_SIZE)
        at = _AT.pack(now)
        claim = at + owner + self._keyring.stamp(LEASE, place.lease.encode(), at + owner)
        seconds = max(LEASE_SECONDS_MIN, min(LEASE_SECONDS, timeout / 3))
        arguments = (known, claim, _milliseconds(seconds), self.waiter, LEASE_SIZE_MAX)
        outcome, *rest = await self._claims.run((place.state, place.lease), arguments)
        match outcome:
            case b"taken":
                lease = Lease(place, claim, seconds, rest[0].decode())
                self._hold(lease)
                return lease
            case b"landed":
                return found(place.state, *rest)
            case b"held":
                return self._read(place, rest[0], rest[1], timeout)
            case b"refused":
                raise self._line.refused(rest[0])
        return Odd()

    def _read(self, place: Place, held: bytes, left: int, timeout: float) -> Held | Odd:
        content, stamp = held[: _AT.size + OWNER_SIZE], held[_AT.size + OWNER_SIZE : _CLAIM_SIZE]
        if not self._keyring.stamped(stamp, LEASE, place.lease.encode(), content):
            return Odd()
        (at,) = _AT.unpack_from(content)
        age = self._clock.now() - at
        # No owner asks for longer than this: somebody put an old lease back, or it cannot end.
        if left < 0 or age > 2 * timeout or age < -AHEAD_MAX:
            return Odd()
        return Held(content[_AT.size :], at, left / 1000)

    # --- while it is ours ---------------------------------------------------------------------------------

    def _hold(self, lease: Lease) -> None:
        self._held[lease.claim] = lease
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._renew_all())

    async def _renew_all(self) -> None:
        """Renew what is held, again and again, until nothing is."""
        while self._held:
            seconds = min(lease.seconds for lease in self._held.values())
            await asyncio.sleep(seconds / RENEWALS)
            await asyncio.gather(*(self._renew(lease) for lease in self._held.values()))

    async def _renew(self, lease: Lease) -> None:
        try:
            in_force = await self._renewals.run((lease.place.lease,), (_milliseconds(lease.seconds), lease.claim))
        except RedisError:
            return  # the line says so to everybody
        if not in_force:
            self._held.pop(lease.claim, None)

    # --- its end ------------------------------------------------------------------------------------------

    async def land(self, lease: Lease, entry: Entry, seconds: float) -> None:
        """Write what was learned for `seconds` (0: it is not kept) and tell whoever waits."""
        await self._end(
            lease, self._states.set(entry.key, entry, ttl=seconds, _cas_token=self._terms(lease, Told.STATE))
        )

    async def fail(self, lease: Lease, error: IntrospectionError) -> None:
        """Tell whoever waits that the question failed; what is remembered stays."""
        if error.kind is Cannot.OVERLOADED:  # our own limit: others may have room
            await self.release(lease)
            return
        said = orjson.dumps([str(error.kind), error.detail, error.retry_after])
        sealed = self._keyring.seal(FAILURE, _flight(lease.place, lease.owner), said)
        terms = self._terms(lease, Told.FAILURE)
        await self._end(lease, self._states.land(lease.place.state, terms, sealed, "keep"))

    async def release(self, lease: Lease) -> None:
        """Give it back: somebody else may ask."""
        terms = self._terms(lease, Told.NOTHING)
        await self._end(lease, self._states.land(lease.place.state, terms, b"", "keep"))

    async def _end(self, lease: Lease, landing: Any) -> None:
        try:
            await landing
        except LeaseLostError:
            self._stats.leases.add("lost")
        except Unusable as error:
            self._stats.cache_misses.add("shared", error.reason)
            await self.release(lease)
        except RedisError:
            return  # counted; the lease ends by itself
        finally:
            self._held.pop(lease.claim, None)

    def _terms(self, lease: Lease, told: Told) -> Landing:
        said = bytes([told])
        stamp = self._keyring.stamp(WAKE, _flight(lease.place, lease.owner), said)
        message = lease.owner + said + stamp
        return Landing(lease.place.lease, lease.claim, message, self._channel, WAITER_SIZE)

    # --- what others tell ---------------------------------------------------------------------------------

    def read(self, place: Place, held: Held, message: bytes) -> Found | IntrospectionError | None:
        """Return what the owner that was waited for says: a state, why it could not ask, or nothing (None)."""
        said, stamp, body = message[:1], message[1 : 1 + TAG_SIZE], message[1 + TAG_SIZE :]
        flight = _flight(place, held.owner)
        if not self._keyring.stamped(stamp, WAKE, flight, said):
            self._stats.leases.add("forged")
            return None
        if said[0] == Told.STATE:
            return Found(place.state, body, None)
        if said[0] == Told.FAILURE:
            try:
                kind, detail, retry_after = orjson.loads(self._keyring.open(FAILURE, flight, body))
                return IntrospectionError(Cannot(kind), f"{detail} (asked by another worker)", retry_after)
            except (Unopened, ValueError):
                self._stats.leases.add("forged")
        return None

    async def close(self) -> None:
        """Finish what is under way, and stop renewing."""
        await self._claims.close()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self._renewals.close()


def _flight(place: Place, owner: bytes) -> bytes:
    return place.lease.encode() + b"\0" + owner


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
