"""Which metrics there are, and which the rules and the dashboard ask for."""

import re

from prometheus_client.parser import text_string_to_metric_families

from fastgate.control.metrics import exposition
from fastgate.stats import Counter, Histogram, Stats

MEASURED = (
    Counter("fastgate_cache_entries", "", "tier", "state", kind="gauge"),
    Counter("fastgate_upstream_open", "", "service", kind="gauge"),
    Counter("fastgate_workers", "", "state", kind="gauge"),
)
"""What `FleetOperations.gauges` adds to Stats; a test asks a running gateway whether that is so."""

_NAME = re.compile(r"(?<![\w:])fastgate_\w+(?![\w:])")


def series() -> dict[str, tuple[str, ...]]:
    """Return label names by name of every series that a gateway exposes, `le` not among them."""
    found: dict[str, tuple[str, ...]] = {"fastgate_build_info": ("version", "python", "aiohttp")}
    for family in (*Stats().families(), *MEASURED):
        if isinstance(family, Histogram):
            found |= {f"{family.name}_{end}": family.labels for end in ("bucket", "sum", "count")}
        else:
            found[family.name + ("" if family.kind == "gauge" else "_total")] = family.labels
    return found


def families(text: str) -> set[str]:
    """Return the names of the families in an exposition that are ours."""
    return {each.name for each in text_string_to_metric_families(text) if each.name.startswith("fastgate_")}


def announced() -> set[str]:
    """Return the families that a process announces."""
    return families(exposition(Stats(), MEASURED).decode())


def named(text: str) -> set[str]:
    """Return every series of ours that an expression, or a whole file, names."""
    return set(_NAME.findall(text))
