"""What a step has shown: a figure, what it should be, and whether it is; or that it was no measurement at all."""

from dataclasses import dataclass
from math import inf

from bench.figures import shown


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table."""

    what: str
    figure: str
    target: str = ""
    met: str = ""


def at_most(what: str, value: float, limit: float) -> Line:
    """Judge a figure; by an infinite limit only tell it."""
    if limit == inf:
        return say(what, value)
    return Line(what, _text(value), f"<= {_text(limit)}", "yes" if value <= limit else "NO")


def say(what: str, *values: float) -> Line:
    """Only tell."""
    return Line(what, ", ".join(map(_text, values)))


def must(good: object, what: str) -> None:
    """Give up when something is not so: then nothing was measured."""
    if not good:
        raise RuntimeError(what)


def _text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else shown(value)
