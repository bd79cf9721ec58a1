"""Questions and answers over real sockets."""

import asyncio
import gzip
import socket
from contextlib import suppress
from types import SimpleNamespace

import pytest
import structlog

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE, ActiveToken, ClientAuth
from fastgate.tokens import client
from tests.support.idp import Idp, drip, flood, says
from tests.support.upstream import CLOSE, RESET
from tests.tokens.parts import provider_at, turns


async def failure(introspector, token="t", **how):
    """Ask, and return the error."""
    with pytest.raises(IntrospectionError) as caught:
        await introspector.introspect(token, **how)
    return caught.value


# --- the question -----------------------------------------------------------------------------------------------


async def test_the_question_is_a_form_with_the_token_encoded_once(idp, introspector_of):
    """N13, T16: POST, urlencoded, exactly one token, a hint; nothing of it in the target."""
    token = "a+b/c=%41 %s\r\n\x00é&token=x"
    assert await introspector_of(provider_at(idp)).introspect(token) is INACTIVE
    (question,) = idp.questions
    assert question.form == [("token", token), ("token_type_hint", "access_token")]
    assert question.request.start == b"POST /introspect HTTP/1.1"
    assert question.request.one("content-type") == "application/x-www-form-urlencoded"
    assert question.request.one("accept") == "application/json"


async def test_no_more_than_our_own_headers_are_sent(idp, introspector_of):
    """N30: nothing but what the protocol needs; the peer's cookies are not kept either."""
    idp.will(says({"active": False}, 200, ("Set-Cookie", "session=1; Path=/")))
    introspector = introspector_of(provider_at(idp))
    await introspector.introspect("a")
    await introspector.introspect("b")
    for question in idp.questions:
        assert sorted(name.decode().lower() for name, _ in question.request.fields) == [
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "host",
            "user-agent",
        ]
        assert question.request.one("accept-encoding") == "identity"


async def test_configured_headers_and_arguments_are_sent(idp, introspector_of):
    """N30: only what the configuration says goes along."""
    provider = provider_at(idp, headers=(("X-Tenant", "a"),), post_args=(("resource", "b c"),), hint=None)
    await introspector_of(provider).introspect("t")
    (question,) = idp.questions
    assert question.request.one("x-tenant") == "a"
    assert sorted(question.form) == [("resource", "b c"), ("token", "t")]


@pytest.mark.parametrize("method", [ClientAuth.BASIC, ClientAuth.POST])
@pytest.mark.parametrize("secret", ["plain", ":+ %é", "a&b=c", "%2B"])
async def test_a_secret_of_any_characters_authenticates_us(idp, introspector_of, method, secret):
    """N14: form-encoded before base64 (RFC 6749 section 2.3.1), and one method at a time."""
    idp.credentials = ("our:client é", secret)
    idp.tokens["good"] = {"sub": "alex"}
    provider = provider_at(idp, client_id="our:client é", client_secret=secret, client_auth=method)
    state = await introspector_of(provider).introspect("good")
    assert isinstance(state, ActiveToken)
    (question,) = idp.questions
    assert (question.request.one("authorization") is None) is (method is ClientAuth.POST)


async def test_the_environment_names_a_proxy(idp, introspector_of, monkeypatch):
    """N30: the token goes to the identity provider, not to whoever the environment names."""
    async with Idp() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert await introspector_of(provider_at(idp)).introspect("t") is INACTIVE
        assert proxy.connections == []


# --- the answer -------------------------------------------------------------------------------------------------


async def test_an_active_token_keeps_its_claims(idp, introspector_of, stats, clock):
    """N16, N18: what the authorization server said is what comes back, and it is counted."""
    idp.tokens["good"] = {"sub": "alex", "exp": int(clock.now()) + 60, "unknown": {"member": [1]}}
    introspector = introspector_of(provider_at(idp))
    assert introspector.reachable is None
    state = await introspector.introspect("good")
    assert (state.claims["sub"], state.exp) == ("alex", clock.now() + 60)
    assert await introspector.introspect("bad") is INACTIVE
    assert stats.introspections.values == {("idp", "active"): 1, ("idp", "inactive"): 1}
    assert sum(stats.introspection_seconds.series["idp",][:-1]) == 2
    assert (introspector.reachable, introspector.problem) == (True, None)


BAD_ANSWERS = {
    "active is a string": says({"active": "true"}),
    "active is the string false": says({"active": "false"}),
    "active is 1": says({"active": 1}),
    "active is null": says({"active": None}),
    "active is missing": says({"sub": "alex"}),
    "an array": says([{"active": True}]),
    "a string": says("active"),
    "null": says(None),
    "two members of one name": says(b'{"active": false, "active": true}'),
    "not a number": says(b'{"active": true, "exp": NaN}'),
    "trailing junk": says(b'{"active": true}{"active": true}'),
    "a byte order mark": says(b'\xef\xbb\xbf{"active": true}'),
    "cut JSON": says(b'{"active": true'),
    "deeply nested": says(b'{"active": true, "a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    "invalid UTF-8": says(b'{"active": true, "sub": "\xff"}'),
    "nothing": says(b""),
    "a page": says(b"<html>login</html>", content_type="text/html"),
    "JSON in a page's clothes": says({"active": True}, content_type="text/html"),
    "no content": says(b"", 204),
    "created": says({"active": True}, 201),
    "not found": says({"active": True}, 404),
    "bad request": says({"active": True}, 400),
    "too long": says({"active": True, "pad": "x" * 70_000}),
    "compressed": says(gzip.compress(b'{"active": true}'), 200, ("Content-Encoding", "gzip")),
    "an unknown coding": says({"active": True}, 200, ("Content-Encoding", "x-secret")),
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a broken field": b"HTTP/1.1 200 OK\r\nContent-Type application/json\r\n\r\n",
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}{}{}",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    b'Transfer-Encoding: chunked\r\n\r\nzz\r\n{"active": true}\r\n0\r\n\r\n',
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    b'{"active": true}',
    "two content types": says({"active": True}, 200, ("Content-Type", "text/html")),
    "a header bomb": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_an_answer_that_cannot_be_trusted(idp, introspector_of, stats, name):
    """N16, N27, T11, T18, I5: never active, never inactive: an error, and the next question is asked anew."""
    idp.will(BAD_ANSWERS[name])
    introspector = introspector_of(provider_at(idp))
    error = await failure(introspector)
    assert error.kind is Cannot.MALFORMED, error
    assert stats.introspections.values == {("idp", "malformed"): 1}
    assert await introspector.introspect("t") is INACTIVE


async def test_an_answer_that_ends_early(idp, introspector_of):
    """N16, I5: half an answer is none, however much of it is valid."""
    idp.will(
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"active": true}',
        CLOSE,
    )
    assert (await failure(introspector_of(provider_at(idp)))).kind is Cannot.MALFORMED


async def test_an_endless_answer_is_left_early(idp, introspector_of):
    """N27, T11: 64 KiB are read, then the connection is closed."""
    idp.will(flood)
    assert (await failure(introspector_of(provider_at(idp)))).kind is Cannot.MALFORMED
    await idp.until(idp.connections[0].ended.is_set)


async def test_an_answer_that_says_it_is_not_compressed(idp, introspector_of):
    """N16: `Content-Encoding: identity` is nothing to refuse."""
    idp.will(says({"active": True}, 200, ("Content-Encoding", "identity")))
    assert isinstance(await introspector_of(provider_at(idp)).introspect("t"), ActiveToken)


async def test_interim_answers_come_first(idp, introspector_of):
    """I4: they are not the answer (RFC 9110 section 15.2)."""
    interim = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
    idp.will(interim + says({"active": False}))
    assert await introspector_of(provider_at(idp)).introspect("t") is INACTIVE


async def test_a_configured_header_that_would_be_two(idp, introspector_of):
    """N80: nothing is sent that is not a field."""
    introspector = introspector_of(provider_at(idp, headers=(("X-A", "a\r\nX-B: b"),)))
    with pytest.raises(IntrospectionError) as failure:
        await introspector.introspect("t")
    assert failure.value.kind is Cannot.MALFORMED
    assert idp.requests == []


async def test_configured_headers_never_ask_for_compression(idp, introspector_of):
    """N27: in no spelling."""
    provider = provider_at(idp, headers=(("accept-ENCODING", "gzip"), ("user-agent", "mine")))
    await introspector_of(provider).introspect("t")
    (question,) = idp.questions
    assert (question.request.one("accept-encoding"), question.request.one("user-agent")) == ("identity", "mine")


async def test_a_gzip_bomb_is_never_inflated(idp, introspector_of):
    """N27: nothing compressed is asked for or looked into."""
    idp.will(says(gzip.compress(b" " * 50_000_000), 200, ("Content-Encoding", "gzip")))
    assert "compressed" in (await failure(introspector_of(provider_at(idp)))).detail


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(idp, introspector_of, status):
    """N15, N16: neither token nor credentials go where an answer points."""
    async with Idp() as elsewhere:
        idp.will(says(b"", status, ("Location", elsewhere.endpoint)))
        assert (await failure(introspector_of(provider_at(idp)))).kind is Cannot.MALFORMED
        assert elsewhere.connections == []


@pytest.mark.parametrize("status", [401, 403])
async def test_our_own_credentials_are_refused(idp, introspector_of, stats, status):
    """N17, T39, I4: an error of its own, never an inactive token; recovery needs no restart."""
    idp.credentials = ("gateway", "another secret")
    idp.will(says({"error": "invalid_client"}, status))
    idp.tokens["good"] = {}
    introspector = introspector_of(provider_at(idp))
    assert (await failure(introspector, "good")).kind is Cannot.REJECTED
    assert introspector.reachable is False
    idp.credentials = ("gateway", "s3cret-of-ours")
    assert isinstance(await introspector.introspect("good"), ActiveToken)
    assert stats.introspections.values == {("idp", "rejected"): 1, ("idp", "active"): 1}


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
async def test_the_server_has_trouble(idp, introspector_of, status):
    """I3: unavailable, not inactive; without Retry-After the next question is asked."""
    idp.will(says({"active": True}, status))
    introspector = introspector_of(provider_at(idp))
    assert (await failure(introspector)).kind is Cannot.UNAVAILABLE
    assert await introspector.introspect("t") is INACTIVE


@pytest.mark.parametrize("status", [429, 503])
async def test_the_server_asks_for_a_pause(idp, introspector_of, clock, status):
    """I3: Retry-After is told to the client, and nothing is asked before it has passed."""
    idp.will(says(b"", status, ("Retry-After", "7")))
    introspector = introspector_of(provider_at(idp))
    assert (await failure(introspector)).retry_after == 7.0
    clock.pass_(6.5)
    waiting = await failure(introspector)
    assert (waiting.kind, waiting.retry_after) == (Cannot.UNAVAILABLE, 0.5)
    assert len(idp.questions) == 1
    clock.pass_(0.5)
    assert await introspector.introspect("t") is INACTIVE


@pytest.mark.parametrize(
    ("status", "wish", "seconds"),
    [(503, "86400", 60.0), (503, "Wed, 21 Oct 2099 07:28:00 GMT", None), (503, "-5", None), (503, "٣", None),
     (503, "9" * 400, None), (503, "0", None), (200, "30", None)],
)  # fmt: skip
async def test_a_wish_for_a_pause_is_bounded(idp, introspector_of, status, wish, seconds):
    """I3: nobody shuts us up for a day, by mistake or not."""
    idp.will(f"HTTP/1.1 {status} Said so\r\nContent-Length: 0\r\nRetry-After: {wish}\r\n\r\n".encode())
    introspector = introspector_of(provider_at(idp))
    assert (await failure(introspector)).retry_after == seconds
    if seconds is None:
        assert await introspector.introspect("t") is INACTIVE
    else:
        assert (await failure(introspector)).retry_after == seconds


# --- the way there ----------------------------------------------------------------------------------------------


async def test_connections_are_kept_and_reused(idp, introspector_of):
    """I8: one connection serves one question after the other."""
    introspector = introspector_of(provider_at(idp))
    for number in range(5):
        await introspector.introspect(str(number))
    assert len(idp.connections) == 1


async def test_a_server_that_closes_after_each_answer(idp, introspector_of):
    """I8: every question is answered, whether or not the close was seen in time."""
    introspector = introspector_of(provider_at(idp))
    for number in range(10):
        idp.will(idp.truth, CLOSE)
        assert await introspector.introspect(str(number)) is INACTIVE
    assert len(idp.questions) == 10


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_a_kept_connection_dies_when_it_is_used_again(idp, introspector_of, stats, end):
    """I8: one retry on a new connection, which nobody notices."""
    introspector = introspector_of(provider_at(idp))
    for _ in range(2):
        await introspector.introspect("a")
        idp.will(end)
        assert await introspector.introspect("b") is INACTIVE
    assert [question.token for question in idp.questions] == ["a", "b", "b"] * 2
    assert len(idp.connections) == 4
    assert stats.introspections.values == {("idp", "inactive"): 4}


async def test_every_kept_connection_dies_when_it_is_used_again(idp, introspector_of):
    """I8, I9: the retry trusts no other old connection."""
    introspector = introspector_of(provider_at(idp))
    hold = asyncio.Event()
    for _ in range(3):
        idp.will(hold, idp.truth)
    tasks = [asyncio.ensure_future(introspector.introspect(str(number))) for number in range(3)]
    await idp.asked(3)
    hold.set()
    await asyncio.gather(*tasks)
    assert len(idp.connections) == 3
    idp.will(RESET)
    assert await introspector.introspect("again") is INACTIVE
    assert idp.questions[-1].request.connection is idp.connections[3]


ANOTHER = says({"active": True, "sub": "somebody else"})


@pytest.mark.parametrize("length", [b"", b"Content-Length: 5\r\n"])
async def test_two_answers_to_one_question(idp, introspector_of, length):
    """R10: the second one is not the answer to the next question about another token."""
    idp.will(b"HTTP/1.1 204 No Content\r\n" + length + b"\r\n" + ANOTHER)
    idp.will(says({"active": False}) + ANOTHER)
    introspector = introspector_of(provider_at(idp))
    await failure(introspector)
    assert await introspector.introspect("a") is INACTIVE
    assert await introspector.introspect("b") is INACTIVE
    assert len(idp.connections) == 3


async def test_an_answer_that_nobody_asked_for(idp, introspector_of):
    """R10: what comes on a resting connection is not the answer to the next question."""
    late = asyncio.Event()
    idp.will(idp.truth, late, ANOTHER)
    introspector = introspector_of(provider_at(idp))
    assert await introspector.introspect("a") is INACTIVE
    late.set()
    await turns(50)
    assert await introspector.introspect("b") is INACTIVE
    assert len(idp.connections) == 2


async def test_a_new_connection_in_place_of_a_spoilt_one_dies(idp, introspector_of):
    """I8, R10: it is a new one, and so is not tried again."""
    late = asyncio.Event()
    idp.will(idp.truth, late, ANOTHER)
    introspector = introspector_of(provider_at(idp))
    await introspector.introspect("a")
    late.set()
    await turns(50)
    idp.will(CLOSE)
    assert (await failure(introspector)).kind is Cannot.UNAVAILABLE
    assert len(idp.questions) == 2


async def test_an_answer_that_nobody_asked_for_and_the_loop_has_not_seen(idp, introspector_of):
    """R10: also when it still lies in the socket at the moment of the next question."""
    introspector = introspector_of(provider_at(idp))
    assert await introspector.introspect("a") is INACTIVE
    idp.connections[0].writer.get_extra_info("socket")._sock.send(ANOTHER)
    assert await introspector.introspect("b") is INACTIVE
    assert len(idp.connections) == 2


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_a_new_connection_dies_before_an_answer(idp, introspector_of, end):
    """I8: a server that breaks down is not asked twice."""
    idp.will(end)
    assert (await failure(introspector_of(provider_at(idp)))).kind is Cannot.UNAVAILABLE
    assert len(idp.questions) == 1


async def test_the_retry_dies_too(idp, introspector_of):
    """I8: one retry, not a loop."""
    introspector = introspector_of(provider_at(idp))
    await introspector.introspect("a")
    idp.will(RESET)
    idp.will(RESET)
    assert (await failure(introspector)).kind is Cannot.UNAVAILABLE
    assert len(idp.questions) == 3


async def test_the_server_is_gone_and_comes_back(idp, introspector_of):
    """I9: refused while it is gone, asked at once when it is back."""
    introspector = introspector_of(provider_at(idp))
    await introspector.introspect("a")
    idp.drop()
    assert (await failure(introspector)).kind is Cannot.UNAVAILABLE
    assert introspector.reachable is False
    await idp.start()
    assert await introspector.introspect("b") is INACTIVE
    assert introspector.reachable is True


async def test_the_name_cannot_be_resolved(idp, introspector_of, monkeypatch):
    """I7: no name, no answer, and the peer is unavailable."""

    async def no_such_name(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", no_such_name)
    provider = provider_at(idp, introspection_endpoint="https://idp.test/introspect")
    error = await failure(introspector_of(provider))
    assert (error.kind, error.detail) == (Cannot.UNAVAILABLE, "its name cannot be resolved")


@pytest.mark.parametrize(
    "endpoint",
    ["http://idp.test/introspect", "http://127.0.0.1.idp.test/x", "ftp://127.0.0.1/x", "/introspect", "https://",
     "https://user:pass@127.0.0.1/x", "http://[::2]/x", "http://[::1/x", "http://127.0.0.1/x#y"],
)  # fmt: skip
async def test_an_endpoint_that_no_credentials_are_sent_to(idp, introspector_of, endpoint):
    """N15, T21: no plaintext beyond loopback, nothing that is no plain https address."""
    error = await failure(introspector_of(provider_at(idp, introspection_endpoint=endpoint)))
    assert error.kind is Cannot.MALFORMED


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_plaintext_to_loopback(idp, introspector_of, host):
    """N15: a development server on this machine needs no switch."""
    endpoint = idp.endpoint.replace("127.0.0.1", host)
    assert await introspector_of(provider_at(idp, introspection_endpoint=endpoint)).introspect("t") is INACTIVE


async def test_plaintext_where_it_was_asked_for(idp, introspector_of, monkeypatch):
    """N15: `allow_http` is the explicit switch."""

    async def here(_host, port, **_kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", here)
    endpoint = idp.endpoint.replace("127.0.0.1", "idp.test")
    provider = provider_at(idp, introspection_endpoint=endpoint, allow_http=True)
    assert await introspector_of(provider).introspect("t") is INACTIVE


# --- the deadline -----------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n"
NEVER = asyncio.Event


@pytest.mark.parametrize(
    "steps",
    [(NEVER,), (b"HTTP/1.1 200", NEVER), (HEAD, NEVER), (HEAD + b'{"active":', NEVER), (drip,),
     (b"HTTP/1.1 100 Continue\r\n\r\n", NEVER)],
    ids=["says nothing", "half a head", "a head only", "half a body", "drips", "only 100"],
)  # fmt: skip
async def test_the_server_hangs(idp, introspector_of, stats, steps):
    """T4, I1, I2: one deadline for whatever it is that does not come; the connection is not left behind."""
    idp.will(*[step() if step is NEVER else step for step in steps])
    introspector = introspector_of(provider_at(idp, timeout=0.1))
    assert (await failure(introspector)).kind is Cannot.TIMEOUT
    with suppress(ConnectionError):  # FIN or RST: it was closed, not pooled
        await asyncio.wait_for(idp.connections[0].reader.read(), 10)
    assert stats.introspections.values == {("idp", "timeout"): 1}


async def test_connecting_hangs(idp, introspector_of):
    """I2: a server that takes no connections is left at the deadline."""
    with socket.socket() as blackhole:
        blackhole.bind(("127.0.0.1", 0))
        blackhole.listen(0)
        port = blackhole.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)  # noqa: FBT003 - the standard library's signature
            filler.connect_ex(("127.0.0.1", port))
        endpoint = f"http://127.0.0.1:{port}/introspect"
        provider = provider_at(idp, introspection_endpoint=endpoint, timeout=0.1)
        assert (await failure(introspector_of(provider))).kind is Cannot.TIMEOUT
        for filler in fillers:
            filler.close()


async def test_waiting_for_a_turn_is_part_of_the_deadline(idp, introspector_of):
    """T4, I1: whoever waits behind a hanging server is told in time as well, and nothing piles up."""
    hold = asyncio.Event()
    for _ in range(10):
        idp.will(hold)
    introspector = introspector_of(provider_at(idp, timeout=0.1, concurrency=1))
    errors = await asyncio.gather(*(introspector.introspect(str(n)) for n in range(10)), return_exceptions=True)
    assert {error.kind for error in errors} == {Cannot.TIMEOUT}
    assert introspector.status()["under_way"] == introspector.status()["waiting"] == 0


async def test_more_questions_than_may_wait(idp, introspector_of, stats):
    """T4, I11: beyond the queue, the answer is there at once and nothing is sent."""
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    introspector = introspector_of(provider_at(idp, concurrency=1))
    tasks = [asyncio.ensure_future(introspector.introspect(str(n))) for n in range(1 + 16 + 3)]
    await idp.asked(1)
    done = [task for task in tasks if task.done()]
    assert [task.exception().kind for task in done] == [Cannot.OVERLOADED] * 3
    assert introspector.reachable is None
    hold.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert stats.introspections.values == {("idp", "overloaded"): 3, ("idp", "inactive"): 17}


async def test_no_more_questions_at_once_than_configured(idp, introspector_of):
    """I9, I10: a recovering server meets `concurrency` questions, not a herd."""
    hold = asyncio.Event()
    for _ in range(40):
        idp.will(hold, idp.truth)
    introspector = introspector_of(provider_at(idp, concurrency=4))
    tasks = [asyncio.ensure_future(introspector.introspect(str(n))) for n in range(40)]
    await idp.asked(4)
    await turns(50)
    assert len(idp.questions) == 4
    hold.set()
    assert await asyncio.gather(*tasks) == [INACTIVE] * 40
    assert len(idp.connections) == 4


# --- floods -----------------------------------------------------------------------------------------------------


async def test_a_flood_of_unknown_tokens(idp, introspector_of, clock, stats):
    """T25, I11: so many inactive answers, then no question, but for tokens known to be active."""
    idp.tokens["good"] = {}
    introspector = introspector_of(provider_at(idp, inactive_rate=5.0))
    outcomes = [await introspector.introspect(str(n)) for n in range(5)]
    assert outcomes == [INACTIVE] * 5
    refused = [await failure(introspector, f"more {n}") for n in range(20)]
    assert {error.kind for error in refused} == {Cannot.OVERLOADED}
    assert refused[0].retry_after == 1.0
    assert isinstance(await introspector.introspect("good", known=True), ActiveToken)
    assert len(idp.questions) == 6
    clock.pass_(1)
    assert isinstance(await introspector.introspect("good"), ActiveToken)


async def test_one_of_several_workers(idp, introspector_of):
    """T25, figure 14: the rate is the gateway's, whatever the number of its workers."""
    provider = provider_at(idp, inactive_rate=12.0)
    introspector = introspector_of(provider, SimpleNamespace(workers=4))
    assert [await introspector.introspect(str(n)) for n in range(3)] == [INACTIVE] * 3
    assert (await failure(introspector, "more")).kind is Cannot.OVERLOADED


async def test_a_flood_that_is_waiting_already(idp, introspector_of):
    """T25, I11: what waited for its turn when the budget ran out is not sent either."""
    introspector = introspector_of(provider_at(idp, inactive_rate=3.0, concurrency=2))
    outcomes = await asyncio.gather(*(introspector.introspect(str(n)) for n in range(30)), return_exceptions=True)
    assert outcomes.count(INACTIVE) == len(idp.questions) <= 3 + 2
    assert {error.kind for error in outcomes if error is not INACTIVE} == {Cannot.OVERLOADED}


async def test_good_tokens_cost_no_budget(idp, introspector_of):
    """T25: only inactive answers to unknown tokens are charged."""
    idp.tokens.update({str(n): {} for n in range(50)})
    introspector = introspector_of(provider_at(idp, inactive_rate=2.0))
    for number in range(50):
        await introspector.introspect(str(number))
    for number in range(50, 60):
        assert await introspector.introspect(str(number), known=True) is INACTIVE
    assert await introspector.introspect("unknown") is INACTIVE


# --- what is said about it --------------------------------------------------------------------------------------

SECRETS = ("tok-en-of-the-client", "s3cret-of-ours", "czNjcmV0LW9mLW91cnM", "peer-text")


@pytest.mark.parametrize(
    "steps",
    [
        (says({"error": "peer-text", "active": "tok-en-of-the-client"}, 401),),
        (says(b"peer-text", content_type="peer-text/x"),),
        (b"HTTP/1.1 200 peer-text\r\npeer-text\r\n\r\n",),
        (b"peer-text tok-en-of-the-client\r\n\r\n",),
        (says(b"peer-text", 503),),
        (says(b"", 200, ("Content-Encoding", "peer-text")),),
        (b"HTTP/1.1 302 peer-text\r\nLocation: http://peer-text/\r\nContent-Length: 0\r\n\r\n",),
        (RESET,),
    ],
)
async def test_no_failure_tells_a_secret_or_what_the_peer_sent(idp, introspector_of, steps, capsys):
    """N26, T12, T23: not in the error, its chain, the status, the log, or a repr."""
    idp.will(*steps)
    introspector = introspector_of(provider_at(idp))
    with structlog.testing.capture_logs() as logs:
        error = await failure(introspector, "tok-en-of-the-client")
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    said = [str(error), error.detail, repr(error), repr(introspector), str(introspector.status()), str(logs)]
    said += [repr(introspector.provider), introspector.problem, *capsys.readouterr()]
    assert [(text, secret) for text in said for secret in SECRETS if secret in text] == []


async def test_one_log_line_per_kind_and_while(idp, introspector_of, clock):
    """N17, T39, I5: an alarm that says what to check, and does not drown the log."""
    introspector = introspector_of(provider_at(idp, failures=100))
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            idp.will(says(b"", 401))
            await failure(introspector)
        idp.will(says(b"", 500))
        await failure(introspector)
        clock.pass_(10)
        idp.will(says(b"", 401))
        await failure(introspector)
        await introspector.introspect("t")
    assert [(line["event"], line.get("kind"), line.get("suppressed")) for line in logs] == [
        ("identity_provider_failed", "rejected", 0),
        ("identity_provider_failed", "unavailable", 0),
        ("identity_provider_failed", "rejected", 4),
        ("identity_provider_answers_again", None, None),
    ]
    assert logs[0]["client_id"] == "gateway"
    assert logs[0]["asked"] == idp.endpoint
    assert "client_secret" in logs[0]["advice"]


async def test_the_next_outage_is_told_at_once(idp, introspector_of):
    """I9: a server that came back and went again is news."""
    introspector = introspector_of(provider_at(idp))
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            idp.will(says(b"", 500))
            await failure(introspector)
            await introspector.introspect("t")
            idp.will(says(b"", 500))
            await failure(introspector)
    assert [line["event"] for line in logs] == [
        "identity_provider_failed",
        "identity_provider_answers_again",
        "identity_provider_failed",
    ]


async def test_it_fails_and_answers_by_turns(idp, introspector_of, clock):
    """T39: a few lines, and the last one says how things are."""
    introspector = introspector_of(provider_at(idp, failures=1))
    with structlog.testing.capture_logs() as logs:
        for _ in range(10):
            idp.will(says(b"", 500), idp.truth)
            await failure(introspector)
            while introspector.status()["held_off"]:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.002)
        assert len(logs) == 5
        clock.pass_(10)
        await introspector.introspect("t")
        await introspector.introspect("t")
    told = ["identity_provider_held_off", "identity_provider_failed", "identity_provider_answers_again"]
    assert [line["event"] for line in logs] == [*told, *told]


# --- the probe --------------------------------------------------------------------------------------------------


async def test_the_probe_proves_our_credentials(idp, introspector_of):
    """N17: a question about a token that nobody issued; `active: false` is the good answer."""
    idp.credentials = ("gateway", "s3cret-of-ours")
    introspector = introspector_of(provider_at(idp))
    await introspector.probe()
    await introspector.probe()
    assert introspector.reachable is True
    assert idp.questions[0].token != idp.questions[1].token


async def test_the_probe_fails(idp, introspector_of):
    """N17, T20: the reason is known before the first client comes."""
    idp.credentials = ("gateway", "another secret")
    introspector = introspector_of(provider_at(idp))
    with pytest.raises(IntrospectionError) as caught:
        await introspector.probe()
    assert caught.value.kind is Cannot.REJECTED
    assert introspector.problem == "rejected: " + caught.value.detail


async def test_a_server_that_calls_everything_active(idp, introspector_of):
    """T18: an endpoint that would let anybody in is no identity provider."""
    idp.will(says({"active": True, "sub": "everybody"}))
    introspector = introspector_of(provider_at(idp))
    with pytest.raises(IntrospectionError, match="nobody issued"):
        await introspector.probe()
    assert introspector.reachable is False


# --- closing ----------------------------------------------------------------------------------------------------


async def test_closing_waits_for_the_questions_under_way(idp, introspector_of):
    """I4: a reload takes no answer from whoever waits for it."""
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    introspector = introspector_of(provider_at(idp))
    asking = asyncio.ensure_future(introspector.introspect("t"))
    await idp.asked(1)
    closing = asyncio.ensure_future(introspector.close())
    await turns()
    assert not closing.done()
    hold.set()
    assert await asking is INACTIVE
    await closing
    await idp.until(idp.connections[0].ended.is_set)


async def test_nothing_is_opened_before_the_first_question(idp, introspector_of):
    """T20: making an introspector touches no socket and no file."""
    introspector = introspector_of(provider_at(idp, ca_file="/nowhere/ca.pem"))
    await introspector.close()
    assert idp.connections == []
    error = await failure(introspector)
    assert (error.kind, error.detail) == (Cannot.UNAVAILABLE, "its ca_file cannot be loaded")


def test_the_bound_of_an_answer_is_64_kib():
    """N27: the size that the decoder was written for."""
    assert client.MAX_BODY == 64 * 1024
