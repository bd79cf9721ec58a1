"""How the commands speak: plain lines that can be searched, tables that fit a terminal."""

import sys
from collections.abc import Iterable
from typing import Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastgate.errors import ConfigError, Problem

WIDE: Final = 10_000
"""Columns when nobody looks: a line that is piped to grep must not be broken."""


def console() -> Console:
    """Standard output: coloured and folded on a terminal, whole lines elsewhere."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def table(*columns: str) -> Table:
    """A table without a frame."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def show(rows: Table) -> None:
    """Print a table; elsewhere than on a terminal without the spaces that fill its last column."""
    out = console()
    if out.is_terminal:
        out.print(rows)
        return
    with out.capture() as captured:
        out.print(rows)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def verdict(ok: bool) -> Text:  # noqa: FBT001 - a verdict is a bool
    """The word of a line that says whether something is in order."""
    return Text("ok", "green") if ok else Text("FAILED", "bold red")


def printable(text: str) -> str:
    """Text on one line that a terminal shows instead of obeying."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def complain(sentence: str) -> None:
    """One line on standard error."""
    typer.echo(printable(sentence), err=True)


def located(file: str, problem: Problem) -> str:
    """A problem as compilers write them: `file:line: key.path: message`."""
    place = file if problem.line is None else f"{file}:{problem.line}"
    return ": ".join(part for part in (place, problem.path, problem.message) if part)


def show_problems(error: ConfigError) -> None:
    """Every problem of a configuration, one a line, on standard error."""
    for problem in error.problems:
        complain(located(error.file, problem))


def warn(file: str, problems: Iterable[Problem]) -> None:
    """What is allowed but should be known, one a line, on standard error."""
    for problem in problems:
        complain(f"warning: {located(file, problem)}")


def give_up(sentence: str, status: int = 1) -> NoReturn:
    """End the command with one sentence."""
    complain(f"fastgate: {sentence}")
    raise typer.Exit(status)
