"""`${NAME}`, `${NAME:-default}`, `${file:/path}` and `$${`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.config.interpolation import interpolate


def no_files(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory")


def put_in(text: str, environ: dict[str, str]) -> str:
    result = interpolate({"a": [text]}, environ, no_files)
    assert not result.findings
    return result.data["a"][0]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${HOST}", "h"),
        ("http://${HOST}:${PORT:-80}/x", "http://h:80/x"),
        ("${UNSET:-a b}", "a b"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY}", ""),
        ("${UNSET:-}", ""),
        ("$${HOST}", "${HOST}"),
        ("$$${HOST}", "$${HOST}"),
        ("$HOST $ {HOST} ~/a$", "$HOST $ {HOST} ~/a$"),
        ("${URL:-http://x:1/}", "http://x:1/"),
    ],
)
def test_what_a_reference_becomes(written, meant):
    """References may be embedded; `$${` is a literal `${`; other dollars are themselves."""
    assert put_in(written, {"HOST": "h", "EMPTY": ""}) == meant


def test_a_value_is_put_in_once():
    """A value that looks like a reference stays as it is: the environment cannot reach for other secrets."""
    assert put_in("${A}", {"A": "${B}", "B": "secret"}) == "${B}"


def test_an_unset_variable_names_itself_its_path_and_the_way_out():
    """The message says which variable, and that a default can be written."""
    result = interpolate({"a": ["x", "${TOKEN}"]}, {}, no_files)
    [finding] = result.findings
    assert finding.path == ("a", 1)
    assert "TOKEN" in finding.message
    assert "${TOKEN:-default}" in finding.message
    assert result.unknown == {("a", 1)}


def test_files_are_read_and_unreadable_ones_are_told():
    """A missing file is a finding with its reason; a readable one is its content."""
    assert interpolate("${file:/run/x}", {}, lambda path: f"<{path}>").data == "</run/x>"
    [finding] = interpolate("${file:/run/x}", {}, no_files).findings
    assert finding.message == "needs the file /run/x, which cannot be read: No such file or directory"


@pytest.mark.parametrize("written", ["${", "${A", "${1A}", "${}", "${A-b}", "${A${B}}", "${a b}"])
def test_a_reference_that_is_none(written):
    """A half-written reference is a finding, never the literal text of a secret to be."""
    result = interpolate({"a": written}, {"A": "x", "B": "x"}, no_files)
    assert result.findings


@given(st.text(), st.text(min_size=1))
def test_a_value_never_appears_in_a_finding(text, value):
    """Findings are about names; they never hold what a variable holds."""
    marked = f"<<{value}>>"
    result = interpolate({"a": text + "${A}${"}, {"A": marked}, no_files)
    assert result.findings
    assert all(marked not in finding.message for finding in result.findings)
