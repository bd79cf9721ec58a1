"""One conversation on either lane, without sockets: what a client sends and an upstream answers, and what both get.

A conversation is made of octets by a small grammar (`Choices`), so that a property test and a coverage-guided fuzzer
explore the same space. It is played on a gateway whose transports are lists; everything between them is real.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any, NamedTuple

import h11

from fastgate.dataplane.plane import Dataplane, Upstreams
from fastgate.dataplane.server import DownstreamProtocol, GatewayServer
from fastgate.gate import Gate
from fastgate.model import INACTIVE, ActiveToken, ClaimHeader, Forwarding, Match, Remembered, Snapshot
from fastgate.policy.digest import token_key
from fastgate.stats import Stats
from fastgate.tokens.memory import MemoryTier
from fastgate.tokens.resolver import Tokens
from fastgate.tokens.revocation import Revocations
from tests.support.plane import access, provider, route, service, snapshot

DATE = b"Date: Fri, 27 Nov 2026 12:00:00 GMT\r\n"
TURNS = 400
"""Turns of the loop after which a conversation must have come to rest."""


class Choices:
    """Makes decisions out of octets; when they are used up, the first choice is taken."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def number(self, below: int) -> int:
        """Choose one of 0 .. below - 1."""
        octet = self._octets[self._at] if self._at < len(self._octets) else 0
        self._at += 1
        return octet % below

    def one(self, options: Sequence[Any]) -> Any:
        """Choose one of these."""
        return options[self.number(len(options))]

    def some(self, options: Sequence[Any], most: int) -> list[Any]:
        """Choose a few, in any order, perhaps one twice."""
        return [self.one(options) for _ in range(self.number(most + 1))]

    def rarely(self, one_in: int = 8) -> bool:
        """Say yes once in so many."""
        return self.number(one_in) == one_in - 1


class Conversation(NamedTuple):
    """What happens on one client connection."""

    requests: tuple[tuple[bytes, ...], ...]
    """Each as the segments in which it arrives."""
    answers: tuple[tuple[bytes, ...], ...]
    """Segments of the answer to each request that reaches the upstream; empty: the upstream closes instead."""
    events: tuple[str, ...]
    """What happens before each request: nothing, another configuration, a revocation, two hours."""
    ends_early: bool
    """The client half-closes behind its last request, before it is answered."""


_TOKENS = (*(b"good",) * 8, b"other", b"other", b"bad", b"narrow", b"", b"a b")
_TARGETS = (
    *(b"/api",) * 12,
    *(b"/said/x", b"/said/x", b"/hide/2", b"/hide/2", b"/public", b"/public"),
    *(
        b"/api",
        b"/api",
        b"/api/x?y=%2F&access_token=good",
        b"/public",
        b"/public/%2e%2e/api",
        b"/hide/1",
        b"/said/a//b",
    ),
    *(
        b"/nowhere",
        b"/write",
        b"/query?access_token=good",
        b"/query?q=1",
        b"*",
        b"http://gateway.test/api",
        b"/api#f",
        b"/a\\b",
    ),
    *(b"/by-header", b"/cookie", b"/api;v=1", b"/api/%2f", b"/strip/api"),
)
_METHODS = (*(b"GET",) * 10, b"POST", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"BREW", b"get")
_VERSIONS = (b"HTTP/1.1",) * 12 + (b"HTTP/1.0", b"HTTP/2.0")
_HOSTS = (b"Host: gateway.test",) * 12 + (
    b"Host: other.test:8080",
    b"host: Gateway.Test",
    b"Host: a b",
    b"Host:",
    b"X: y",
)
_USUAL = (
    *(b"User-Agent: test/1.0 (x)", b"Accept: */*", b"Accept-Encoding: gzip, br", b"Cookie: a=b; access_token=good"),
    *(b"X-Request-Id: 0123", b"Traceparent: 00-01-02-01", b"Content-Type: application/json", b"X-Custom: \xe9\xff"),
    *(
        b"Connection: keep-alive",
        b"connection: Keep-Alive",
        b"Referer: http://x/",
        b"X-Other:v",
        b"X-Empty:",
        b"X-Space: v ",
    ),
)
_UNUSUAL = (
    *(b"Connection: close", b"Connection: x-custom, keep-alive", b"Connection: authorization", b"Via: 1.1 other"),
    *(
        b"Via: 1.1 loop",
        b"Max-Forwards: 0",
        b"X-Forwarded-For: 10.0.0.1",
        b"X-Forwarded-Proto: https",
        b"X-Real-IP: ::1",
    ),
    *(
        b"X-Auth-Subject: root",
        b"X_Auth_Subject: root",
        b"x-user: root",
        b"TE: trailers",
        b"Trailer: x",
        b"Keep-Alive: 5",
    ),
    *(b"Upgrade: h2c", b"Connection: upgrade", b"Expect: 100-continue", b"Expect: tea", b"Transfer-Encoding: gzip"),
    *(
        b"Authorization: Basic Zm9v",
        b"Authorization: Bearer good",
        b"Content-Length: 0",
        b"Content-Length: 3",
        b"Content-Length: x",
        b"Host: twice",
    ),
    *(
        b"X-Tenant: a",
        b"X-Ctl: \x01",
        b" folded: x",
        b"X-Long: " + b"v" * 5000,
        b"Proxy-Connection: close",
        b"X-Bare: a\rb",
    ),
    *(
        b"Content-Length: 3, 3",
        b"X-HTTP-Method-Override: DELETE",
        b"Sec-WebSocket-Version: 13",
        b"no colon",
        b"X-Y : z",
    ),
)
_EVENTS = ("",) * 12 + ("swap", "revoke", "revoke all", "time")
_BODIES = (b"", b"", b"x", b'{"a": 1}', b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"y" * 3000)
_ANSWER_FIELDS = (
    *(b"Server: up\r\n", b"Content-Type: text/plain\r\n", b"Set-Cookie: a=1\r\n", b"Set-Cookie: b=2\r\n", b"X-Y:z\r\n"),
    *(b"Connection: keep-alive\r\n", b"Connection: close\r\n", b"Keep-Alive: timeout=5\r\n", b"Connection: x-y\r\n"),
    *(
        b"Vary: *\r\n",
        b"Cache-Control: max-age=1\r\n",
        b"Trailer: x\r\n",
        b"X-Sp : v\r\n",
        b"X-Bad: \x00\r\n",
        b" fold\r\n",
    ),
)
_STATUSES = (
    b"200 OK",
    b"200 OK",
    b"200 OK",
    b"404 Not Found",
    b"204 No Content",
    b"304 Not Modified",
    b"500 ",
    b"201 \xe9",
    b"99 x",
)


def conversation(choices: Choices) -> Conversation:
    """Make a conversation of a few requests."""
    requests: list[tuple[bytes, ...]] = []
    lines: list[bytes] = []
    for _ in range(1 + choices.number(6)):
        # Clients repeat themselves: the same lines, or some of them with another value or for another target.
        lines = _vary(choices, lines) if lines and not choices.rarely(3) else _lines(choices)
        requests.append(_request(choices, lines))
    answers = tuple(_answer(choices) for _ in requests)
    events = tuple(choices.one(_EVENTS) for _ in requests)
    return Conversation(tuple(requests), answers, events, choices.rarely())


def _vary(choices: Choices, lines: list[bytes]) -> list[bytes]:
    if choices.rarely(3):
        return lines
    tokens = [place for place, line in enumerate(lines) if line.lower().startswith(b"authorization:")]
    place = choices.one((*range(len(lines)), *tokens * 3))
    if place == 0:  # what was learned on one route must not count on another
        return [b" ".join((b"GET", choices.one(_TARGETS), b"HTTP/1.1")), *lines[1:]]
    name, colon, value = lines[place].partition(b": ")
    if name.lower() == b"authorization" and not choices.rarely(3):
        return [*lines[:place], name + colon + b"Bearer " + choices.one(_TOKENS), *lines[place + 1 :]]
    value = choices.one(
        (value + b"1", value[:-1], choices.one(_TOKENS), b"Bearer " + choices.one(_TOKENS), b"v w", b"v ")
    )
    return [*lines[:place], name + colon + value, *lines[place + 1 :]]


def _lines(choices: Choices) -> list[bytes]:
    lines = [b" ".join((choices.one(_METHODS), choices.one(_TARGETS), choices.one(_VERSIONS))), choices.one(_HOSTS)]
    if not choices.rarely():
        lines.append(choices.one((b"Authorization: Bearer ", b"authorization: bearer ")) + choices.one(_TOKENS))
    lines += choices.some(_USUAL, 4)
    if choices.rarely(5):
        lines += choices.some(_UNUSUAL, 2)
    return lines


def _request(choices: Choices, lines: Sequence[bytes]) -> tuple[bytes, ...]:
    body = choices.one(_BODIES)
    if body and choices.rarely(3):
        lines = [*lines, b"Transfer-Encoding: chunked"]
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    elif body:
        lines = [*lines, b"Content-Length: %d" % len(body)]
    octets = bytearray(b"\r\n".join((*lines, b"", b"")) + body)
    if choices.rarely(10):
        _spoil(choices, octets)
    return _cut(choices, bytes(octets))


def _answer(choices: Choices) -> tuple[bytes, ...]:
    if choices.rarely(16):
        return ()
    body, framing = choices.one((b"", b"hello", b"z" * 2000)), choices.number(6)
    octets = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" if choices.rarely(10) else b""
    octets += b"HTTP/1.%d %b\r\n" % (not choices.rarely(12), choices.one(_STATUSES))
    octets += b"" if choices.rarely(6) else DATE
    octets += b"" if choices.rarely(2) else b"".join(choices.some(_ANSWER_FIELDS, 3))
    if framing < 4:
        octets += (
            b"Content-Length: %d\r\n\r\n" % (len(body) + (choices.number(3) - 1 if choices.rarely(8) else 0)) + body
        )
    elif framing == 4:
        octets += (
            b"Transfer-Encoding: chunked\r\n\r\n"
            + (b"%x\r\n%b\r\n" % (len(body), body) if body else b"")
            + b"0\r\n\r\n"
        )
    else:
        octets += b"\r\n" + body
    whole = bytearray(octets)
    if choices.rarely(10):
        _spoil(choices, whole)
    return _cut(choices, bytes(whole))


def _spoil(choices: Choices, octets: bytearray) -> None:
    """Lose, double or change one octet."""
    place = (choices.number(256) * 256 + choices.number(256)) % len(octets)
    what = choices.number(3)
    if what == 0:
        del octets[place]
    elif what == 1:
        octets.insert(place, octets[place])
    else:
        octets[place] = choices.number(256)


def _cut(choices: Choices, octets: bytes) -> tuple[bytes, ...]:
    if not choices.rarely(4) or len(octets) < 2:
        return (octets,) if octets else ()
    places = sorted({(choices.number(256) * 256 + choices.number(256)) % len(octets) for _ in range(2)} - {0})
    return tuple(octets[begin:end] for begin, end in zip([0, *places], [*places, len(octets)], strict=True))


# --- playing ----------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What came out of a conversation."""

    upstream: list[bytes] = field(default_factory=list)
    """What each upstream connection was sent."""
    client: bytearray = field(default_factory=bytearray)
    closed: bool = False
    """The gateway closed or cut the client's connection."""
    denials: dict[Any, int] = field(default_factory=dict)
    requests: dict[Any, int] = field(default_factory=dict)
    lines: list[tuple[Any, ...]] = field(default_factory=list)
    """The access lines, without times."""
    express: int = 0
    """Requests that the express lane took. Not compared."""

    def compared(self) -> tuple[Any, ...]:
        """Return what must be the same on both lanes."""
        return self.upstream, bytes(self.client), self.closed, self.denials, self.requests, self.lines


class Wire(asyncio.Transport):
    """A transport that hands what is written to a function."""

    def __init__(self, written: Callable[[bytes], None], closed: Callable[[], None]) -> None:
        super().__init__({"peername": ("192.0.2.7", 4711), "sockname": ("192.0.2.1", 8000)})
        self._written = written
        self._closed = closed
        self.closing = False

    def write(self, data: Any) -> None:
        if not self.closing:
            self._written(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._closed)

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """The gateway says no more: for the client that is the end."""
        self.close()

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class _Loop:
    """The running loop, but for connections: they lead to the upstream of the conversation."""

    def __init__(self, connect: Callable[[Any], Wire]) -> None:
        self._connect = connect

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)

    async def create_connection(self, factory: Callable[[], Any], *_: object, **__: object) -> tuple[Wire, Any]:
        protocol = factory()
        return self._connect(protocol), protocol


class _Origin:
    """The upstream: reads what it is sent with h11, the third reader, and answers as the conversation says."""

    def __init__(self, answers: Sequence[tuple[bytes, ...]], seen: Seen) -> None:
        self._answers = list(answers)
        self._seen = seen
        self.broken: str | None = None

    def connect(self, protocol: Any) -> Wire:
        number = len(self._seen.upstream)
        self._seen.upstream.append(b"")
        reader = h11.Connection(h11.SERVER)

        def written(data: bytes) -> None:
            self._seen.upstream[number] += data
            reader.receive_data(data)
            self._read(reader, protocol, wire)

        wire = Wire(written, lambda: protocol.connection_lost(None))
        protocol.connection_made(wire)
        return wire

    def _read(self, reader: h11.Connection, protocol: Any, wire: Wire) -> None:
        try:
            while not isinstance(event := reader.next_event(), type(h11.NEED_DATA)) and event is not h11.PAUSED:
                if isinstance(event, h11.EndOfMessage):
                    self._say(protocol, wire)
                    # What we answer is no business of the reader's: it begins anew.
                    reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                    reader.send(h11.EndOfMessage())
                    reader.start_next_cycle()
                elif isinstance(event, h11.ConnectionClosed):
                    return
        except h11.ProtocolError as error:
            self.broken = f"h11 cannot read what the upstream was sent: {error}"

    def _say(self, protocol: Any, wire: Wire) -> None:
        pieces = self._answers.pop(0) if self._answers else (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",)
        loop = asyncio.get_running_loop()

        async def say() -> None:
            for piece in pieces:
                await asyncio.sleep(0)
                if wire.closing:
                    return
                protocol.data_received(piece)
            await asyncio.sleep(0)
            whole = b"".join(pieces)
            ends = not pieces or _is_until_close(whole)
            if ends and not wire.closing and not protocol.eof_received():
                wire.close()

        self.task = loop.create_task(say())


def _is_until_close(answer: bytes) -> bool:
    head = answer.lower().partition(b"\r\n\r\n")[0]
    return b"content-length:" not in head and b"chunked" not in head


def gateway_snapshot(*, other: bool = False) -> Snapshot:
    """Make a configuration with a route of every kind that tells the lanes apart; and another one to turn to."""
    idp = provider()
    to = service(9)
    plain = access(idp, hide_credentials=other)
    sources = plain.extraction.sources
    kinds = type(next(iter(sources)))
    routes = (
        route("/public", to, None),
        route("/api", to, plain),
        route(
            "/said",
            to,
            replace(plain, headers=(ClaimHeader(b"X-Auth-Subject", ("sub",)), ClaimHeader(b"X-All", ("all",)))),
        ),
        route("/hide", to, replace(plain, hide_credentials=not other)),
        route(
            "/query",
            to,
            replace(plain, extraction=replace(plain.extraction, sources=frozenset({kinds.HEADER, kinds.QUERY}))),
        ),
        route(
            "/cookie",
            to,
            replace(plain, extraction=replace(plain.extraction, sources=frozenset({kinds.HEADER, kinds.COOKIE}))),
        ),
        replace(route("/write", to, plain), match=Match(paths=("/write",), methods=frozenset({"POST"}))),
        replace(
            route("/by-header", to, plain),
            match=Match(paths=("/by-header",), headers=((b"x-tenant", frozenset({b"a"})),)),
        ),
        replace(route("/strip", service(9, name="based", path="/base"), plain), strip_path=True),
    )
    protected = frozenset({b"x-auth-subject", b"x-all"} | ({b"x-custom", b"accept"} if other else set()))
    trusted = (ip_network("192.0.2.0/24"),) if other else ()
    return snapshot(routes, forwarding=Forwarding(via=b"loop", protected=protected, trusted=trusted))


SNAPSHOT = gateway_snapshot()
OTHER = gateway_snapshot(other=True)


async def play(spoken: Conversation, *, express: bool) -> Seen:
    """Play a conversation on one lane. Raises AssertionError when h11 cannot read what went upstream."""
    seen, stats, clock = Seen(), Stats(), _Clock()
    origin = _Origin(spoken.answers, seen)
    memory = MemoryTier(100, 100)
    tokens = Tokens(memory, SNAPSHOT.providers, clock, stats, Revocations(clock))
    _remember(memory, clock)
    upstreams = Upstreams(_Loop(origin.connect), stats)  # type: ignore[arg-type]
    await upstreams.swap(SNAPSHOT.services.values())
    plane = Dataplane(
        gate=Gate(SNAPSHOT, tokens, clock),
        upstreams=upstreams,
        stats=stats,
        clock=clock,
        limits=SNAPSHOT.settings.limits,
        record=lambda line: seen.lines.append(line._replace(at=0.0, seconds=0.0, upstream_seconds=None)),
        express_lane=express,
    )
    plane.date = lambda: DATE[6:-2]  # type: ignore[assignment]
    if plane.express is not None:
        taken = plane.express.take

        def count(protocol: DownstreamProtocol, data: bytes) -> Any:
            done = taken(protocol, data)
            seen.express += done is True
            return done

        plane.express.take = count  # type: ignore[method-assign]
    client = GatewayServer(plane)()

    def closed() -> None:
        seen.closed = True
        client.connection_lost(None)

    wire = Wire(seen.client.extend, closed)
    client.connection_made(wire)
    for number, pieces in enumerate(spoken.requests):
        await _happen(spoken.events[number], plane, tokens, clock)
        for piece in pieces:
            if not wire.closing:
                client.data_received(piece)
            await asyncio.sleep(0)
        if number == len(spoken.requests) - 1 and spoken.ends_early and not wire.closing:
            client.eof_received()
        await _rest(plane, stats)
    seen.denials, seen.requests = stats.denials.values, stats.requests.values
    if not wire.closing:
        wire.close()
    await upstreams.close()
    await tokens.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert origin.broken is None, origin.broken
    return seen


class _Clock:
    """Stands still until told otherwise."""

    wall = 1_800_000_000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.wall - 1_000_000_000.0


async def _happen(event: str, plane: Dataplane, tokens: Tokens, clock: _Clock) -> None:
    if event == "swap":
        snapshot = OTHER if plane.gate.snapshot is SNAPSHOT else SNAPSHOT
        await plane.upstreams.swap(snapshot.services.values())
        plane.gate.swap(snapshot)
    elif event == "revoke":
        tokens.revoke(token="good")
    elif event == "revoke all":
        tokens.revoke(all=True)
    elif event == "time":
        clock.wall += 7200.0
    await _warm(plane.upstreams)


def _remember(memory: MemoryTier, clock: _Clock) -> None:
    exp = int(clock.now()) + 3600
    states = {
        "good": ActiveToken({"scope": "read", "sub": "alex", "all": {"a": [1]}}, exp=exp),
        "other": ActiveToken({"scope": "read write", "sub": "o\r\nX-Admin: 1"}, exp=exp),
        "narrow": ActiveToken({"scope": "write", "sub": "alex"}, exp=exp),
        "bad": INACTIVE,
    }
    for idp in SNAPSHOT.providers.values():
        for token, state in states.items():
            memory.put(token_key(idp, token), Remembered(state, clock.monotonic()))


async def _warm(upstreams: Upstreams) -> None:
    """Let a connection to each upstream rest, without which every first request is the general lane's."""
    for upstream in upstreams.current:
        if not any(pool.idle_count for pool in upstream.pools):
            connection = await upstream.acquire(fresh=True)
            connection.give_back()


async def _rest(plane: Dataplane, stats: Stats) -> None:
    """Let everything come to rest that can."""
    for turn in range(TURNS):
        await asyncio.sleep(0)
        if turn > 12 and not stats.requests_active.values[()]:
            return
