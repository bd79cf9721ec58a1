"""Which route a request takes (RFC 9110 section 7.4), the same one however its path may be read upstream.

Order: more kinds of criteria first, exact hosts before wildcards before none, more headers, regular
expressions before plain prefixes, longer prefixes, then the order of the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from re import Pattern
from typing import Final, NamedTuple

from fastgate.model import Match, Reply, RequestHead, Route
from fastgate.policy.readings import decoded, decodings, is_plain, is_unsafe, variants
from fastgate.policy.replies import reply

_NOT_FOUND: Final = reply(404, reason="no_route", message="no Route matched with those values")
_AMBIGUOUS: Final = reply(400, reason="ambiguous_path")
_NO_METHODS: Final[frozenset[str]] = frozenset()
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


class _Entry(NamedTuple):
    """One way to reach a route: one path criterion with one kind of host."""

    rank: int
    route: Route
    prefix: str
    """Plain prefix; "" with a pattern or without a path criterion."""
    pattern: Pattern[str] | None
    hosts: frozenset[str]
    wildcards: tuple[str, ...]
    """Hosts with a `*`; an entry has exact hosts, or these, or neither."""


class _Index(NamedTuple):
    """Entries in order: those of one first path segment, and those that any path may take."""

    segments: dict[str, tuple[_Entry, ...]]
    general: tuple[_Entry, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RouteTable:
    """Routes ready to be matched; walks only the routes of the path's first segment and those without one."""

    raw: _Index = field(repr=False)
    """Paths as the configuration writes them, for paths as clients write them."""
    decoded: _Index = field(repr=False)
    """Paths percent-decoded, for the other readings."""
    routes: tuple[Route, ...]


def build(routes: Sequence[Route]) -> RouteTable:
    """Compile routes, given in the order of the file."""
    entries = [(_priority(entry), entry) for route in routes for entry in _entries(route)]
    entries.sort(key=lambda pair: pair[0])
    ranked = [entry._replace(rank=rank) for rank, (_, entry) in enumerate(entries)]
    return RouteTable(
        raw=_index(ranked),
        decoded=_index([entry._replace(prefix=decoded(entry.prefix)) for entry in ranked]),
        routes=tuple(routes),
    )


def match(table: RouteTable, head: RequestHead) -> Route | Reply:
    """Find the route of a request, or the answer to one that has none: 404, 405 with Allow, or 400.

    400 is for paths that two servers may read as two different routes, and on protected routes for every
    path whose reading is a matter of taste (dot segments, encoded separators, double encoding). A public
    route gets such paths untouched when all readings lead to it. A pattern must match the decoded path too,
    so one that spells out an escape matches nothing.
    """
    found = _find(table.raw, head, head.path)
    if is_plain(head.path):
        return found
    texts = decodings(head.path)
    if not texts:
        return _AMBIGUOUS
    readings = [(table.raw, text) for text in variants(texts[0]) if text != head.path]
    readings += [(table.decoded, text) for later in texts[1:] for text in variants(later)]
    for index, text in readings:
        other = _find(index, head, text)
        if other is not found and (isinstance(other, Route) or isinstance(found, Route)):
            return _AMBIGUOUS
    if isinstance(found, Route) and found.access is not None and is_unsafe(texts):
        return _AMBIGUOUS
    return found


def matched_length(match: Match, path: str) -> int:
    """Count the characters of `path` that the route's path criteria take: what `strip_path` removes."""
    for pattern in match.patterns:
        taken = pattern.match(path)
        if taken is not None:
            return taken.end()
    return max((len(prefix) for prefix in match.paths if _takes(prefix, path)), default=0)


def _takes(prefix: str, path: str) -> bool:
    """Match a plain prefix on a segment boundary."""
    if not path.startswith(prefix):
        return False
    return len(path) == len(prefix) or prefix[-1] == "/" or path[len(prefix)] == "/"


def _entries(route: Route) -> list[_Entry]:
    criteria = route.match
    paths: list[tuple[str, Pattern[str] | None]] = [("", pattern) for pattern in criteria.patterns]
    paths += [(prefix, None) for prefix in criteria.paths]
    exact = frozenset(host for host in criteria.hosts if "*" not in host)
    wild = tuple(host for host in criteria.hosts if "*" in host)
    hosts: list[tuple[frozenset[str], tuple[str, ...]]] = [(exact, ())] if exact else []
    hosts += [(frozenset(), wild)] if wild else []
    return [
        _Entry(0, route, prefix, pattern, names, wildcards)
        for prefix, pattern in paths or [("", None)]
        for names, wildcards in hosts or [(frozenset(), ())]
    ]


def _priority(entry: _Entry) -> tuple[int, int, int, bool, int]:
    """Sort key; what it leaves equal stays in the order of the file."""
    criteria = entry.route.match
    has_path = bool(criteria.paths or criteria.patterns)
    kinds = has_path + bool(criteria.methods) + bool(criteria.hosts) + bool(criteria.headers)
    host = 0 if entry.hosts else 1 if entry.wildcards else 2
    return -kinds, host, -len(criteria.headers), entry.pattern is None, -len(entry.prefix)


def _first_segment(path: str) -> str:
    end = path.find("/", 1)
    return path[1:] if end < 0 else path[1:end]


def _index(entries: Sequence[_Entry]) -> _Index:
    segments: dict[str, list[_Entry]] = {}
    general: list[_Entry] = []
    for entry in entries:
        segment = _first_segment(entry.prefix)
        (segments.setdefault(segment, []) if segment else general).append(entry)
    return _Index({segment: tuple(found) for segment, found in segments.items()}, tuple(general))


def _find(index: _Index, head: RequestHead, path: str) -> Route | Reply:
    """Match one reading of the path."""
    found: _Entry | None = None
    allowed = _NO_METHODS
    for entries in (index.segments.get(_first_segment(path), ()), index.general):
        for entry in entries:
            if found is not None and found.rank < entry.rank:
                break
            if not _fits(entry, head, path):
                continue
            methods = entry.route.match.methods
            if not methods or head.method in methods:
                found = entry
                break
            allowed = allowed | methods
    if found is not None:
        return found.route
    if allowed:
        return reply(405, reason="method", fields=((b"Allow", ", ".join(sorted(allowed)).encode("ascii")),))
    return _NOT_FOUND


def _fits(entry: _Entry, head: RequestHead, path: str) -> bool:
    """Compare everything but the method."""
    if entry.pattern is not None:
        if entry.pattern.match(path) is None:
            return False
    elif entry.prefix and not _takes(entry.prefix, path):
        return False
    if (entry.hosts or entry.wildcards) and not _host_fits(entry, head):
        return False
    criteria = entry.route.match.headers
    return not criteria or all(
        any(name == wanted and value in accepted for name, _, value in head.fields) for wanted, accepted in criteria
    )


def _host_fits(entry: _Entry, head: RequestHead) -> bool:
    """Compare the authority with and without its port, without a final dot (RFC 1034 section 3.1)."""
    name, colon, port = head.host.rpartition(":")
    if not colon or not (port.isdigit() or not port):
        name, port = head.host, ""
    name = name.removesuffix(".")
    authority = f"{name}:{port or _DEFAULT_PORTS.get(head.scheme, '')}"
    if name in entry.hosts or authority in entry.hosts:
        return True
    return any(_wildcard_fits(wildcard, name, authority) for wildcard in entry.wildcards)


def _wildcard_fits(wildcard: str, name: str, authority: str) -> bool:
    """Match one `*` standing for one or more labels at an end; a port can only follow a name that ends."""
    if wildcard.startswith("*"):
        text = authority if ":" in wildcard else name
        return len(text) >= len(wildcard) and text.endswith(wildcard[1:])
    return len(name) >= len(wildcard) and name.startswith(wildcard[:-1])
