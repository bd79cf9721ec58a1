"""Prometheus text out of the plain counters of `fastgate.stats`."""

import os
import platform
from collections.abc import Iterable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fastgate import __version__
from fastgate.stats import SECONDS, Counter, Histogram, Stats

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The text format that every scraper reads; our names and labels need nothing newer."""

_BOUNDS: Final = (*map(str, SECONDS), "+Inf")


class Processes(NamedTuple):
    """What the gateway consists of."""

    pids: tuple[int, ...]
    """The first is the one that started the others."""
    spent: float = 0.0
    """Seconds of processor time that those used which have ended."""


def exposition(stats: Stats, gauges: Iterable[Counter] = (), processes: Processes | None = None) -> bytes:
    """Every metric in the text format; `processes` are this one unless they are given.

    `gauges` are what is read when asked instead of counted, such as cache sizes. Safe in a thread beside the
    one that counts: hundreds of routes take tens of milliseconds, which the event loop does not have.
    """
    registry = CollectorRegistry()
    registry.register(_Collector((*stats.families(), *gauges)))
    registry.register(_ProcessesCollector(processes or Processes((os.getpid(),))))
    return generate_latest(registry)


class _Collector(Collector):
    """Our families, as prometheus_client asks for them."""

    def __init__(self, families: Iterable[Counter | Histogram]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterator[Metric]:
        yield build_info()
        for family in self._families:
            yield _histogram(family) if isinstance(family, Histogram) else _counter(family)


class _ProcessesCollector(Collector):
    """prometheus_client's `process_*` of one process, added up over several."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        pids, spent = self._processes
        collected = [
            {metric.name: metric for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect()}
            for pid in pids
        ]
        for name, metric in collected[0].items():
            (sample,) = metric.samples
            if name not in _OF_THE_FIRST:
                total = sum(each[name].samples[0].value for each in collected if name in each)
                metric.samples = [sample._replace(value=total + (spent if name == _CPU else 0.0))]
            yield metric


_CPU: Final = "process_cpu_seconds"
_OF_THE_FIRST: Final = frozenset({"process_start_time_seconds", "process_max_fds"})
"""What nobody would add up."""


def build_info() -> Metric:
    """`fastgate_build_info`: which versions are running."""
    labels = {"version": __version__, "python": platform.python_version(), "aiohttp": version("aiohttp")}
    return InfoMetricFamily("fastgate_build", "Versions of what is running.", value=labels)


def _counter(family: Counter) -> Metric:
    kind = GaugeMetricFamily if family.kind == "gauge" else CounterMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, value in dict(family.values).items():
        metric.add_metric(labels, value)
    return metric


def _histogram(family: Histogram) -> Metric:
    """Buckets are counted apart and exposed as sums of themselves and all smaller ones."""
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, row in dict(family.series).items():
        counts = list(row)
        metric.add_metric(labels, list(zip(_BOUNDS, accumulate(counts[:-1]), strict=True)), sum_value=counts[-1])
    return metric
