"""What is remembered of a token, for how long, and for whom; questions that are shared; floods; revocation."""

import asyncio
import json

import pytest

from tests.contract.parts import READER, StillClock, config, provider, route, service
from tests.support.client import fetch
from tests.support.idp import Idp, says
from tests.support.upstream import RESET

NOW = 1_700_000_000


@pytest.fixture
def clock():
    return StillClock(NOW)


def remembers(idp, **settings):
    return {"idp": provider(idp, **settings)}


async def statuses(gateway, target, token, count):
    return [(await gateway.get(target, token=token)).status for _ in range(count)]


# --- for how long -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "claims", "seconds"),
    [
        ({"cache_ttl": 60}, {}, 60),
        ({"cache_ttl": 600, "cache_ttl_max": 100}, {}, 100),
        ({"cache_ttl": 60, "cache_ttl_max": 100}, {"exp": NOW + 1000}, 100),
        ({"cache_ttl_max": 100}, {"exp": NOW + 30}, 30),
        ({}, {"exp": NOW + 100_000}, 300),
    ],
    ids=str,
)
async def test_how_long_a_token_is_remembered(lane, idp, upstream, clock, settings, claims, seconds):
    """N19, N20, T14: until `exp` or `cache_ttl_max`, whatever comes first; `cache_ttl` without `exp`."""
    idp.tokens["t"] = {**READER, **claims}
    wanted = config(idp, upstream, identity_providers=remembers(idp, **settings))
    async with lane(wanted, clock=clock) as gateway:
        assert await statuses(gateway, "/api", "t", 3) == [200] * 3
        clock.pass_(seconds - 0.5)
        assert await statuses(gateway, "/api", "t", 1) == [200]
        assert len(idp.questions) == 1
        clock.pass_(0.5)
        got = await gateway.get("/api", token="t")
        assert len(idp.questions) == 2
        assert got.status == (401 if claims.get("exp") == NOW + 30 else 200)


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
async def test_the_wall_clock_jumps(lane, idp, upstream, clock, jump):
    """N19, T14: `exp` is held against the wall clock on every hit; a jump never makes a memory last longer."""
    idp.tokens["t"] = {**READER, "exp": NOW + 3600}
    async with lane(config(idp, upstream), clock=clock) as gateway:
        assert await statuses(gateway, "/api", "t", 2) == [200, 200]
        clock.wall += jump
        assert await statuses(gateway, "/api", "t", 1) == [401 if jump > 0 else 200]
        clock.steady += 300.0
        idp.tokens.clear()
        assert await statuses(gateway, "/api", "t", 1) == [401]


@pytest.mark.parametrize("settings", [{"cache_ttl_max": 0}, {"cache_ttl": 0}], ids=str)
async def test_zero_is_not_at_all(lane, idp, upstream, settings):
    """T27: never "forever"."""
    async with lane(config(idp, upstream, identity_providers=remembers(idp, **settings))) as gateway:
        assert await statuses(gateway, "/api", "good", 4) == [200] * 4
        assert len(idp.questions) == 4
        assert (await gateway.status())["cache"]["memory"]["active"] == 0


@pytest.mark.parametrize(("seconds", "asked"), [(0, 3), (5, 1)])
async def test_inactive_tokens(lane, idp, upstream, clock, seconds, asked):
    """N18, T27: `cache_ttl_neg`; a token that becomes active is found out."""
    wanted = config(idp, upstream, identity_providers=remembers(idp, cache_ttl_neg=seconds))
    async with lane(wanted, clock=clock) as gateway:
        assert await statuses(gateway, "/api", "late", 3) == [401] * 3
        assert len(idp.questions) == asked
        idp.tokens["late"] = dict(READER)
        clock.pass_(seconds)
        assert await statuses(gateway, "/api", "late", 1) == [200]


async def test_two_routes_with_two_freshnesses_in_turn(lane, idp, upstream, clock):
    """T3: the strict route asks as often as it must, the lax one never; both know the newest answer."""
    routes = (route("/lax"), route("/strict", {"cache_ttl_max": 10}), route("/never", {"cache_ttl_max": 0}))
    async with lane(config(idp, upstream, *routes), clock=clock) as gateway:
        for _ in range(5):
            assert await statuses(gateway, "/lax", "good", 2) == [200, 200]
            assert await statuses(gateway, "/strict", "good", 2) == [200, 200]
            clock.pass_(10)
        assert len(idp.questions) == 5
        assert await statuses(gateway, "/never", "good", 2) == [200, 200]
        assert len(idp.questions) == 7
        clock.pass_(299)
        assert await statuses(gateway, "/lax", "good", 1) == [200]
        assert len(idp.questions) == 7


async def test_a_token_in_use_is_asked_about_ahead(lane, idp, upstream, clock):
    """Figure 15: no request waits for it, and none finds the memory stale while the token is in use."""
    wanted = config(idp, upstream, identity_providers=remembers(idp, cache_ask_ahead="30s"))
    async with lane(wanted, clock=clock) as gateway:
        for asked in range(1, 5):
            for _ in range(6):
                assert await statuses(gateway, "/api", "good", 2) == [200, 200]
                clock.pass_(48)
            assert await statuses(gateway, "/api", "good", 2) == [200, 200]
            await idp.asked(asked + 1)
            await gateway.until_metric(asked, "fastgate_flights_total", role="ahead")
        assert await gateway.metric("fastgate_cache_misses_total", reason="stale") == 0
        assert len(idp.questions) == 5


# --- for whom -----------------------------------------------------------------------------------------------------


async def test_one_token_at_two_identity_providers(lane, idp, upstream):
    """N24, N25, T2: two answers; neither is ever the other one's."""
    async with Idp() as other:
        other.tokens["good"] = {"sub": "somebody-else", "scope": "read"}
        idp.tokens["only-here"] = dict(READER)
        who = [{"header": "X-Who", "path": ["sub"]}]
        routes = (
            route("/one", {"identity_provider": "idp", "upstream_headers": who}),
            route("/two", {"identity_provider": "other", "upstream_headers": who}),
        )
        settings = {"idp": provider(idp), "other": provider(other)}
        async with lane(config(idp, upstream, *routes, identity_providers=settings)) as gateway:
            for _ in range(3):
                assert (await gateway.get("/one", token="good")).status == 200
                assert (await gateway.get("/two", token="good")).status == 200
                assert (await gateway.get("/one", token="only-here")).status == 200
                assert (await gateway.get("/two", token="only-here")).status == 401
        assert [got.header("x-who") for got in upstream.requests] == ["alex", "somebody-else", "alex"] * 3
        assert len(idp.questions) == len(other.questions) == 2


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"introspection_post_args": {"resource": "b"}}, 2),
        ({"introspection_headers": {"X-Tenant": "b"}}, 2),
        ({"client_id": "another"}, 2),
        ({"introspection_hint": "refresh_token"}, 2),
        ({"cache_ttl_neg": 1, "timeout": "19s"}, 1),
    ],
    ids=str,
)
async def test_what_changes_the_answer_is_part_of_the_key(lane, idp, upstream, changes, asked):
    """N25, T6: after a reload that changes how is asked, nothing of the old answers is used; else all of it."""
    settings = {"introspection_post_args": {"resource": "a"}, "introspection_headers": {"X-Tenant": "a"}}
    async with lane(config(idp, upstream, identity_providers=remembers(idp, **settings))) as gateway:
        assert await statuses(gateway, "/api", "good", 2) == [200, 200]
        await gateway.reload(identity_providers=remembers(idp, **settings | changes))
        assert await statuses(gateway, "/api", "good", 2) == [200, 200]
        assert len(idp.questions) == asked


# --- while the identity provider is away ------------------------------------------------------------------------


async def test_a_known_token_goes_on_for_a_while(lane, idp, upstream, clock):
    """N20, T20: `cache_ttl_resurrect`, while nobody answers; never past `exp`, never against a "no"."""
    idp.tokens["short"] = {**READER, "exp": NOW + 350}
    settings = remembers(idp, cache_ttl_max=300, cache_ttl_resurrect=100)
    async with lane(config(idp, upstream, identity_providers=settings), clock=clock) as gateway:
        for token in ("good", "short"):
            assert await statuses(gateway, "/api", token, 1) == [200]
        idp.drop()
        clock.pass_(340)
        for token, status in (("good", 200), ("short", 200), ("unknown", 503)):
            assert await statuses(gateway, "/api", token, 2) == [status] * 2
        clock.pass_(20)
        for token, status in (("good", 200), ("short", 503)):
            assert await statuses(gateway, "/api", token, 2) == [status] * 2
        clock.pass_(50)
        assert await statuses(gateway, "/api", "good", 2) == [503] * 2


async def test_a_no_ends_what_went_on(lane, idp, upstream, clock):
    """N17, N18: an authoritative "inactive" is final, also when the identity provider goes away right after it."""
    settings = remembers(idp, cache_ttl_max=10, cache_ttl_neg=0, cache_ttl_resurrect=1000)
    async with lane(config(idp, upstream, identity_providers=settings), clock=clock) as gateway:
        assert await statuses(gateway, "/api", "good", 1) == [200]
        clock.pass_(20)
        idp.will(says({"error": "invalid_client"}, 401))
        assert await statuses(gateway, "/api", "good", 1) == [503]
        idp.will(RESET)
        idp.will(RESET)
        assert await statuses(gateway, "/api", "good", 1) == [200]
        claims = idp.tokens.pop("good")
        # The token goes on while a question in the background finds out.
        async with asyncio.timeout(30):
            while await statuses(gateway, "/api", "good", 1) == [200]:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.01)
        idp.drop()
        assert await statuses(gateway, "/api", "good", 1) == [503]
        await idp.start()
        idp.tokens["good"] = claims
        assert await statuses(gateway, "/api", "good", 1) == [200]


async def test_without_it_a_known_token_does_not(lane, idp, upstream, clock):
    """N20: off unless it is configured; what is fresh needs nobody."""
    async with lane(config(idp, upstream), clock=clock) as gateway:
        assert await statuses(gateway, "/api", "good", 1) == [200]
        idp.drop()
        clock.pass_(299)
        assert await statuses(gateway, "/api", "good", 1) == [200]
        clock.pass_(1)
        assert await statuses(gateway, "/api", "good", 1) == [503]
        await idp.start()
        assert await statuses(gateway, "/api", "good", 1) == [200]


# --- questions that are shared ----------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", [False, True])
async def test_fifty_requests_with_one_cold_token(lane, idp, upstream, leaves):
    """T28, T29: exactly one question; the client that came first may leave, the others are served by it."""
    told = asyncio.Event()
    idp.will(told, idp.truth)
    async with lane(config(idp, upstream)) as gateway:
        first = await gateway.connect()
        await first.send(b"GET /api/first HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n")
        await idp.asked(1)
        others = [asyncio.create_task(gateway.get("/api", token="good")) for _ in range(49)]
        await gateway.until_metric(49, "fastgate_flights_total", role="joined")
        if leaves:
            assert await gateway.metric("fastgate_connections") == 50
            first.abort()
            async with asyncio.timeout(30):
                while await gateway.metric("fastgate_connections") > 49:  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(0.01)
        told.set()
        assert {got.status for got in await asyncio.gather(*others)} == {200}
        if not leaves:
            assert (await first.answer()).status == 200
            await first.close()
        assert len(idp.questions) == 1
        assert await statuses(gateway, "/api", "good", 1) == [200]
        assert len(idp.questions) == 1


async def test_a_shared_question_that_fails(lane, idp, upstream):
    """N17, T30: its waiters are told once; nothing is remembered; the next request asks anew."""
    told = asyncio.Event()
    idp.will(told, says(b"", 500))
    async with lane(config(idp, upstream)) as gateway:
        waiting = [asyncio.create_task(gateway.get("/api", token="good")) for _ in range(10)]
        await gateway.until_metric(9, "fastgate_flights_total", role="joined")
        told.set()
        assert {got.status for got in await asyncio.gather(*waiting)} == {503}
        assert await statuses(gateway, "/api", "good", 1) == [200]
        assert len(idp.questions) == 2


async def test_questions_about_different_tokens(lane, idp, upstream):
    """T22, T30: one that fails or waits is nobody else's business; every request gets its own answer."""
    never = asyncio.Event()
    for number in range(30):
        idp.tokens[f"t{number}"] = {"sub": str(number), "scope": "read" if number % 2 else "write"}
    idp.will(never, idp.truth)
    async with lane(config(idp, upstream)) as gateway:
        stuck = asyncio.create_task(gateway.get("/api", token="t1"))
        await idp.asked(1)
        got = await asyncio.gather(*(gateway.get("/api", token=f"t{number}") for number in range(2, 30)))
        assert [each.status for each in got] == [200 if number % 2 else 403 for number in range(2, 30)]
        never.set()
        assert (await stuck).status == 200


# --- floods -------------------------------------------------------------------------------------------------------


async def test_a_flood_of_random_tokens(lane, idp, upstream, clock):
    """T25: questions capped, memory bounded; good tokens, remembered or refreshed, never notice."""
    settings = remembers(idp, introspection_inactive_rate=20, introspection_concurrency=4, cache_ttl_max=60)
    wanted = config(idp, upstream, identity_providers=settings, cache={"memory": {"max_entries": 100}})
    async with lane(wanted, clock=clock) as gateway:
        assert await statuses(gateway, "/api", "good", 1) == [200]

        async def flood(number):
            async with await gateway.connect() as client:
                fields = [("Authorization", f"Bearer random-{number}-{count}") for count in range(50)]
                return [(await client.request("GET", "/api", field)).status for field in fields]

        flooded = asyncio.gather(*map(flood, range(16)))
        assert await statuses(gateway, "/api", "good", 20) == [200] * 20
        refused = [status for each in await flooded for status in each]
        assert set(refused) == {401, 503}
        # The clock stands still: the burst, and what was under way when it was spent.
        assert len(idp.questions) <= 1 + 20 + 4
        assert refused.count(401) == len(idp.questions) - 1
        memory = (await gateway.status())["cache"]["memory"]
        assert memory["active"] == 1
        assert memory["inactive"] <= 10
        clock.pass_(60)
        before = len(idp.questions)
        assert await statuses(gateway, "/api", "good", 2) == [200, 200]
        assert len(idp.questions) == before + 1
        # Paid back: unknown tokens are asked about again.
        idp.tokens["new"] = dict(READER)
        assert await statuses(gateway, "/api", "new", 1) == [200]


async def test_labels_come_from_the_configuration_only(lane, idp, upstream):
    """N26, T25: a thousand paths and tokens, hosts and methods add no series to the metrics."""
    settings = remembers(idp, introspection_inactive_rate=1_000_000)
    async with lane(config(idp, upstream, identity_providers=settings)) as gateway:

        async def visit(start, count):
            async with await gateway.connect() as client:
                for number in range(start, start + count):
                    await client.send(
                        b"GET /api/%d HTTP/1.1\r\nHost: h%d.test\r\nAuthorization: Bearer t%d\r\n\r\n"
                        b"GET /gone/%d HTTP/1.1\r\nHost: a\r\n\r\n" % (number, number, number, number)
                    )
                    assert [(await client.answer()).status for _ in range(2)] == [401, 404]

        async def series():
            text = (await gateway.admin("GET", "/metrics")).body.decode()
            return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}

        await visit(0, 10)
        before = await series()
        await asyncio.gather(*(visit(100 * lot, 100) for lot in range(1, 11)))
        assert await series() == before
        assert await gateway.metric("fastgate_requests_total", route="api", status="401") == 1010


# --- revocation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", [{"token": "good"}, {"sub": "alex"}, {"sid": "s1"}, {"client_id": "app"}, {"all": True}], ids=str
)
@pytest.mark.parametrize("ttl", [0, 60])
async def test_what_is_revoked_stays_revoked(lane, idp, upstream, clock, what, ttl):
    """T13, T24: refused at once, after its time in memory, after a reload, however often the server says "active"."""
    idp.tokens["good"]["iat"] = NOW - 10
    idp.tokens["other"] = {"sub": "kim", "scope": "read", "client_id": "web", "sid": "s2", "iat": NOW - 10}
    settings = remembers(idp, cache_ttl_max=ttl, cache_ttl_neg=5)
    async with lane(config(idp, upstream, identity_providers=settings), clock=clock) as gateway:
        for token in ("good", "other"):
            assert await statuses(gateway, "/api", token, 1) == [200]
        assert await gateway.revoke(**what) == (1 if "token" in what else (2 if "all" in what else 1) * (ttl > 0))
        kept = 401 if "all" in what else 200
        for seconds in (0, 5, 60, 3600):
            clock.pass_(seconds)
            assert await statuses(gateway, "/api", "good", 2) == [401, 401]
            assert await statuses(gateway, "/api", "other", 1) == [kept]
        await gateway.reload(identity_providers=remembers(idp, cache_ttl_max=30, client_id="renamed"))
        assert await statuses(gateway, "/api", "good", 2) == [401, 401]
        # The next login is welcome: it was issued after the revocation.
        idp.tokens["next"] = {**READER, "iat": int(clock.wall)}
        assert await statuses(gateway, "/api", "next", 1) == [200]


@pytest.mark.parametrize("what", [{"token": "good"}, {"sub": "alex"}, {"all": True}], ids=str)
async def test_revoked_while_the_question_is_under_way(lane, idp, upstream, what):
    """T24: an answer from before the revocation does not bring the token back."""
    told = asyncio.Event()
    idp.will(told, idp.truth)
    async with lane(config(idp, upstream)) as gateway:
        waiting = asyncio.create_task(gateway.get("/api", token="good"))
        await idp.asked(1)
        await gateway.revoke(**what)
        told.set()
        assert (await waiting).status == 401
        assert await statuses(gateway, "/api", "good", 2) == [401, 401]
    assert upstream.requests == []


async def test_revoking_does_not_tell_what_is_known(lane, idp, upstream):
    """T13: with the admin token only; the same answer for a token that nobody has ever seen."""
    wanted = config(idp, upstream)
    gateway = lane(wanted)
    gateway.config["admin"]["token"] = "adm1n"
    async with gateway:
        assert await statuses(gateway, "/api", "good", 1) == [200]
        refused = await gateway.admin("POST", "/tokens/revoke", {"token": "good"})
        assert (refused.status, refused.header("www-authenticate")) == (401, 'Bearer realm="fastgate admin"')
        assert await statuses(gateway, "/api", "good", 1) == [200]

        async def revoke(body, *fields):
            kind = (("Content-Type", "application/json"), ("Authorization", "Bearer adm1n"), *fields)
            return await fetch(gateway.admin_port, "POST", "/tokens/revoke", *kind, body=body)

        seen, unseen = await revoke(b'{"token":"good"}'), await revoke(b'{"token":"never-seen"}')
        assert (seen.status, seen.body) == (unseen.status, unseen.body)
        assert json.loads(seen.body) == {"revoked": 1}
        for body in (b"", b"{}", b'{"token":""}', b'{"all":false}', b'{"token":"a","sub":"b"}', b"[]", b'{"sub":7}'):
            assert (await revoke(body)).status == 400
        assert (await revoke(b'{"all":true}', ("Origin", "http://evil.example"))).status == 403
        assert await statuses(gateway, "/api", "good", 1) == [401]
        idp.tokens["fresh"] = dict(READER)
        assert await statuses(gateway, "/api", "fresh", 1) == [200]


async def test_a_revoked_token_is_not_resurrected(lane, idp, upstream, clock):
    """T24: not by an outage either."""
    settings = remembers(idp, cache_ttl_max=10, cache_ttl_resurrect=1000)
    async with lane(config(idp, upstream, identity_providers=settings), clock=clock) as gateway:
        assert await statuses(gateway, "/api", "good", 1) == [200]
        clock.pass_(20)
        await gateway.revoke(sub="alex")
        idp.drop()
        assert await statuses(gateway, "/api", "good", 2) == [503, 503]


async def test_the_same_token_on_two_services(lane, idp, upstream):
    """N24, T24: one identity provider is one memory, however many services it protects."""
    wanted = config(idp, upstream)
    wanted["services"] = [
        service(upstream, route("/one"), name="one"),
        service(upstream, route("/two"), name="two"),
    ]
    async with lane(wanted) as gateway:
        assert await statuses(gateway, "/one", "good", 1) == [200]
        assert await statuses(gateway, "/two", "good", 1) == [200]
        assert len(idp.questions) == 1
        await gateway.revoke(token="good")
        assert await statuses(gateway, "/one", "good", 1) == await statuses(gateway, "/two", "good", 1) == [401]
