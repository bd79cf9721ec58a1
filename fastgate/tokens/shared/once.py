"""Things that may happen once only, over all workers and hosts, such as the use of a logout token."""

import hashlib
from collections import OrderedDict
from typing import Final

from fastgate.clock import Clock
from fastgate.tokens.shared.cache import RedisStates
from fastgate.tokens.shared.faults import RedisError
from fastgate.tokens.shared.sealing import Keyring

PURPOSE: Final = b"once"
LOCAL_MAX: Final = 10_000
"""Names that this worker keeps for itself."""


class Once:
    """What happened: known to this worker for certain, to all others where Redis can be reached."""

    def __init__(self, states: RedisStates, keyring: Keyring, prefix: str, clock: Clock) -> None:
        self._states = states
        self._keyring = keyring
        self._prefix = prefix
        self._clock = clock
        self._local: OrderedDict[bytes, float] = OrderedDict()
        """Until when, in monotonic seconds."""

    async def first(self, name: str, seconds: float) -> bool:
        """Whether this happens for the first time within so many seconds; in doubt, as far as this worker knows."""
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        if not self._first_here(digest, seconds):
            return False
        key = f"{self._prefix}:once:{digest.hex()}"
        stamp = self._keyring.stamp(PURPOSE, digest)
        try:
            await self._states.add(key, stamp, ttl=seconds, dumps_fn=bytes)
        except ValueError:
            return not await self._happened(key, digest)
        except RedisError:
            return True
        return True

    def _first_here(self, digest: bytes, seconds: float) -> bool:
        now = self._clock.monotonic()
        if self._local.get(digest, now) > now:
            return False
        self._local[digest] = now + seconds
        self._local.move_to_end(digest)
        if len(self._local) > LOCAL_MAX:
            self._local.popitem(last=False)
        return True

    async def _happened(self, key: str, digest: bytes) -> bool:
        """Whether it was one of us who said so; yes, when Redis cannot be asked any more."""
        try:
            stamp = await self._states.raw("get", key)
        except RedisError:
            return True
        return isinstance(stamp, bytes) and self._keyring.stamped(stamp, PURPOSE, digest)
