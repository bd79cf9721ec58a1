"""A request's body between who sends it and who reads it."""

import asyncio

import pytest

from fastgate.dataplane.body import NOTHING, Body
from fastgate.dataplane.framing import FramingError
from fastgate.errors import ForwardError, Side, Stage
from fastgate.model import BodyKind, Framing

BROKEN = ForwardError(Side.DOWNSTREAM, Stage.REQUEST_BODY, "for the test")
CHUNKED = Framing(BodyKind.CHUNKED)


class Connection:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pause_body(self) -> None:
        self.asked.append("pause")

    def resume_body(self) -> None:
        self.asked.append("resume")

    def body_moved(self, octets: int) -> None:
        self.asked.append(f"moved {octets}")


class Reader:
    """Keeps what it hears; pauses or leaves at the first octets when told to."""

    def __init__(self, body: Body, *, then: str = "") -> None:
        self.body = body
        self.then = then
        self.heard: list[object] = []

    def body_data(self, data: bytes) -> None:
        self.heard.append(data)
        if self.then:
            getattr(self.body, self.then)()

    def body_end(self) -> None:
        self.heard.append("end")

    def body_failed(self, error: ForwardError) -> None:
        self.heard.append(error)


def of_length(octets: int) -> tuple[Body, Connection]:
    connection = Connection()
    return Body(Framing(BodyKind.LENGTH, octets), connection), connection


def arrives(body: Body, data: bytes) -> bytes:
    rest = body.take(data)
    body.pass_on()
    return rest


def test_what_is_behind_its_end_is_not_its_own():
    """N57: cut by the length, wherever the octets were cut on their way."""
    body, _ = of_length(10)
    assert arrives(body, b"0123") == b""
    assert (body.left, body.complete) == (6, False)
    assert arrives(body, b"456789GET /") == b"GET /"
    assert (body.left, body.complete) == (0, True)
    reader = Reader(body)
    body.read_by(reader)
    assert reader.heard == [b"0123456789", "end"]
    assert body.taken == 10


def test_chunks():
    """N53, N54: decoded, with trailers at hand when it ends."""
    body = Body(CHUNKED, Connection())
    reader = Reader(body)
    body.read_by(reader)
    assert arrives(body, b"3\r\nabc\r\n2;x=y\r\nd") == b""
    assert arrives(body, b"e\r\n0\r\nX-Sum: 1\r\n\r\nGET /") == b"GET /"
    assert reader.heard == [b"abcd", b"e", "end"]
    assert body.trailers == ((b"x-sum", b"X-Sum", b"1"),)
    with pytest.raises(FramingError):
        Body(CHUNKED, Connection()).take(b"zz\r\n")


def test_a_body_that_is_empty():
    """It is complete from the beginning, also in chunks of which there is only the last."""
    reader = Reader(NOTHING)
    NOTHING.read_by(reader)
    body = Body(CHUNKED, Connection())
    assert arrives(body, b"0\r\n\r\n") == b""
    body.read_by(Reader(body))
    assert reader.heard == ["end"]
    assert (body.take_out(), body.complete, body.trailers) == (b"", True, ())


def test_until_somebody_reads():
    """C3: some octets wait; before there are many the connection is asked for no more."""
    body, connection = of_length(200_000)
    arrives(body, b"x" * 60_000)
    assert connection.asked == []
    arrives(body, b"y" * 60_000)
    assert (connection.asked, body.held_up) == (["pause"], True)
    reader = Reader(body)
    body.read_by(reader)
    assert reader.heard == [b"x" * 60_000 + b"y" * 60_000]
    assert (connection.asked, body.held_up) == (["pause", "resume"], False)


def test_a_reader_that_takes_no_more():
    """U5: the connection is paused with it, and resumed with it."""
    body, connection = of_length(10)
    reader = Reader(body, then="pause")
    body.read_by(reader)
    arrives(body, b"01")
    assert (connection.asked, body.held_up) == (["pause"], True)
    arrives(body, b"23")
    assert reader.heard == [b"01"]
    reader.then = ""
    body.resume()
    assert (reader.heard, connection.asked) == ([b"01", b"23"], ["pause", "resume"])
    body.resume()
    assert connection.asked == ["pause", "resume"]


def test_a_reader_that_is_slow_at_the_end():
    """N57: behind the last octet the connection is read on: what comes is not the body's."""
    body, connection = of_length(4)
    reader = Reader(body, then="pause")
    body.read_by(reader)
    arrives(body, b"01")
    arrives(body, b"23")
    assert (reader.heard, connection.asked) == ([b"01"], ["pause", "resume"])
    body.resume()
    assert reader.heard == [b"01", b"23", "end"]


def test_a_reader_that_leaves():
    """Nothing is handed to it any more, not even the end."""
    body, _ = of_length(4)
    reader = Reader(body, then="leave")
    body.read_by(reader)
    arrives(body, b"0123")
    assert reader.heard == [b"0123"]


def test_a_body_that_breaks():
    """N55: heard at once, before what still waits, and by who comes later; never an end."""
    body, _ = of_length(10)
    arrives(body, b"0123")
    body.fail(BROKEN)
    late = Reader(body)
    body.read_by(late)
    assert late.heard == [BROKEN]
    body, _ = of_length(10)
    reader = Reader(body, then="pause")
    body.read_by(reader)
    arrives(body, b"01")
    arrives(body, b"23")
    body.fail(BROKEN)
    body.resume()
    assert reader.heard == [b"01", BROKEN]


def test_a_body_that_is_lent():
    """A pump reads the socket: the connection does not, until the last octets are its own again."""
    body, connection = of_length(10)
    reader = Reader(body)
    body.read_by(reader)
    body.lend()
    body.moved(6)
    body.pause()
    body.resume()
    body.moved(3)
    assert (body.left, body.taken, connection.asked) == (1, 9, ["pause", "moved 6", "moved 3"])
    body.give_back()
    assert arrives(body, b"9GET") == b"GET"
    assert (connection.asked[-1], reader.heard, body.taken) == ("resume", [b"9", "end"], 10)


async def test_the_whole_of_a_form():
    """N5: in one piece, when it has arrived before and when it has not."""
    body, _ = of_length(4)
    arrives(body, b"a=")
    reading = asyncio.create_task(body.whole(4))
    await asyncio.sleep(0)
    arrives(body, b"b&")
    assert await reading == b"a=b&"
    body, _ = of_length(4)
    arrives(body, b"a=b&")
    assert await body.whole(4) == b"a=b&"


async def test_a_form_that_is_too_large():
    """N5: None as soon as that is clear."""
    body = Body(CHUNKED, Connection())
    reading = asyncio.create_task(body.whole(4))
    await asyncio.sleep(0)
    arrives(body, b"5\r\nabcde\r\n")
    arrives(body, b"5\r\nabcde\r\n0\r\n\r\n")
    assert await reading is None


@pytest.mark.parametrize("first", ["breaks", "reads"])
async def test_a_form_that_breaks(first: str):
    """N55: the reason is raised, whichever came first."""
    body, _ = of_length(4)
    if first == "breaks":
        body.fail(BROKEN)
    reading = asyncio.create_task(body.whole(4))
    await asyncio.sleep(0)
    body.fail(BROKEN)
    with pytest.raises(ForwardError, match="for the test"):
        await reading


async def test_a_form_nobody_waits_for_any_more():
    """C2: a break after the client has left is no error that nobody retrieved."""
    body, _ = of_length(4)
    reading = asyncio.create_task(body.whole(4))
    await asyncio.sleep(0)
    body.fail(BROKEN)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert "waiting=0" in repr(body)
