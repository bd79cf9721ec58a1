"""The chunked coding, forwards and in pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.dataplane.framing import ChunkedDecoder, FramingError, chunk, last_chunk


def decode(wire: bytes, cuts: list[int] | None = None) -> tuple[bytes, bytes, ChunkedDecoder]:
    decoder = ChunkedDecoder()
    body = b""
    rest = b""
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts or [])})
    for start, end in pairwise(edges):
        if decoder.complete:
            rest += wire[start:end]
            continue
        piece, left = decoder.feed(wire[start:end])
        body += piece
        rest += left
    return body, rest, decoder


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.lists(st.integers(0, 500), max_size=10),
    st.binary(max_size=20),
)
def test_any_cut_gives_the_same_body(chunks, cuts, behind):
    """N53: what was chunked comes out whole, and what stands behind it is left alone."""
    wire = b"".join(map(chunk, chunks)) + last_chunk(b"X-A: b\r\n") + behind
    body, rest, decoder = decode(wire, cuts)
    assert (body, rest, decoder.complete) == (b"".join(chunks), behind, True)
    assert decoder.trailers == ((b"x-a", b"X-A", b"b"),)


@pytest.mark.parametrize(
    "wire",
    [
        b"0x3\r\n",
        b"-3\r\n",
        b"+3\r\n",
        b"3 \r\n",
        b"\r\n",
        b";a\r\n",
        b"g\r\n",
        b"3\nabc\n",
        b"1" * 16 + b"\r\n",
        b"3\r\nabcXX",
        b"3\r\nabc\n",
        b"0\r\nX : a\r\n",
        b"0\r\n a\r\n",
        b"3;a\x00b\r\n",
        b"1_0\r\n",
    ],
)
def test_a_broken_coding_is_refused(wire):
    """N53: 1*HEXDIG, overflow-safe, CRLF after data, nothing lenient."""
    with pytest.raises(FramingError):
        ChunkedDecoder().feed(wire)


def test_extensions_are_taken_up_to_a_bound():
    """N53: ignored, but not without end."""
    assert ChunkedDecoder().feed(b'3;a=b ;c="d"\r\nabc\r\n') == (b"abc", b"")
    decoder = ChunkedDecoder()
    with pytest.raises(FramingError):
        decoder.feed((b"1;" + b"x" * 4000 + b"\r\na\r\n") * 20)
    with pytest.raises(FramingError):
        ChunkedDecoder().feed(b"1;" + b"x" * 5000)


def test_trailers_are_bounded():
    """N54: in count and in size."""
    with pytest.raises(FramingError):
        ChunkedDecoder().feed(b"0\r\n" + b"A: b\r\n" * 100)
    with pytest.raises(FramingError):
        ChunkedDecoder().feed(b"0\r\n" + (b"A: " + b"b" * 4000 + b"\r\n") * 5)


def test_a_million_small_chunks_are_linear():
    """U8: one-octet chunks cost no more than their number (a quadratic decoder would not come back)."""
    wire = b"1\r\na\r\n" * 300_000 + b"0\r\n\r\n"
    decoder = ChunkedDecoder()
    size = 0
    for start in range(0, len(wire), 65_536):
        size += len(decoder.feed(wire[start : start + 65_536])[0])
    assert (size, decoder.complete) == (300_000, True)
