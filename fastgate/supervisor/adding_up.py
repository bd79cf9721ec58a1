"""What several workers say about themselves, as one."""

from collections.abc import Iterable, Mapping
from typing import Any


def added_up(said: Iterable[Any]) -> Any:
    """Merge values of one meaning: numbers are added, flags hold when they hold for all, mappings are merged by key.

    Lists are joined without repetition; of texts that differ every one is named.
    """
    values = [value for value in said if value is not None]
    if not values:
        return None
    first = values[0]
    if isinstance(first, bool):
        return all(values)
    if isinstance(first, int | float):
        return sum(values)
    if isinstance(first, Mapping):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: added_up(value.get(key) for value in values) for key in keys}
    if isinstance(first, list):
        joined: list[Any] = []
        for value in values:
            joined += [each for each in value if each not in joined]
        return joined
    return first if all(value == first for value in values) else ", ".join(sorted({str(value) for value in values}))
