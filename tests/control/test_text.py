"""Making other people's text fit for a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.control.text import escape, escape_lines, redact, timestamp


@given(st.text(st.characters()))
def test_any_text_in_a_line(text):
    """T12: printable afterwards; unchanged when it was so before."""
    assert escape(text).isprintable()
    if text.isprintable():
        assert escape(text) == text


@given(st.text(st.characters()))
def test_any_text_in_lines(text):
    """T12: only the line feeds stay."""
    assert escape_lines(text).replace("\n", "").isprintable()
    assert escape_lines(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("Authorization: Bearer abc.def-_~+/=", "Authorization: Bearer [redacted]"),
        ("authorization: basic YTpi, x", "authorization: basic [redacted], x"),
        ("?access_token=abc&x=1", "?access_token=[redacted]&x=1"),
        ("token=abc;client_secret='x'", "token=[redacted];client_secret='[redacted]'"),
        ('{"access_token": "abc", "x": "y"}', '{"access_token": "[redacted]", "x": "y"}'),
        ("{'password': 'abc'}", "{'password': '[redacted]'}"),
        ("the bearer", "the bearer"),
        ("malformed token: too long", "malformed token: too long"),
    ],
)
def test_credentials_in_text(text, safe):
    """T12."""
    assert redact(text) == safe


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.9999, "2023-11-14T22:13:20.999Z"),
        (1_700_000_000.001, "2023-11-14T22:13:20.000Z"),
    ],
)
def test_times(at, text):
    """UTC with milliseconds, cut, never rounded into the next second."""
    assert timestamp(at) == text
