"""What was worked out before, by the exact octets it was worked out from."""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LONGEST: Final = 1024
"""Octets of a key worth keeping."""


class Memo(Generic[K, V]):
    """Keeps the newest `size` to twice `size` entries: what was not asked for while `size` others came is forgotten.

    Two dicts that take turns: every operation is O(1), and nothing is moved for an entry that is found where it was.
    """

    __slots__ = ("_size", "old", "young")

    def __init__(self, size: int) -> None:
        self._size = size
        self.young: dict[K, V] = {}
        self.old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self.old)

    def get(self, key: K) -> V | None:
        """Return what is kept under `key`."""
        found = self.young.get(key)
        if found is None and self.old:
            found = self.old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: K, value: V) -> None:
        """Keep `value`, in place of what was kept under `key`."""
        self.young[key] = value
        if len(self.young) >= self._size:
            self.old, self.young = self.young, {}

    def clear(self) -> None:
        """Forget everything."""
        self.old, self.young = {}, {}
