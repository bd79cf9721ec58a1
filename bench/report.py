"""Progress while it runs, and the result: a table to read and JSON to compare, in bench/results/."""

import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from bench.machine import ROOT

RESULTS = ROOT / "bench" / "results"


def progress(text: str) -> None:
    """Say what is being done."""
    print(text, file=sys.stderr, flush=True)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out a Markdown table."""
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Reduce the figures of several rounds to median, least and most."""
    return {
        "median": round(median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def save(name: str, title: str, tables: str, result: Mapping[str, object]) -> None:
    """Print the tables and keep them, beside the JSON, for this Python."""
    major, minor, _ = platform.python_version_tuple()
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}-py{major}{minor}"
    machine = result["machine"]
    told = "\n".join(f"- {key}: {value}" for key, value in machine.items()) if isinstance(machine, dict) else ""
    text = f"# {title}\n\n{tables}\n{told}\n"
    file.with_suffix(".md").write_text(text)
    file.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(text)
    progress(f"written: {file.relative_to(ROOT)}.md and .json")


def _text(cell: object) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
