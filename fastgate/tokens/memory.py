"""The memory tier: token states by digest, bounded, with a budget of their own for inactive ones.

It knows neither freshness nor time: the resolver decides what is worth keeping, and whether it is fresh.
"""

from collections import OrderedDict
from collections.abc import Callable
from random import SystemRandom
from typing import Final

from fastgate.model import INACTIVE, ActiveToken, Remembered

_chance: Final = SystemRandom()
_CHANCES: Final = 16
"""Entries in use that may be passed over to find room for one: it bounds what a single `put` costs."""


class Entry:
    """What is remembered of one token. Whoever holds on to it sees by `current` whether it still is."""

    __slots__ = ("asked_ahead", "current", "remembered", "spread", "used")

    def __init__(self, remembered: Remembered, *, current: bool = True) -> None:
        self.remembered = remembered
        self.current = current
        self.used = False
        """Since it was last looked at as a candidate to make room: set by whoever uses it."""
        self.asked_ahead = False
        """Whether it was asked about again before its end."""
        self.spread = _chance.random()
        """From 0 to 1, by chance: those that were learned together are not asked about together."""


class MemoryTier:
    """Remembered token states; one that was not used for long makes room. Every operation but `drop_if` is O(1).

    Active and inactive tokens are bounded apart, so that a flood of bad tokens never pushes out a good one. What is in
    use gets a second chance (the clock algorithm): a use costs a flag, and nothing is moved.
    """

    __slots__ = ("_active", "_inactive", "_max_active", "_max_inactive")

    def __init__(self, max_entries: int, max_inactive: int) -> None:
        # A plain dict would search for its oldest key among all those that were deleted before.
        self._active: OrderedDict[bytes, Entry] = OrderedDict()
        self._inactive: OrderedDict[bytes, Entry] = OrderedDict()
        self._max_active = max_entries
        self._max_inactive = max_inactive

    def __len__(self) -> int:
        return len(self._active) + len(self._inactive)

    def __repr__(self) -> str:
        return f"<MemoryTier active={self.active} inactive={self.inactive}>"

    @property
    def active(self) -> int:
        """Number of active tokens remembered."""
        return len(self._active)

    @property
    def inactive(self) -> int:
        """Number of inactive tokens remembered."""
        return len(self._inactive)

    def entry(self, key: bytes) -> Entry | None:
        """Return the entry under `key`, fresh or not, and count this as a use."""
        entry = self._active.get(key) or self._inactive.get(key)
        if entry is not None:
            entry.used = True
        return entry

    def get(self, key: bytes) -> Remembered | None:
        """Return what is remembered under `key`, fresh or not."""
        entry = self.entry(key)
        return None if entry is None else entry.remembered

    def put(self, key: bytes, remembered: Remembered) -> None:
        """Remember, in place of whatever was known about `key`."""
        self.drop(key)
        if remembered.state is INACTIVE:
            entries, bound = self._inactive, self._max_inactive
        else:
            entries, bound = self._active, self._max_active
        entries[key] = Entry(remembered)
        if len(entries) > bound:
            _make_room(entries)

    def drop(self, key: bytes) -> bool:
        """Forget `key`; True when an active token was known under it."""
        entry = self._active.pop(key, None)
        for forgotten in (entry, self._inactive.pop(key, None)):
            if forgotten is not None:
                forgotten.current = False
        return entry is not None

    def drop_if(self, covered: Callable[[ActiveToken], bool]) -> int:
        """Forget every active token that is `covered`; returns how many. Walks them all: for operators."""
        keys = [
            key
            for key, entry in self._active.items()
            if isinstance(entry.remembered.state, ActiveToken) and covered(entry.remembered.state)
        ]
        for key in keys:
            self.drop(key)
        return len(keys)

    def clear(self) -> None:
        """Forget everything."""
        for entries in (self._active, self._inactive):
            for entry in entries.values():
                entry.current = False
            entries.clear()


def _make_room(entries: OrderedDict[bytes, Entry]) -> None:
    """Forget the oldest entry that was not used since it was last here."""
    for chance in range(_CHANCES + 1):
        key, entry = entries.popitem(last=False)
        if not entry.used or chance == _CHANCES:
            entry.current = False
            return
        entry.used = False
        entries[key] = entry
