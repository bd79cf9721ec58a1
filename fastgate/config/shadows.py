"""Whether a client can reach a public route by leaving a header out of a request to a protected one."""

from collections.abc import Iterator, Mapping
from itertools import islice, product

from fastgate.config.document import Finding, Path
from fastgate.model import NO_BODY, RequestHead, Route
from fastgate.policy.routing import RouteTable, match

MAX_TRIES = 64
"""Requests tried for one route."""


def shadow_findings(table: RouteTable, routes: Mapping[Path, Route]) -> Iterator[Finding]:
    """Find public routes that take what a protected route takes only with certain headers.

    Public or protected is decided by the request line and Host alone; a header is the client's choice. Tried are the
    plain paths of the route as they stand, so a regular expression that hides behind a longer path is not found.
    """
    for path, route in routes.items():
        if route.access is None or not route.match.headers:
            continue
        criteria = route.match
        tries = product(
            criteria.paths or ("/",), sorted(criteria.methods) or ("GET",), criteria.hosts or ("fastgate.invalid",)
        )
        for prefix, method, host in islice(tries, MAX_TRIES):
            taken = match(table, _without_headers(prefix, method, host.replace("*", "any")))
            if isinstance(taken, Route) and taken.access is None:
                message = (
                    f"protects only requests that carry these headers: without them the public route {taken.name} "
                    "takes over; protect that one, or match without headers"
                )
                yield Finding((*path, "headers"), message)
                break


def _without_headers(path: str, method: str, host: str) -> RequestHead:
    return RequestHead(
        method=method,
        target=path.encode("ascii"),
        path=path,
        query=None,
        http_1_0=False,
        host=host,
        fields=(),
        framing=NO_BODY,
        keep_alive=True,
        upgrade=None,
        expects_continue=False,
        scheme="http",
        peer="",
        port=0,
    )
