"""Which notices were taken already: a replayed one must not be taken for a new one (RFC 7519 section 4.1.7)."""

import hashlib
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol


class Seen(Protocol):
    """Remembers names for a time, for everybody who takes the same notices. Never raises, and answers soon.

    Nothing depends on it but that a replay is called one: a notice is about what was issued until its own time, and
    taking it again revokes nothing more. In doubt it answers True.
    """

    async def first(self, name: str, seconds: float) -> bool:
        """Whether `name` is new; from now on it is not, for so many seconds."""
        ...


class SeenHere:
    """What this process has seen; bounded: beyond `max_entries` what would be forgotten next is forgotten now."""

    __slots__ = ("_ends", "_max_entries", "_monotonic", "_names")

    def __init__(self, monotonic: Callable[[], float], max_entries: int = 100_000) -> None:
        self._monotonic = monotonic
        self._max_entries = max_entries
        self._names: set[bytes] = set()
        """Digests: what peers call their notices may be long."""
        self._ends: list[tuple[float, bytes]] = []
        """The same as a heap, by the moment at which each is forgotten."""

    def __len__(self) -> int:
        return len(self._names)

    async def first(self, name: str, seconds: float) -> bool:
        """Whether `name` is new; from now on it is not, for so many seconds."""
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        now = self._monotonic()
        while self._ends and self._ends[0][0] <= now:
            self._forget_next()
        if digest in self._names:
            return False
        if len(self._names) >= self._max_entries:
            self._forget_next()
        self._names.add(digest)
        heappush(self._ends, (now + seconds, digest))
        return True

    def _forget_next(self) -> None:
        _, digest = heappop(self._ends)
        self._names.remove(digest)
