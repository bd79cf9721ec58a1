"""Every normative statement (N) and trap (T) of the requirements has a test that names it, or a reason why not.

A test names what it proves at the beginning of its docstring: N24, or N36 to N59, or T1, separated by commas and
followed by a colon (or a full stop, when there is nothing to add).
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
KNOWN = {f"N{number}" for number in range(1, 91)} | {f"T{number}" for number in range(1, 40)}
OUT_OF_SCOPE = {
    "N33": "DPoP is not offered: a proof is never looked at, and a bound token is refused (N31)",
    "N34": "DPoP is not offered, so there is no proof that could be remembered",
    "N35": "the RFC 9728 metadata are not offered",
}
_NAMED = re.compile(r"([A-Z])([0-9]+)(?:(?: to |-)\1?([0-9]+))?")


def named(docstring: str) -> set[str]:
    """Return the statements that a docstring begins with."""
    found = set()
    for part in re.split(r"[:.]", docstring, maxsplit=1)[0].split(", "):
        match = _NAMED.fullmatch(part)
        if match is None:
            return set()
        letter, first, last = match.groups()
        found |= {f"{letter}{number}" for number in range(int(first), int(last or first) + 1)}
    return found


def docstrings(source: str) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of every test in a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield node.name, ast.get_docstring(node) or ""


@cache
def everything_named() -> dict[str, list[str]]:
    """Return what the tests of this folder name, and by which test."""
    places: dict[str, list[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        for name, docstring in docstrings(file.read_text()):
            for statement in named(docstring):
                places.setdefault(statement, []).append(f"{file.relative_to(TESTS)}::{name}")
    return places


def in_order(statements: set[str]) -> list[str]:
    return sorted(statements, key=lambda statement: (statement[0], int(statement[1:])))


def test_every_statement_has_a_test():
    """What is in scope is named by at least one test."""
    missing = in_order(KNOWN - everything_named().keys() - OUT_OF_SCOPE.keys())
    assert missing == [], f"no test names {', '.join(missing)}"


def test_what_is_out_of_scope_has_no_test():
    """The list of exceptions says nothing that is not so, and gives a reason for each."""
    assert OUT_OF_SCOPE.keys() <= KNOWN
    proved = {statement: tests for statement, tests in everything_named().items() if statement in OUT_OF_SCOPE}
    assert proved == {}
    assert all(len(reason) > 20 for reason in OUT_OF_SCOPE.values())


def test_no_test_names_what_does_not_exist():
    """A typing mistake in a docstring would hide a missing test."""
    unknown = {
        statement: tests
        for statement, tests in everything_named().items()
        if statement[0] in "NT" and statement not in KNOWN
    }
    assert unknown == {}


def test_how_a_docstring_names_statements():
    """The forms that count, and those that do not."""
    source = '''
class TestOne:
    async def test_a(self):
        """N1, N36 to N38, T4, I2: words about N50."""

def test_b():
    """N9."""

def test_c():
    """Words about N10, T11: more."""

def test_d():
    pass

def helper():
    """N12: this is no test."""
'''
    found = {name: in_order(named(docstring)) for name, docstring in docstrings(source)}
    assert found == {
        "test_a": ["I2", "N1", "N36", "N37", "N38", "T4"],
        "test_b": ["N9"],
        "test_c": [],
        "test_d": [],
    }
