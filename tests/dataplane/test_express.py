"""What the express lane takes, what it leaves, and how what it took ends in other ways than the usual one."""

import asyncio

import pytest

from fastgate.dataplane.express import ExpressLane
from fastgate.dataplane.known import Known
from fastgate.gate import Gate
from tests.support.client import RawClient
from tests.support.plane import BEARER, Plane, access, provider, route, service, snapshot
from tests.support.upstream import RESET, Upstream, answer, early

LANES = ("express",)
"""The tests of both are elsewhere."""


@pytest.fixture
def taken(monkeypatch):
    """Whether each request that was offered was taken."""
    seen: list[bool] = []
    take = ExpressLane.take

    def note(lane, protocol, data):
        done = take(lane, protocol, data)
        seen.append(done is True)
        return done

    monkeypatch.setattr(ExpressLane, "take", note)
    return seen


async def test_first_and_later_requests_are_taken(client: RawClient, taken):
    """Also the first one on a connection, if a connection to the upstream rests."""
    for _ in range(3):
        assert (await client.request("GET", "/api", BEARER)).status == 200
    assert taken == [True] * 3


async def test_bodies_that_came_whole_are_taken(client: RawClient, upstream: Upstream, taken):
    """N74: with their length; the upstream gets head and body together."""
    got = await client.request("POST", "/api", BEARER, body=b"hello")
    assert (got.status, (await upstream.request()).body, taken) == (200, b"hello", [True])


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("HEAD", ()),
        ("GET", (("Connection", "close"),)),
        ("GET", (("Expect", "100-continue"),)),
        ("GET", (("X-Long", "v" * 5000),)),
        ("GET", (("Upgrade", "websocket"), ("Connection", "upgrade"))),
    ],
)
async def test_what_is_unusual_is_left_to_the_general_lane(client: RawClient, taken, method: str, fields):
    assert (await client.request(method, "/api", BEARER, *fields)).status in {200, 426}
    assert taken == [False]


async def test_pipelined_requests_and_bodies_in_pieces_are_left_to_the_general_lane(
    client: RawClient, upstream: Upstream, taken
):
    """N57: answered in order there."""
    await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
    assert [(await client.answer()).status for _ in range(2)] == [200, 200]
    await client.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    await upstream.head(2)
    await client.send(b"cd")
    assert (await client.answer()).status == 200
    assert not any(taken)


async def test_an_unknown_token_is_left_to_the_general_lane_and_counted_once(client: RawClient, plane: Plane, taken):
    """T31: what was found out already is handed on: one miss, not two."""
    assert (await client.request("GET", "/api", ("Authorization", "Bearer unknown"))).status == 503
    assert taken == [False]
    assert plane.stats.cache_misses.values == {("memory", "absent"): 1}


@pytest.fixture
def read(monkeypatch):
    """Paths of the requests whose heads were read in full."""
    seen: list[str] = []
    consider = Gate.consider

    def note(gate, head):
        seen.append(head.path)
        return consider(gate, head)

    monkeypatch.setattr(Gate, "consider", note)
    return seen


async def test_of_a_head_like_one_before_only_the_token_is_read(client: RawClient, plane: Plane, taken, read):
    """N2, N3, N9, N24: and decided about like any other, whatever else has changed that decides nothing."""
    plane.knows("narrow", {"scope": "write"})
    plane.knows("more", {"scope": "read", "sub": "blake"})
    tokens = ("good-token", "bad-token", "narrow", "more", "a b", "good-token", "unknown")
    answers = [
        await client.request("GET", "/api", ("Authorization", f"Bearer {token}"), ("X-Id", str(number)))
        for number, token in enumerate(tokens)
    ]
    assert [answer.status for answer in answers] == [200, 401, 403, 200, 400, 200, 503]
    assert taken == [True] * 6 + [False]
    assert read == ["/api"]
    assert plane.stats.denials.values == {
        ("/api", reason): 1 for reason in ("inactive", "scope", "malformed_credentials")
    }


async def test_a_head_that_differs_in_more_than_its_token_is_read(upstream: Upstream, taken, read):
    """T2, N11: another path, another Host, another connection's fields; a route that hides the token."""
    to, needs = service(upstream.port), access(provider())
    routes = (route("/api", to, needs), route("/hide", to, access(provider(), hide_credentials=True)))
    async with Plane(*routes) as plane, await plane.client() as client:
        for number in range(6):
            plane.knows(f"t{number}", {"scope": "read"})
        for number, path in enumerate(("/api", "/hide", "/api", "/hide", "/other", "/api?q")):
            await client.request("GET", path, ("Authorization", f"Bearer t{number}"))
    assert read == ["/api", "/hide", "/api", "/hide", "/other", "/api"]
    sent = [request.header("authorization") for request in upstream.requests]
    assert sent == ["Bearer t0", None, "Bearer t2", None, "Bearer t5"]


async def test_a_second_token_beside_one_that_is_like_one_before(client: RawClient, plane: Plane, taken):
    """N3: 400, also where a layout with two was learned of a public route."""
    one, two = (BEARER,), (BEARER, ("Authorization", "Bearer bad-token"))
    requests = (("/public", two), ("/api", one), ("/public", two), ("/api", two), ("/api", tuple(reversed(two))))
    got = [(await client.request("GET", path, *fields)).status for path, fields in requests]
    assert got == [200, 200, 200, 400, 400]
    assert taken == [True] * 5


async def test_what_nobody_was_asked_about_is_not_kept(client: RawClient, plane: Plane, taken):
    """N17, T39: a token that was refused for want of an answer is good as soon as it is known to be."""
    for number in range(provider().failures):
        assert (await client.request("GET", "/api", ("Authorization", f"Bearer {number}"))).status == 503
    await plane.until(lambda: plane.stats.held_off.values == {("idp",): 1}, "that it is held off")
    taken.clear()
    for _ in range(2):
        assert (await client.request("GET", "/api", ("Authorization", "Bearer later"))).status == 503
    plane.knows("later", {"scope": "read"})
    assert (await client.request("GET", "/api", ("Authorization", "Bearer later"))).status == 200
    assert taken == [True] * 3


async def test_an_answer_in_pieces_to_a_slow_client(plane: Plane, upstream: Upstream, taken):
    """U5: the upstream waits for the client; every octet arrives, and the connections are used again."""
    whole = answer(200, b"x" * 200_000)
    upstream.will(whole)
    upstream.will(whole)
    async with await plane.client() as client:
        for _ in range(2):
            await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.sleep(0.05)
            assert len((await client.answer()).body) == 200_000
    assert taken == [True, True]
    assert len(upstream.connections) == 1


async def test_a_client_that_does_not_read_holds_its_upstream(plane: Plane):
    """U5: reading is paused and resumed below the express lane too."""
    async with await plane.client() as client:
        assert (await client.request("GET", "/public")).status == 200
        (protocol,) = plane.server.connections
        await client.send(b"GET /public?slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await plane.until(lambda: protocol.exchange is not None or plane.stats.requests.total() > 1)
        protocol.pause_writing()
        protocol.resume_writing()
        assert (await client.answer()).status == 200


async def test_an_upstream_that_resets_within_the_answer(client: RawClient, upstream: Upstream, plane: Plane, taken):
    """N81: an answer that was begun is cut visibly, and told as failed."""
    upstream.will(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc", RESET)
    await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await client.rest()
    line = await plane.line()
    assert (line.outcome, line.reason, line.status, line.sent) == ("failed", "body", 200, 3)
    assert taken == [True]
    assert plane.stats.requests_active.values[()] == 0


async def test_a_client_that_leaves(client: RawClient, upstream: Upstream, plane: Plane, taken):
    """C2: the upstream is let go of, and the line says why."""
    asked = asyncio.Event()

    @early
    async def wait(conversation) -> None:
        asked.set()
        await conversation.reader.read(1)

    upstream.will(wait)
    await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
    await asked.wait()
    client.abort()
    assert (await plane.line()).outcome == "client_gone"
    await upstream.until(upstream.connections[0].ended.is_set)
    assert taken == [True]
    assert plane.stats.requests_active.values[()] == 0


async def test_a_fault_of_ours_while_forwarding(client: RawClient, plane: Plane, monkeypatch):
    """P10: 500, and the connection ends; the next one is served."""
    monkeypatch.setattr(Known, "write", lambda *_: 1 / 0)
    got = await client.request("GET", "/public")
    monkeypatch.undo()
    assert (got.status, got.header("connection")) == (500, "close")
    assert plane.stats.requests_active.values[()] == 0
    async with await plane.client() as other:
        assert (await other.request("GET", "/public")).status == 200


async def test_a_configuration_with_other_rules_counts_at_once(upstream: Upstream, taken):
    """P5, N65: what was known of heads does not outlive what it was known under."""
    to = service(upstream.port)
    async with Plane(route("/api", to, access(provider()))) as plane, await plane.client() as client:
        fields = (BEARER, ("X-Secret", "1"))
        for _ in range(2):
            assert (await client.request("GET", "/api", *fields)).status == 200
        hiding = route("/api", to, access(provider(), hide_credentials=True))
        plane.gate.swap(snapshot((hiding,), forwarding=plane.snapshot.settings.forwarding))
        for _ in range(3):
            assert (await client.request("GET", "/api", *fields)).status == 200
    assert [request.header("authorization") for request in upstream.requests] == ["Bearer good-token"] * 2 + [None] * 3
    assert all(taken)


async def test_the_lane_can_be_closed_and_opened(client: RawClient, plane: Plane, taken):
    """It is a setting, also of a reload."""
    plane.plane.use_express_lane(wanted=False)
    assert (await client.request("GET", "/api", BEARER)).status == 200
    assert taken == []
    plane.plane.use_express_lane(wanted=True)
    assert (await client.request("GET", "/api", BEARER)).status == 200
    assert taken == [True]
