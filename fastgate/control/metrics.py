"""Prometheus text out of the plain counters of `fastgate.stats`."""

import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
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


def exposition(stats: Stats, gauges: Iterable[Counter] = ()) -> bytes:
    """Every metric of the process in the text format.

    `gauges` are what is read when asked instead of counted, such as cache sizes. Safe in a thread beside the
    one that counts: hundreds of routes take tens of milliseconds, which the event loop does not have.
    """
    registry = CollectorRegistry()
    registry.register(_Collector((*stats.families(), *gauges)))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return generate_latest(registry)


class _Collector(Collector):
    """Our families, as prometheus_client asks for them."""

    def __init__(self, families: Iterable[Counter | Histogram]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterator[Metric]:
        yield build_info()
        for family in self._families:
            yield _histogram(family) if isinstance(family, Histogram) else _counter(family)


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
