import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.errors import Cannot, IntrospectionError
from fastgate.policy.strict_json import MAX_DEPTH, read_object

SIZE = 64 * 1024


def refused(body, size=SIZE):
    with pytest.raises(IntrospectionError) as caught:
        read_object(body, size)
    assert caught.value.kind is Cannot.MALFORMED
    return caught.value.detail


@pytest.mark.parametrize("body", [b"{}", b' {"a": [1, {"b": null}]}\n', '{"é": "\\u00e9"}'.encode()])
def test_an_object(body):
    """N16: read as JSON says."""
    assert read_object(body, SIZE) == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"true",
        b'"{}"',
        b"[]",
        b'[{"active":true}]',
        b"{",
        b"{}x",
        b"{}{}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":01}',
        b"{'a':1}",
        b'{"a":1,}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\n"}',
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"b":[{"a":1,"a":2}]}',
        '{"a":1}'.encode("utf-16"),
        b"/**/{}",
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_one_clean_object(body):
    """N16, T11: a broken, doubtful or other value is refused."""
    assert "answer" in refused(body)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_an_answer_nested_too_deeply(depth, opening, closing):
    """N27, T11: refused before anything recurses."""
    body = b'{"a":' + opening * depth + b"1" + closing * depth + b"}"
    assert refused(body, len(body)) == "the answer is nested too deeply"
    assert refused(opening * depth, len(body)) == "the answer is nested too deeply"


def test_an_answer_as_deep_as_allowed():
    """N27: brackets in strings and beside each other are not depth."""
    deep = b'{"a":' * (MAX_DEPTH - 1) + b"{}" + b"}" * (MAX_DEPTH - 1)
    assert read_object(deep, SIZE)
    beside = b'{"x":[[],[]],"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert len(read_object(beside, SIZE)["x"]) == 2
    wide = b'{"a":"' + b"[{" * 100 + b'\\"[","b":[' + b"[],{}," * 100 + b"1]}"
    assert len(read_object(wide, SIZE)["b"]) == 201


@pytest.mark.parametrize("ending", [b"", b"\\", b'\\"', b"\\\\", b'"'])
def test_a_string_that_does_not_end(ending):
    """N27, T11: refused in one pass, however many brackets and quotes it holds."""
    body = b'{"a":"' + b"[" * 100 + b'\\"' * 15_000 + ending
    refused(body + b"[" * 50, 2 * SIZE)


def test_a_large_answer():
    """N27, T11: one octet too many is refused unread."""
    body = b'{"a":"' + b"x" * 92 + b'"}'
    assert read_object(body, 100)
    assert refused(body + b" ", 100) == "the answer is too large"


def test_the_answer_is_not_quoted():
    """T12, T23: no octet of a peer's text is in the error."""
    assert "secret" not in refused(b'{"secret":"secret","secret":1}')


@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ atrue10', max_size=60).map(str.encode))
def test_any_octets(body):
    """T11: an object or an error of ours, never another exception."""
    try:
        value = read_object(body, SIZE)
    except IntrospectionError as error:
        assert error.kind is Cannot.MALFORMED  # noqa: PT017 - most examples end here, some do not
    else:
        assert value == json.loads(body)
