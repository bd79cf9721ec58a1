"""The results: a table to read, JSON to compare and plots to look at, in bench/results/."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import plots
from bench.cases import CASES, Case, Subject
from bench.figures import Round, Verdict, figures, judge, ratios, shown, spread, table
from bench.machine import ROOT, progress

RESULTS = ROOT / "bench" / "results"
COLUMNS = {
    "cpu_us": "CPU us/request",
    "cpu_s_per_gb": "CPU s/GB",
    "kernel_us": "of it kernel",
    "introspections": "introspections",
    "slowest_ms": "slowest ms",
    "kib_each": "KiB each",
    "rss_mb": "RSS MB",
    "rss_growth_mb": "RSS growth MB",
    "p50_ms": "p50 ms",
    "p90_ms": "p90 ms",
    "p99_ms": "p99 ms",
    "requests_per_s": "requests/s",
    "mb_per_s": "MB/s",
    "core": "its core",
    "others": "others",
}
"""The heads of figures, in their order; the last two are shares of the proxy's core: its own, and other programs'."""
_SHARES = ("core", "others")
_SPREAD = ("cpu_us", "cpu_s_per_gb", "slowest_ms", "p99_ms")
"""Figures of which least and most are shown, too."""
_HEADS = ("case", "what", "figure", "target", "met")
_MET = {True: "yes", False: "NO", None: "not measured"}


@dataclass(frozen=True, slots=True)
class Result:
    """A case, measured."""

    case: Case
    subjects: Sequence[Subject]
    """Those that were measured."""
    machine: Mapping[str, object]
    rounds: Sequence[Round]
    seconds: float
    asked: Mapping[str, int]
    """Questions to the identity provider during the rounds, by proxy."""
    absent: Mapping[str, str]
    """Subjects that could not be measured, and why."""

    @property
    def lines(self) -> list[tuple[str, ...]]:
        """The case's targets, judged: lines of a summary."""
        return [_line(self.case.name, judge(target, self.rounds)) for target in self.case.targets]


def save(result: Result) -> None:
    """Keep a result for this Python, and print its table."""
    file = keep(result.case.name, page(result), _json(result))
    (RESULTS / "SUMMARY.md").write_text(_everything())
    pairs = {subject.name: subject.against for subject in result.subjects}
    drawn = plots.draw(result.case.title, result.case.figure, COLUMNS[result.case.figure], pairs, result.rounds, file)
    progress(f"  written: {file.relative_to(ROOT)}.md .json {'.svg .png' if drawn else ''}")


def keep(name: str, text: str, data: str) -> Path:
    """Print a page and keep it, with its data, for this Python; returns where, without the ending."""
    RESULTS.mkdir(exist_ok=True)
    major, minor, _ = platform.python_version_tuple()
    file = RESULTS / f"{name}-py{major}{minor}"
    Path(f"{file}.md").write_text(text)
    Path(f"{file}.json").write_text(data)
    print(text)
    return file


def told(machine: Mapping[str, object]) -> str:
    """List what the figures belong to."""
    return "".join(f"- {key}: {value}\n" for key, value in machine.items())


def page(result: Result) -> str:
    """Tell of one case."""
    case = result.case
    long = f" of {result.seconds:g} s" if result.seconds else ""
    absent = "".join(f"Left out: {name} ({why}).\n" for name, why in result.absent.items())
    return "\n".join(
        [
            f"# {case.title}\n",
            f"{case.about}\n",
            _figures_table(result),
            f"Medians (least-most) of {len(result.rounds)} rounds{long}; ratios are taken within each round.",
            f"{absent}",
            *([summary(result.lines)] if case.targets else []),
            told(result.machine),
        ]
    )


def summary(lines: Iterable[Sequence[str]]) -> str:
    """One line per target."""
    return table(_HEADS, lines, len(_HEADS))


def _line(name: str, verdict: Verdict) -> tuple[str, ...]:
    target, found = verdict.target, verdict.found
    bound = target.bound + (" in every round" if target.worst else "")
    return (name, target.text, f"{found}{target.measure}" if found else "-", bound, _MET[verdict.met])


def _figures_table(result: Result) -> str:
    rounds, figure = result.rounds, result.case.figure
    measured = {name for each in rounds for found in each.values() for name in found}
    columns = [name for name in COLUMNS if name in measured]
    compared = any(subject.against for subject in result.subjects)
    rows = []
    for subject in result.subjects:
        cells = [_cell(name, figures(rounds, subject.name, name)) for name in columns]
        ratio = spread(ratios(rounds, subject.name, subject.against, figure)) if subject.against else None
        times = [f"{ratio} x {subject.against}" if ratio else ""] if compared else []
        rows.append([subject.name, *times, *cells])
    return table(["subject", *(["ratio"] if compared else []), *(COLUMNS[name] for name in columns)], rows)


def _cell(name: str, values: Sequence[float]) -> str:
    found = spread(values)
    if found is None:
        return ""
    if name in _SHARES:
        return f"{found.median:.0%}"
    return str(found) if name in _SPREAD else shown(found.median)


def _json(result: Result) -> str:
    """Compose it with one line per subject and round, so that changes can be read."""
    whole = {
        "case": result.case.name,
        "machine": dict(result.machine),
        "seconds": result.seconds,
        "introspections": dict(result.asked),
        "targets": [dict(zip(_HEADS, line, strict=True)) for line in result.lines],
    }
    rounds = [
        ",\n  ".join(json.dumps(name) + ": " + json.dumps(_rounded(found)) for name, found in each.items())
        for each in result.rounds
    ]
    head = json.dumps(whole, indent=1).removesuffix("\n}")
    return head + ',\n "rounds": [\n {' + "},\n {".join(rounds) + "}\n ]\n}\n"


def _rounded(found: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def _everything() -> str:
    """Compose the summary of all kept results, by Python."""
    order = {case.name: number for number, case in enumerate(CASES)}
    pages = ["# What was measured, and whether it is what it should be\n"]
    kept = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*-py*.json"))]
    kept = sorted((each for each in kept if each.get("case") in order), key=lambda each: order[each["case"]])
    for python in sorted({each["machine"]["python"] for each in kept}):
        mine = [each for each in kept if each["machine"]["python"] == python]
        lines = [
            [*(line[head] for head in _HEADS), each["machine"]["commit"]] for each in mine for line in each["targets"]
        ]
        pages += [f"## Python {python}\n", table([*_HEADS, "commit"], lines, len(_HEADS) + 1)]
    return "\n".join(pages)
