"""`fastgate routes`: the compiled route table."""

from rich.table import Table

from fastgate.cli.output import printable, table
from fastgate.model import Access, Match, Requirement, Route, Snapshot


def route_table(snapshot: Snapshot) -> Table:
    """Every route in the order of the file: what it takes, where it leads, what it asks for."""
    rows = table("route", "match", "service", "auth")
    for route in snapshot.routes:
        cells = (route.name, matched(route.match), leads_to(route), required(route.access))
        rows.add_row(*(printable(cell) for cell in cells))
    return rows


def matched(match: Match) -> str:
    """What a route takes, in words."""
    kinds = (
        ",".join(sorted(match.methods)),
        ",".join(match.hosts),
        " ".join((*match.paths, *(f"~{pattern.pattern}" for pattern in match.patterns))),
        " ".join(
            f"{name.decode('ascii')}={'|'.join(sorted(value.decode('ascii') for value in values))}"
            for name, values in match.headers
        ),
    )
    return "  ".join(kind for kind in kinds if kind)


def leads_to(route: Route) -> str:
    """Where a route leads, in words."""
    service = route.service
    return f"{service.name} {service.scheme}://{service.authority}{service.path}/"


def required(access: Access | None) -> str:
    """What a route asks for, in words."""
    if access is None:
        return "public"
    return "  ".join((access.provider.name, *(requirement(one) for one in access.policy.requirements)))


def requirement(wanted: Requirement) -> str:
    """One requirement, in words: `scope profile+email|admin`."""
    return f"{wanted.reason} {'|'.join('+'.join(sorted(words)) for words in wanted.alternatives)}"
