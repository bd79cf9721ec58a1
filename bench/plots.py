"""Plots of one case: cost by subject, ratio by round, latency by percentile."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Round, figures, ratios, spread
from bench.machine import progress

_PERCENTILES = ("p50_ms", "p90_ms", "p99_ms")


def draw(title: str, figure: str, unit: str, subjects: Mapping[str, str], rounds: Sequence[Round], file: Path) -> bool:
    """Write FILE.svg and FILE.png; `subjects` says to whom each one's ratio is taken. False without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - only the bench's extra has it
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        progress("  no plots: matplotlib is missing (`pip install '.[bench]'`)")
        return False
    mpl.rcParams["svg.hashsalt"] = "fastgate"  # the same figures make the same file
    mpl.rcParams["svg.fonttype"] = "none"
    names = [name for name in subjects if figures(rounds, name, figure)]
    latency = any(figures(rounds, name, "p50_ms") for name in names)
    compared = {name: ratios(rounds, name, subjects[name], figure) for name in names if subjects[name]}
    panels = 1 + bool(compared) + latency
    drawing = Figure(figsize=(5 * panels, 1.6 + 0.42 * len(names)), layout="constrained")
    drawing.suptitle(title)
    axes = iter(drawing.subplots(1, panels, squeeze=False)[0])
    _cost(next(axes), names, figure, unit, rounds)
    if compared:
        _ratios(next(axes), compared, subjects)
    if latency:
        _latency(next(axes), names, rounds)
    drawing.savefig(f"{file}.svg", metadata={"Date": None})
    drawing.savefig(f"{file}.png", dpi=80)
    return True


def _cost(axes: Any, names: Sequence[str], figure: str, unit: str, rounds: Sequence[Round]) -> None:
    """Bars of medians, the kernel's part darker; a dot per round."""
    places = range(len(names))
    axes.barh(places, [_median(rounds, name, figure) for name in names], color="#8fb8de")
    if figure == "cpu_us":
        axes.barh(places, [_median(rounds, name, "kernel_us") for name in names], color="#4a7fb0", label="kernel")
        axes.legend(loc="lower right", fontsize="small")
    for place, name in enumerate(names):
        values = figures(rounds, name, figure)
        axes.plot(values, [place] * len(values), ".", color="#222222", markersize=4)
    _named(axes, names, unit)


def _ratios(axes: Any, compared: Mapping[str, Sequence[float]], subjects: Mapping[str, str]) -> None:
    """A dot per round, a line at the median."""
    for place, values in enumerate(compared.values()):
        axes.plot(values, [place] * len(values), "o", color="#4a7fb0", markersize=4, alpha=0.7)
        if found := spread(values):
            axes.plot([found.median] * 2, [place - 0.3, place + 0.3], color="#b03a2e")
    axes.axvline(1, color="#999999", linewidth=0.8)
    _named(axes, list(compared), "times " + " / ".join(dict.fromkeys(subjects[name] for name in compared)))


def _latency(axes: Any, names: Sequence[str], rounds: Sequence[Round]) -> None:
    """A line from p50 over p90 to p99 for every subject."""
    for place, name in enumerate(names):
        values = [_median(rounds, name, percentile) for percentile in _PERCENTILES]
        axes.plot(values, [place] * len(values), "-", color="#999999", linewidth=1)
        for value, colour in zip(values, ("#4a7fb0", "#e0a030", "#b03a2e"), strict=True):
            axes.plot([value], [place], "o", color=colour, markersize=5)
    axes.set_xscale("log")
    _named(axes, names, "ms: p50 (blue), p90, p99 (red)")


def _named(axes: Any, names: Sequence[str], unit: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_axisbelow(True)


def _median(rounds: Sequence[Round], name: str, figure: str) -> float:
    found = spread(figures(rounds, name, figure))
    return found.median if found else 0.0
