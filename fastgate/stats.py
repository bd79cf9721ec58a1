"""Counters as plain integers. Recording is a dict increment; only `control` turns them into text.

Labels come from the configuration or from closed sets: never a token, a path or text that a peer sent.
"""

from bisect import bisect_left
from typing import Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the latency buckets, in seconds."""


class Counter:
    """A family of counters (or gauges) told apart by label values."""

    __slots__ = ("_cells", "help", "kind", "labels", "name")

    def __init__(self, name: str, help_: str, *labels: str, kind: str = "counter") -> None:
        self.name = name
        self.help = help_
        self.labels = labels
        self.kind = kind
        self._cells: dict[tuple[str, ...], list[int]] = {}
        if not labels:
            self.cell()

    @property
    def values(self) -> dict[tuple[str, ...], int]:
        """What was counted, by label values; a counter that nobody has used yet is not there."""
        every = self.kind == "gauge" or not self.labels
        return {labels: cell[0] for labels, cell in list(self._cells.items()) if cell[0] or every}

    def cell(self, *labels: str) -> list[int]:
        """Return the one integer of these label values, for those who count often: `cell[0] += 1`."""
        return self._cells.setdefault(labels, [0])

    def add(self, *labels: str, amount: int = 1) -> None:
        """Add `amount` to the counter of these label values."""
        cell = self._cells.get(labels)
        if cell is None:
            cell = self.cell(*labels)
        cell[0] += amount

    def total(self, *labels: str) -> int:
        """Sum over every counter whose label values begin with `labels`."""
        n = len(labels)
        return sum(value for key, value in self.values.items() if key[:n] == labels)


class Histogram:
    """Latencies in fixed buckets, by one label."""

    __slots__ = ("help", "labels", "name", "series")

    def __init__(self, name: str, help_: str, *labels: str) -> None:
        self.name = name
        self.help = help_
        self.labels = labels
        self.series: dict[tuple[str, ...], list[float]] = {}
        """Per label values: one count per bucket of SECONDS, one for +Inf, then the sum in seconds."""

    def row(self, *labels: str) -> list[float]:
        """Return the row of these label values, for those who `count` often."""
        row = self.series.get(labels)
        if row is None:
            row = self.series[labels] = [0] * (len(SECONDS) + 2)
        return row

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one latency."""
        count(self.row(*labels), seconds)


def count(row: list[float], seconds: float) -> None:
    """Count one latency in a row of `Histogram.series`."""
    row[bisect_left(SECONDS, seconds)] += 1
    row[-1] += seconds


class Stats:
    """Everything the process counts. A new metric is a line here and a call where it happens."""

    __slots__ = (
        "access_log_dropped",
        "cache_hits",
        "cache_misses",
        "config_reloads",
        "connections",
        "connections_refused",
        "denials",
        "flights",
        "forward_failures",
        "heads_refused",
        "held_off",
        "introspection_seconds",
        "introspections",
        "leases",
        "marks",
        "notices",
        "redis_errors",
        "requests",
        "requests_active",
        "revocations",
        "shared_up",
        "splices",
        "upstream_connections",
        "upstream_retries",
        "upstream_seconds",
        "worker_restarts",
    )

    def __init__(self) -> None:
        self.requests = Counter("fastgate_requests", "Requests answered.", "route", "status")
        self.requests_active = Counter("fastgate_requests_active", "Requests being answered.", kind="gauge")
        self.connections = Counter("fastgate_connections", "Open client connections.", kind="gauge")
        self.connections_refused = Counter("fastgate_connections_refused", "Client connections over the limit.")
        self.heads_refused = Counter("fastgate_heads_refused", "Malformed requests refused.", "status")
        self.denials = Counter("fastgate_denials", "Requests refused by policy.", "route", "reason")
        self.introspections = Counter(
            "fastgate_introspections", "Questions to an identity provider.", "identity_provider", "outcome"
        )
        self.held_off = Counter(
            "fastgate_identity_provider_held_off",
            "Workers that hold off from it, as it fails every time; together they ask it once a second.",
            "identity_provider",
            kind="gauge",
        )
        self.introspection_seconds = Histogram(
            "fastgate_introspection_seconds", "Time an introspection took.", "identity_provider"
        )
        self.cache_hits = Counter("fastgate_cache_hits", "Token states remembered.", "tier", "state")
        self.cache_misses = Counter("fastgate_cache_misses", "Token states not remembered.", "tier", "reason")
        self.flights = Counter(
            "fastgate_flights", "Token loads: started, joined while under way, or ahead of need.", "role"
        )
        self.notices = Counter(
            "fastgate_notices", "Logout tokens and security events that came.", "identity_provider", "kind", "outcome"
        )
        self.revocations = Counter("fastgate_revocations", "Revocations taken.", "kind")
        self.splices = Counter("fastgate_splices", "Large bodies passed from socket to socket.")
        self.leases = Counter("fastgate_leases", "Token loads that other workers and hosts share in.", "outcome")
        self.marks = Counter("fastgate_marks", "Revocations sent to and received from others.", "outcome")
        self.redis_errors = Counter("fastgate_redis_errors", "Failed operations of the shared tier.", "kind")
        self.shared_up = Counter(
            "fastgate_shared_up", "Workers that use the shared tier now, and do not bypass it.", "backend", kind="gauge"
        )
        self.upstream_seconds = Histogram(
            "fastgate_upstream_seconds", "Time from a forwarded head to the answer's head.", "service"
        )
        self.upstream_connections = Counter(
            "fastgate_upstream_connections", "Upstream connections opened or reused.", "service", "how"
        )
        self.upstream_retries = Counter("fastgate_upstream_retries", "Requests sent a second time.", "service")
        self.forward_failures = Counter("fastgate_forward_failures", "Forwarding failures.", "service", "side", "stage")
        self.access_log_dropped = Counter("fastgate_access_log_dropped", "Access lines dropped: sink too slow.")
        self.worker_restarts = Counter(
            "fastgate_worker_restarts", "Workers replaced although nobody wanted it.", "reason"
        )
        self.config_reloads = Counter("fastgate_config_reloads", "Configuration reloads.", "outcome")

    def families(self) -> list[Counter | Histogram]:
        """Every metric, in the order of their names."""
        return [getattr(self, name) for name in self.__slots__]
