"""From the figures of rounds to ratios, verdicts and tables; pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

Figures = dict[str, float]
Round = Mapping[str, Figures]
"""By subject: what was measured of it."""


class Spread(NamedTuple):
    """The figures of several rounds."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        if self.least == self.most:
            return shown(self.median)
        return f"{shown(self.median)} ({shown(self.least)}-{shown(self.most)})"


@dataclass(frozen=True, slots=True)
class Target:
    """What a case must show: a figure, or how many times another subject's figure it is in the same round."""

    text: str
    subject: str
    at_most: float
    figure: str
    against: str = ""
    unit: str = ""
    worst: bool = False
    """Whether the worst round counts instead of the median."""

    @property
    def bound(self) -> str:
        """The target in words."""
        return f"<= {self.at_most:g}{self.measure}"

    @property
    def measure(self) -> str:
        """What the figure counts."""
        return f" x {self.against}" if self.against else f" {self.unit}".rstrip()


class Verdict(NamedTuple):
    """A target and what was measured."""

    target: Target
    found: Spread | None
    """None: not measured."""

    @property
    def met(self) -> bool | None:
        """Whether the target was met."""
        if self.found is None:
            return None
        return (self.found.most if self.target.worst else self.found.median) <= self.target.at_most


def spread(values: Iterable[float]) -> Spread | None:
    """Reduce the figures of several rounds; None when there are none."""
    found = list(values)
    return Spread(median(found), min(found), max(found)) if found else None


def figures(rounds: Sequence[Round], subject: str, figure: str) -> list[float]:
    """Pick one figure of one subject, round by round."""
    return [each[subject][figure] for each in rounds if figure in each.get(subject, {})]


def ratios(rounds: Sequence[Round], subject: str, against: str, figure: str) -> list[float]:
    """How many times the other's figure it was, round by round."""
    return [
        each[subject][figure] / each[against][figure]
        for each in rounds
        if each.get(subject, {}).get(figure) and each.get(against, {}).get(figure)
    ]


def judge(target: Target, rounds: Sequence[Round]) -> Verdict:
    """Hold the rounds against a target."""
    if target.against:
        return Verdict(target, spread(ratios(rounds, target.subject, target.against, target.figure)))
    return Verdict(target, spread(figures(rounds, target.subject, target.figure)))


def shown(value: float) -> str:
    """A figure with about three digits that count."""
    for bound, digits in ((1000, 0), (100, 0), (10, 1)):
        if abs(value) >= bound:
            return f"{value:.{digits}f}"
    return f"{value:.2f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Lay out a Markdown table so that it can be read as it is; the first `words` columns are words, not numbers."""
    lines = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    text = [
        "| " + " | ".join(_padded(line[at], widths[at], at < words) for at in range(len(heads))) + " |"
        for line in lines
    ]
    rule = "|".join("-" * (width + 2) if at < words else "-" * (width + 1) + ":" for at, width in enumerate(widths))
    return "\n".join([text[0], f"|{rule}|", *text[1:]]) + "\n"


def _padded(cell: str, width: int, left: bool) -> str:  # noqa: FBT001
    return cell.ljust(width) if left else cell.rjust(width)
