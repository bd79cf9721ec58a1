"""The memory tier: token states by digest, bounded, with a budget of their own for inactive ones.

It knows neither freshness nor time: the resolver decides what is worth keeping, and whether it is fresh.
"""

from collections import OrderedDict
from collections.abc import Callable

from fastgate.model import INACTIVE, ActiveToken, Remembered


class MemoryTier:
    """Remembered token states; the least recently used one makes room. Every operation but `drop_if` is O(1).

    Active and inactive tokens are bounded apart, so that a flood of bad tokens never pushes out a good one.
    """

    __slots__ = ("_active", "_inactive", "_max_active", "_max_inactive")

    def __init__(self, max_entries: int, max_inactive: int) -> None:
        self._active: OrderedDict[bytes, Remembered] = OrderedDict()
        self._inactive: OrderedDict[bytes, Remembered] = OrderedDict()
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

    def get(self, key: bytes) -> Remembered | None:
        """Return what is remembered under `key`, fresh or not."""
        remembered = self._active.get(key)
        if remembered is not None:
            self._active.move_to_end(key)
            return remembered
        remembered = self._inactive.get(key)
        if remembered is not None:
            self._inactive.move_to_end(key)
        return remembered

    def put(self, key: bytes, remembered: Remembered) -> None:
        """Remember, in place of whatever was known about `key`."""
        if remembered.state is INACTIVE:
            entries, others, bound = self._inactive, self._active, self._max_inactive
        else:
            entries, others, bound = self._active, self._inactive, self._max_active
        others.pop(key, None)
        entries[key] = remembered
        entries.move_to_end(key)
        if len(entries) > bound:
            entries.popitem(last=False)

    def drop(self, key: bytes) -> bool:
        """Forget `key`; True when an active token was known under it."""
        self._inactive.pop(key, None)
        return self._active.pop(key, None) is not None

    def drop_if(self, covered: Callable[[ActiveToken], bool]) -> int:
        """Forget every active token that is `covered`; returns how many. Walks them all: for operators."""
        keys = [
            key
            for key, remembered in self._active.items()
            if isinstance(remembered.state, ActiveToken) and covered(remembered.state)
        ]
        for key in keys:
            del self._active[key]
        return len(keys)

    def clear(self) -> None:
        """Forget everything."""
        self._active.clear()
        self._inactive.clear()
