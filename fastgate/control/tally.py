"""What several processes counted: as plain values that travel between them, and added up."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastgate.stats import Counter, Histogram, Stats

Tally = Mapping[str, Any]
"""{"stats": {family: [[labels, value], ...]}, "gauges": [[name, help, labels, cells], ...], "cpu": seconds}"""

ONCE: Final = frozenset({"fastgate_revocations"})
"""What every process counts although it happened once: the one that told them all counts for them."""


def tally(stats: Stats, gauges: Iterable[Counter], cpu: float) -> Tally:
    """Describe everything that a process has counted, in values that JSON knows; `cpu` is what it used, in seconds."""
    return {
        "stats": {family.name: _cells(family) for family in stats.families()},
        "gauges": [[gauge.name, gauge.help, gauge.labels, _cells(gauge)] for gauge in gauges],
        "cpu": cpu,
    }


def _cells(family: Counter | Histogram) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(family, Histogram):
        return [(labels, list(row)) for labels, row in list(family.series.items())]
    return list(family.values.items())


class Totals:
    """The sum over processes that live and those that have ended: counts never go backwards."""

    def __init__(self, own: Stats) -> None:
        """`own` is what this process counts."""
        self._ended = Stats()
        self.own = own
        self.ended_cpu = 0.0
        """Seconds of processor time that those used which have ended."""

    def keep(self, last: Tally) -> None:
        """Count a process that has ended by what it said last; what is measured ended with it."""
        _add(self._ended, _without(last), measured=False)
        self.ended_cpu += last["cpu"]

    def sum(self, living: Iterable[Tally]) -> tuple[Stats, tuple[Counter, ...]]:
        """Add everything up: what was counted, and what is measured when asked."""
        stats = Stats()
        gauges: dict[str, Counter] = {}
        _add(stats, tally(self._ended, (), 0.0), measured=False)
        for each in (tally(self.own, (), 0.0), *map(_without, living)):
            _add(stats, each, measured=True)
            for name, help_, labels, cells in each["gauges"]:
                gauge = gauges.setdefault(name, Counter(name, help_, *labels, kind="gauge"))
                for values, amount in cells:
                    gauge.add(*values, amount=amount)
        return stats, tuple(gauges.values())


def _without(said: Tally) -> Tally:
    """What a process said of itself, but what is counted here."""
    return {**said, "stats": {name: cells for name, cells in said["stats"].items() if name not in ONCE}}


def _add(stats: Stats, said: Tally, *, measured: bool) -> None:
    """Add what a process said; families that only other versions of fastgate know are left out."""
    for family in stats.families():
        cells = said["stats"].get(family.name, ())
        if isinstance(family, Histogram):
            for labels, row in cells:
                known = family.series.setdefault(tuple(labels), [0] * len(row))
                family.series[tuple(labels)] = [a + b for a, b in zip(known, row, strict=False)]
        elif measured or family.kind == "counter":
            for labels, amount in cells:
                family.add(*labels, amount=amount)
