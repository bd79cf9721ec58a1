"""What a step of the cluster's cases found: figures beside what they should be, and a row per fault; pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from bench.figures import shown, table
from bench.judging import Fate, Tally, Window, percentile
from bench.report import told

COLUMNS: Final = {
    "requests": "requests",
    "wrong": "wrong",
    "lost": "lost",
    "refused": "refused",
    "unserved": "unserved",
    "quiet_p50_ms": "quiet p50 ms",
    "quiet_p99_ms": "quiet p99 ms",
    "fault_p50_ms": "fault p50 ms",
    "fault_p99_ms": "fault p99 ms",
    "added_ms": "first affected, added ms",
    "shared_again_s": "shared again s",
    "asked": "introspections",
    "keys": "Redis keys",
    "rss_before_mb": "RSS before MB",
    "rss_after_mb": "RSS after MB",
    "files_before": "files before",
    "files_after": "files after",
    "kept_before": "to Redis, IdP before",
    "kept_after": "to Redis, IdP after",
    "cores_busy": "cores busy",
    "cores_gateways": "of them with gateways",
    "lag_p99_ms": "loop p99 ms",
    "lag_most_ms": "loop most ms",
    "late_most_ms": "machine most ms",
}
"""The heads of a row's figures, in their order."""


class Figure(NamedTuple):
    """One figure of FAULTS.md part 2."""

    number: str
    what: str
    found: str
    target: str
    met: bool
    must: bool = True
    """Whether the step fails without: what is counted must be right, what is felt depends on the machine as well."""


@dataclass
class Report:
    """A step."""

    title: str
    about: str
    figures: list[Figure] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Each with "fault", and what it has of COLUMNS."""
    examples: list[str] = field(default_factory=list)
    """Requests that were not answered as they should be."""

    @property
    def failures(self) -> list[str]:
        """What must be and is not."""
        return [
            f"{each.number} {each.what}: {each.found}, not {each.target}"
            for each in self.figures
            if each.must and not each.met
        ]

    def must(self, number: str, what: str, found: float, most: float = 0, *, of: float | None = None) -> None:
        """Add what is counted."""
        text = _number(found) + ("" if of is None else f" of {_number(of)}")
        target = f"<= {_number(most)}" if most else "0"
        self.figures.append(Figure(number, what, text, target, found <= most))

    def must_be(self, number: str, what: str, found: float, exactly: float) -> None:
        """Add what is counted and can have one value only."""
        self.figures.append(Figure(number, what, _number(found), _number(exactly), found == exactly))

    def felt(self, number: str, what: str, found: float, most: float, unit: str) -> None:
        """Add what is felt."""
        self.figures.append(
            Figure(number, what, f"{_number(found)} {unit}", f"<= {_number(most)} {unit}", found <= most, must=False)
        )

    def descriptors(self, row: Mapping[str, Any]) -> None:
        """Add what is left open ten seconds after."""
        kept = row["kept_after"] - row["kept_before"]
        rest = row["files_after"] - row["files_before"] - kept
        self.felt("24", f"descriptors 10 s after, but for {kept} more kept to Redis and the IdP", rest, 2, "more")

    def note(self, tally: Tally, window: Window | None = None, *, but: tuple[Fate, ...] = ()) -> None:
        """Keep some of the requests that went wrong."""
        seen = [t for t in tally.troubles if t.fate not in but and (window is None or t.began in window)]
        self.examples += [f"{each.fate}: {each.detail}" for each in seen[: max(0, 20 - len(self.examples))]]


def counted(tallies: Mapping[str, Tally], window: Window | None = None) -> dict[str, float]:
    """Count the requests of all kinds, and their troubles."""
    fates = [each.fates(window) for each in tallies.values()]
    found = {str(fate): sum(each[fate] for each in fates) for fate in (Fate.WRONG, Fate.LOST, Fate.REFUSED)}
    found["unserved"] = sum(each[Fate.UNSERVED] for each in fates)
    return {"requests": sum(each.count(window) for each in tallies.values()), **found}


def felt(tally: Tally, quiet: Window, fault: Window) -> dict[str, float]:
    """Latencies before and during a fault."""
    before, during = tally.milliseconds(quiet), tally.milliseconds(fault)
    return {
        "quiet_p50_ms": percentile(before, 0.5),
        "quiet_p99_ms": percentile(before, 0.99),
        "fault_p50_ms": percentile(during, 0.5),
        "fault_p99_ms": percentile(during, 0.99),
    }


def page(report: Report, machine: Mapping[str, object]) -> str:
    """Tell of one step."""
    heads = ("figure", "what", "found", "target", "met")
    lines = [(each.number, each.what, each.found, each.target, "yes" if each.met else "NO") for each in report.figures]
    used = [name for name in COLUMNS if any(name in row for row in report.rows)]
    rows = [[row["fault"], *(_cell(row.get(name)) for name in used)] for row in report.rows]
    faults = table(["fault", *(COLUMNS[name] for name in used)], rows) if rows else ""
    examples = "".join(f"- `{each[:300]}`\n" for each in report.examples)
    return "\n".join(
        [
            f"# {report.title}\n",
            f"{report.about}\n",
            table(heads, lines, len(heads)),
            *([faults] if faults else []),
            *([f"Not as they should be, for instance:\n\n{examples}"] if examples else []),
            told(machine),
        ]
    )


def _cell(value: float | None) -> str:
    return "" if value is None else _number(value)


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() else shown(value)
