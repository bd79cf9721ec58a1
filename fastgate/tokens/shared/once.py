"""Things that may happen once only, over all workers and hosts, such as the use of a logout token."""

import hashlib
from typing import Final

from fastgate.clock import Clock
from fastgate.tokens.seen import SeenHere
from fastgate.tokens.shared.cache import RedisStates
from fastgate.tokens.shared.faults import RedisError
from fastgate.tokens.shared.sealing import Keyring

PURPOSE: Final = b"once"


class Once:
    """What happened, as `Seen`: known to this worker for certain, to all others where Redis can be reached."""

    def __init__(self, states: RedisStates, keyring: Keyring, prefix: str, clock: Clock) -> None:
        self._states = states
        self._keyring = keyring
        self._prefix = prefix
        self._here = SeenHere(clock.monotonic)

    async def first(self, name: str, seconds: float) -> bool:
        """Whether this happens for the first time within so many seconds; in doubt, as far as this worker knows."""
        if not await self._here.first(name, seconds):
            return False
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        key = f"{self._prefix}:once:{digest.hex()}"
        stamp = self._keyring.stamp(PURPOSE, digest)
        try:
            await self._states.add(key, stamp, ttl=seconds, dumps_fn=bytes)
        except ValueError:
            return not await self._happened(key, digest)
        except RedisError:
            return True
        return True

    async def _happened(self, key: str, digest: bytes) -> bool:
        """Whether it was one of us who said so: no word of Redis alone keeps anything from happening."""
        try:
            stamp = await self._states.raw("get", key)
        except RedisError:
            return False
        return isinstance(stamp, bytes) and self._keyring.stamped(stamp, PURPOSE, digest)
