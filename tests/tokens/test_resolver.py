"""From access token to token state: what is asked, what is remembered, and what beats what."""

import asyncio
from dataclasses import replace

import pytest

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE, ActiveToken, Freshness
from fastgate.policy.digest import token_key
from fastgate.tokens.memory import MemoryTier
from fastgate.tokens.revocation import Revocations, RevocationsFullError
from tests.support.idp import Idp, says
from tests.support.upstream import RESET
from tests.tokens.parts import NOW, World, access_to, bearer, peek, provider_at, turns


async def failure(awaitable):
    with pytest.raises(IntrospectionError) as caught:
        await awaitable
    return caught.value


# --- remembering ------------------------------------------------------------------------------------------------


async def test_a_token_is_asked_about_once(idp, world, stats):
    """N19, T1: the second request is answered from memory, synchronously."""
    idp.tokens["good"] = {"sub": "alex", "exp": NOW + 600}
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    assert peek(tokens, access, bearer("good")) is None
    state = await tokens.resolve(access, bearer("good"))
    assert state.claims["sub"] == "alex"
    assert peek(tokens, access, bearer("good")) is state
    assert len(idp.questions) == 1
    assert stats.cache_misses.values == {("memory", "absent"): 1}
    assert stats.cache_hits.values == {("memory", "active"): 1}


async def test_an_inactive_token_is_remembered_for_a_moment(idp, world, clock, stats):
    """N18, T25: `ttl_neg`, then it is asked about again."""
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    assert await world.get(access, "bad") is INACTIVE
    clock.pass_(4.9)
    assert peek(tokens, access, bearer("bad")) is INACTIVE
    clock.pass_(0.1)
    assert peek(tokens, access, bearer("bad")) is None
    idp.tokens["bad"] = {}
    assert isinstance(await world.get(access, "bad"), ActiveToken)
    assert stats.cache_hits.values == {("memory", "inactive"): 1}
    assert stats.cache_misses.values == {("memory", "absent"): 1, ("memory", "stale"): 2}
    assert (world.memory.active, world.memory.inactive) == (1, 0)


@pytest.mark.parametrize(
    ("claims", "seconds"),
    [({}, 300), ({"exp": NOW + 100}, 100), ({"exp": NOW + 10_000}, 300), ({"exp": NOW + 1}, 1)],
)
async def test_how_long_a_token_is_remembered(idp, world, clock, claims, seconds):
    """N19, N20, T14: never past `exp`, never longer than `ttl_max`."""
    idp.tokens["good"] = claims
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    await world.get(access, "good")
    clock.pass_(seconds - 0.01)
    assert peek(tokens, access, bearer("good")) is not None
    clock.pass_(0.01)
    assert peek(tokens, access, bearer("good")) is None


async def test_the_wall_clock_jumps_past_exp(idp, world, clock, stats):
    """N19, T14, I13: `exp` is looked at on every hit, by the wall clock."""
    idp.tokens["good"] = {"exp": NOW + 100}
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    await world.get(access, "good")
    clock.jump(100)
    assert peek(tokens, access, bearer("good")) is None
    assert stats.cache_misses.values["memory", "expired"] == 1


async def test_the_wall_clock_jumps_back(idp, world, clock):
    """I13: ages are monotonic; a jump never makes an old answer young."""
    idp.tokens["good"] = {"exp": NOW + 10_000}
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    await world.get(access, "good")
    clock.jump(-3600)
    clock.pass_(300)
    assert peek(tokens, access, bearer("good")) is None


@pytest.mark.parametrize("exp", [NOW, NOW - 100])
async def test_an_active_answer_that_has_expired_already(idp, world, exp):
    """N19, T14: it is returned, for `verify` to refuse, and not remembered."""
    idp.tokens["good"] = {"exp": exp}
    access = access_to(provider_at(idp))
    world.of(access.provider)
    assert (await world.get(access, "good")).exp == exp
    assert len(world.memory) == 0


@pytest.mark.parametrize(
    "exp", [b"1e300", b"-1", b"0", b"1.5", b'"123"', b"null", b"9223372036854775808", b"1e999", b"[1]", b"true"]
)
async def test_an_exp_of_any_kind(idp, world, clock, exp):
    """T10, N21: an error, or remembered no longer than allowed; never a crash."""
    idp.will(says(b'{"active": true, "exp": ' + exp + b"}"))
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    try:
        await tokens.resolve(access, bearer("t"))
    except IntrospectionError as error:
        assert error.kind is Cannot.MALFORMED  # noqa: PT017 - either outcome is right, a crash is not
        assert len(world.memory) == 0
    clock.pass_(300)
    assert peek(tokens, access, bearer("t")) is None


async def test_nothing_is_remembered_with_ttl_zero(idp, world):
    """T27: 0 is "not at all", never "forever"."""
    idp.tokens["good"] = {"exp": NOW + 1000}
    nothing = Freshness(ttl=0.0, ttl_max=0.0, ttl_neg=0.0)
    access = access_to(provider_at(idp, freshness=nothing))
    tokens = world.of(access.provider)
    for _ in range(3):
        assert isinstance(await world.get(access, "good"), ActiveToken)
        assert await world.get(access, "bad") is INACTIVE
        assert peek(tokens, access, bearer("good")) is None
    assert len(idp.questions) == 6
    assert len(world.memory) == 0


async def test_concurrent_requests_share_a_flight_with_ttl_zero(idp, world):
    """T27, T28: what is under way may be shared; it is as fresh as can be."""
    idp.tokens["good"] = {}
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    access = access_to(provider_at(idp), ttl=0.0, ttl_max=0.0)
    world.of(access.provider)
    tasks = [asyncio.ensure_future(world.get(access, "good")) for _ in range(5)]
    await idp.asked(1)
    hold.set()
    await asyncio.gather(*tasks)
    assert len(idp.questions) == 1


async def test_an_inactive_answer_that_is_not_remembered_still_replaces(idp, world):
    """I12, T27: `ttl_neg: 0` does not leave the older active answer standing."""
    idp.tokens["good"] = {}
    strict_on_bad = Freshness(ttl_neg=0.0)
    lax = access_to(provider_at(idp, freshness=strict_on_bad, ttl_resurrect=1000.0))
    fresh = access_to(lax.provider, ttl_max=0.0)
    tokens = world.of(lax.provider)
    await world.get(lax, "good")
    del idp.tokens["good"]
    assert await world.get(fresh, "good") is INACTIVE
    assert peek(tokens, lax, bearer("good")) is None
    idp.drop()
    assert (await failure(tokens.resolve(lax, bearer("good")))).kind is Cannot.UNAVAILABLE


async def test_two_routes_with_two_freshnesses_in_turn(idp, world, clock):
    """T3: each keeps its own; the strict one's refresh serves the lax one and never shortens it."""
    idp.tokens["good"] = {"exp": NOW + 10_000}
    provider = provider_at(idp)
    lax, strict = access_to(provider), access_to(provider, ttl_max=10.0)
    tokens = world.of(provider)
    for _ in range(50):
        await world.get(lax, "good")
        await world.get(strict, "good")
        clock.pass_(6)
    # 300 s: the strict route asks whenever its answer is 12 s old, the lax one not once more.
    assert len(idp.questions) == 25
    clock.pass_(280)
    assert peek(tokens, lax, bearer("good")) is not None
    assert peek(tokens, strict, bearer("good")) is None


async def test_a_route_that_remembers_nothing_still_refreshes_the_others(idp, world, clock):
    """T3, T27: its answers are as good as anybody's."""
    idp.tokens["good"] = {}
    provider = provider_at(idp)
    lax, never = access_to(provider), access_to(provider, ttl=0.0, ttl_max=0.0)
    tokens = world.of(provider)
    await world.get(lax, "good")
    clock.pass_(299)
    await world.get(never, "good")
    clock.pass_(299)
    assert peek(tokens, lax, bearer("good")) is not None
    assert len(idp.questions) == 2


async def test_the_age_counts_from_when_the_question_was_asked(idp, world, clock):
    """N20: an answer that took its time is that much older."""
    idp.tokens["good"] = {}
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    asking = asyncio.ensure_future(world.get(access, "good"))
    await idp.asked(1)
    clock.pass_(299)
    hold.set()
    await asking
    assert peek(tokens, access, bearer("good")) is not None
    clock.pass_(1)
    assert peek(tokens, access, bearer("good")) is None


async def test_two_identity_providers_and_one_token(world, stats):
    """N25, T2: what one says is never the other one's answer."""
    async with Idp() as first, Idp() as second:
        first.tokens["t"] = {"sub": "alex"}
        one = access_to(provider_at(first, name="one", digest_key=b"1" * 64))
        two = access_to(provider_at(second, name="two", digest_key=b"2" * 64))
        world.of(one.provider, two.provider)
        for _ in range(2):
            assert isinstance(await world.get(one, "t"), ActiveToken)
            assert await world.get(two, "t") is INACTIVE
        assert (len(first.questions), len(second.questions)) == (1, 1)
        await world.tokens.close()


async def test_what_changes_the_answer_is_part_of_the_key(idp, world):
    """N25, T6: the same server asked in another way is another memory."""
    idp.tokens["t"] = {}
    plain = access_to(provider_at(idp))
    tenant = access_to(provider_at(idp, name="b", headers=(("X-Tenant", "b"),), digest_key=b"e" * 64))
    world.of(plain.provider, tenant.provider)
    await world.get(plain, "t")
    await world.get(tenant, "t")
    assert [question.request.one("x-tenant") for question in idp.questions] == [None, "b"]


async def test_only_configured_servers_are_ever_asked(idp, world):
    """T8: an `iss` in a token or in an answer is never an address."""
    async with Idp() as other:
        idp.tokens["header.eyJpc3MiOiJodHRwOi8vZXZpbC50ZXN0In0.sig"] = {"iss": other.issuer}
        access = access_to(provider_at(idp))
        world.of(access.provider)
        for _ in range(2):
            await world.get(access, "header.eyJpc3MiOiJodHRwOi8vZXZpbC50ZXN0In0.sig")
        assert other.connections == []


async def test_no_token_is_kept_anywhere(idp, world):
    """N26, T12: memory is keyed by digests; neither the tier nor the revocations hold a token."""
    idp.tokens["tok-en-good"] = {}
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    await world.get(access, "tok-en-good")
    await world.get(access, "tok-en-bad")
    tokens.revoke(token="tok-en-other")
    held = [*world.memory._active, *world.memory._inactive, *world.revocations._tokens]
    assert [len(key) for key in held] == [32, 32, 32]
    everything = (vars(tokens), world.memory._active, tokens.status(), bearer("tok-en-good"))
    assert "tok-en" not in str(everything)


async def test_concurrent_requests_with_different_tokens(idp, world):
    """T22, R10: every request gets the answer about its own token."""
    idp.tokens.update({f"t{n}": {"sub": f"user-{n}"} for n in range(100)})
    access = access_to(provider_at(idp))
    world.of(access.provider)
    states = await asyncio.gather(*(world.get(access, f"t{n % 100}") for n in range(300)))
    assert [state.claims["sub"] for state in states] == [f"user-{n % 100}" for n in range(300)]
    assert len(idp.questions) == 100


# --- flights ----------------------------------------------------------------------------------------------------


async def test_fifty_requests_with_one_cold_token(idp, world, stats):
    """T28, I10: exactly one question; who comes as the answer lands does not ask another."""
    idp.tokens["good"] = {"sub": "alex"}
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    assert peek(tokens, access, bearer("good")) is None
    tasks = [asyncio.ensure_future(world.get(access, "good")) for _ in range(50)]
    await idp.asked(1)
    hold.set()
    states = await asyncio.gather(*tasks)
    assert {id(state) for state in states} == {id(states[0])}
    late = await tokens.resolve(access, bearer("good"))  # it had peeked before the answer came
    assert late is states[0]
    assert len(idp.questions) == 1
    assert stats.flights.values == {("started",): 1, ("joined",): 49}


async def test_the_client_that_came_first_disconnects(idp, world):
    """T29, I14: the others are served by the same question, and the answer is remembered."""
    idp.tokens["good"] = {}
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    first, *others = [asyncio.ensure_future(world.get(access, "good")) for _ in range(5)]
    await idp.asked(1)
    first.cancel()
    await turns()
    assert first.cancelled()
    hold.set()
    assert all(isinstance(state, ActiveToken) for state in await asyncio.gather(*others))
    assert peek(tokens, access, bearer("good")) is not None
    assert len(idp.questions) == 1


async def test_every_client_disconnects(idp, world):
    """T29, I14: what was asked is remembered for the next one."""
    idp.tokens["good"] = {}
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    only = asyncio.ensure_future(world.get(access, "good"))
    await idp.asked(1)
    only.cancel()
    await turns()
    hold.set()
    assert isinstance(await tokens.resolve(access, bearer("good")), ActiveToken)
    assert len(idp.questions) == 1


async def test_the_question_fails(idp, world, stats):
    """T30, I15, N17: its waiters get the error once, nothing is remembered, the next one asks."""
    idp.tokens["good"] = {}
    hold = asyncio.Event()
    idp.will(hold, RESET)
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    tasks = [asyncio.ensure_future(world.get(access, "good")) for _ in range(5)]
    await idp.asked(1)
    hold.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [error.kind for error in errors] == [Cannot.UNAVAILABLE] * 5
    assert len(world.memory) == 0
    assert isinstance(await world.get(access, "good"), ActiveToken)
    assert stats.introspections.values == {("idp", "unavailable"): 1, ("idp", "active"): 1}
    assert tokens.problems() == {}


@pytest.mark.parametrize("answer", [says(b"", 401), says(b"", 500), says(b"?"), says({"active": 1})])
async def test_no_failure_is_remembered(idp, world, answer):
    """N17, T39, I3, I5: not as inactive, not at all; and it is named for readiness."""
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    for _ in range(2):
        idp.will(answer)
        await failure(world.get(access, "t"))
    assert len(idp.questions) == 2
    assert len(world.memory) == 0
    assert list(tokens.problems()) == ["idp"]


async def test_remembered_tokens_while_the_server_hangs(idp, world):
    """T4, I1: a hit needs nobody; unknown tokens are told in time."""
    idp.tokens["good"] = {}
    patient = access_to(provider_at(idp))
    access = access_to(replace(patient.provider, timeout=0.1, concurrency=2))
    tokens = world.of(patient.provider)
    await world.get(patient, "good")
    tokens.swap({"idp": access.provider})
    for _ in range(20):
        idp.will(asyncio.Event())
    cold = [asyncio.ensure_future(world.get(access, f"cold {n}")) for n in range(20)]
    await idp.asked(3)
    assert peek(tokens, access, bearer("good")) is not None
    errors = await asyncio.gather(*cold, return_exceptions=True)
    assert {error.kind for error in errors} == {Cannot.TIMEOUT}


# --- a server out of reach --------------------------------------------------------------------------------------


async def test_a_known_token_goes_on_while_the_server_is_out_of_reach(idp, world, clock, stats):
    """I9: for `ttl_resurrect` past its freshness, then no longer."""
    idp.tokens["good"] = {}
    access = access_to(provider_at(idp, ttl_resurrect=60.0))
    tokens = world.of(access.provider)
    known = await world.get(access, "good")
    idp.drop()
    clock.pass_(359)
    assert await world.get(access, "good") is known
    assert stats.cache_hits.values["memory", "stale"] == 1
    assert tokens.problems() != {}
    clock.pass_(1)
    assert (await failure(world.get(access, "good"))).kind is Cannot.UNAVAILABLE
    await idp.start()
    assert await world.get(access, "good") is not known


async def test_a_known_token_goes_on_while_the_server_hangs(idp, world, clock):
    """I1, I9: a timeout is out of reach as well."""
    idp.tokens["good"] = {}
    patient = access_to(provider_at(idp, ttl_resurrect=60.0))
    access = access_to(replace(patient.provider, timeout=0.1))
    world.of(patient.provider)
    known = await world.get(patient, "good")
    world.tokens.swap({"idp": access.provider})
    clock.pass_(300)
    idp.will(asyncio.Event())
    assert await world.get(access, "good") is known


async def test_during_an_outage_nobody_waits_for_the_deadline(idp, world, clock):
    """I1, I9: after the first failure a known token goes on at once, and is asked about in the background."""
    idp.tokens.update({"one": {}, "two": {}})
    access = access_to(provider_at(idp, ttl_resurrect=60.0))
    tokens = world.of(access.provider)
    one, two = await world.get(access, "one"), await world.get(access, "two")
    clock.pass_(300)
    hold = asyncio.Event()
    idp.will(RESET)
    idp.will(RESET)  # a kept connection is tried once more
    idp.will(hold, idp.truth)
    assert await world.get(access, "one") is one
    assert await world.get(access, "two") is two  # its question is held; it was not waited for
    del idp.tokens["two"]
    await idp.asked(5)
    hold.set()
    await asyncio.gather(*tokens._flights._tasks)
    assert peek(tokens, access, bearer("two")) is INACTIVE


async def test_not_past_exp(idp, world, clock):
    """I9, N19: being out of reach extends no token's life."""
    idp.tokens["good"] = {"exp": NOW + 310}
    access = access_to(provider_at(idp, ttl_resurrect=1000.0))
    world.of(access.provider)
    await world.get(access, "good")
    idp.drop()
    clock.pass_(309)
    assert isinstance(await world.get(access, "good"), ActiveToken)
    clock.pass_(1)
    assert (await failure(world.get(access, "good"))).kind is Cannot.UNAVAILABLE


async def test_not_after_an_authoritative_no(idp, world, clock):
    """I9, I12: an inactive answer ends it, also when that answer is stale itself."""
    idp.tokens["good"] = {}
    access = access_to(provider_at(idp, ttl_resurrect=10_000.0))
    world.of(access.provider)
    await world.get(access, "good")
    del idp.tokens["good"]
    clock.pass_(300)
    assert await world.get(access, "good") is INACTIVE
    idp.drop()
    clock.pass_(100)
    assert (await failure(world.get(access, "good"))).kind is Cannot.UNAVAILABLE


@pytest.mark.parametrize("answer", [says(b"", 401), says(b"nonsense"), says({"active": "true"})])
async def test_not_when_the_server_answers_something_else(idp, world, clock, answer):
    """N16, N17: refusing us or talking nonsense is not being out of reach."""
    idp.tokens["good"] = {}
    access = access_to(provider_at(idp, ttl_resurrect=60.0))
    world.of(access.provider)
    await world.get(access, "good")
    clock.pass_(300)
    idp.will(answer)
    await failure(world.get(access, "good"))


async def test_not_unless_it_is_configured(idp, world, clock):
    """I9: off by default, and never for an unknown token or a route that remembers nothing."""
    idp.tokens["good"] = {}
    off = access_to(provider_at(idp))
    on = access_to(replace(off.provider, ttl_resurrect=60.0, digest_key=b"e" * 64, name="on"))
    never = access_to(on.provider, ttl=0.0, ttl_max=0.0)
    world.of(off.provider, on.provider)
    await world.get(off, "good")
    await world.get(on, "good")
    idp.drop()
    clock.pass_(300)
    await failure(world.get(off, "good"))
    await failure(world.get(on, "unknown"))
    await failure(world.get(never, "good"))
    assert isinstance(await world.get(on, "good"), ActiveToken)


# --- revoking ---------------------------------------------------------------------------------------------------


async def test_a_revoked_token_stays_refused_without_a_question(idp, world, clock, stats):
    """T24: at once, after the TTL, and until its `exp`, though the server still calls it active."""
    idp.tokens["good"] = {"exp": NOW + 5000}
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    await world.get(access, "good")
    assert tokens.revoke(token="good") == 1
    for _ in range(20):
        assert peek(tokens, access, bearer("good")) is INACTIVE
        assert await tokens.resolve(access, bearer("good")) is INACTIVE
        clock.pass_(249)
    assert len(idp.questions) == 1
    assert stats.revocations.values == {("token",): 1}
    assert stats.cache_hits.values["memory", "revoked"] == 20


async def test_revoking_an_unknown_token_answers_the_same(idp, world):
    """T13: known or not, the answer is 1, and it is refused from then on."""
    idp.tokens["good"] = {}
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    assert tokens.revoke(token="good") == 1
    assert await world.get(access, "good") is INACTIVE
    assert idp.questions == []


@pytest.mark.parametrize(
    "what", [{"token": "good"}, {"sub": "alex"}, {"sid": "s1"}, {"client_id": "app"}, {"all": True}]
)
async def test_revoked_while_the_question_is_under_way(idp, world, what):
    """I12, T24: the answer that was on its way does not bring it back, for anybody who waits."""
    idp.tokens["good"] = {"sub": "alex", "sid": "s1", "client_id": "app", "iat": NOW - 5}
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    tasks = [asyncio.ensure_future(world.get(access, "good")) for _ in range(3)]
    await idp.asked(1)
    tokens.revoke(**what)
    hold.set()
    assert await asyncio.gather(*tasks) == [INACTIVE] * 3
    assert world.memory.active == 0
    assert await world.get(access, "good") is INACTIVE


async def test_revoking_by_claim(idp, world, clock, stats):
    """T24: every token of the user issued until now; the next login is welcome."""
    provider = provider_at(idp)
    access = access_to(provider)
    tokens = world.of(provider)
    for name, sub in [("a1", "alex"), ("a2", "alex"), ("s1", "sam")]:
        idp.tokens[name] = {"sub": sub, "iat": NOW - 5}
        await world.get(access, name)
    assert tokens.revoke(sub="alex") == 2
    assert isinstance(peek(tokens, access, bearer("s1")), ActiveToken)
    for _ in range(2):
        assert await world.get(access, "a1") is INACTIVE
        clock.pass_(600)
    idp.tokens["a3"] = {"sub": "alex", "iat": NOW + 5}
    assert isinstance(await world.get(access, "a3"), ActiveToken)
    assert stats.revocations.values == {("sub",): 1}


async def test_revoking_a_session_of_a_moment_ago(idp, world):
    """T24: what was issued since is remembered on; so is what names another session."""
    idp.tokens |= {
        "nameless": {"sub": "alex", "iat": NOW - 30},
        "since": {"sub": "alex", "iat": NOW - 29},
        "named": {"sub": "alex", "iat": NOW - 30, "sid": "s2"},
    }
    provider = provider_at(idp)
    tokens = world.of(provider)
    access = access_to(provider)
    for value in idp.tokens:
        await world.get(access, value)
    assert tokens.revoke(sub_without_sid="alex", at=NOW - 30) == 1
    assert tokens.revoke(sid="s2", at=NOW - 31) == 0
    assert [await world.get(access, value) is INACTIVE for value in idp.tokens] == [True, False, False]
    assert world.stats.revocations.values == {("sub_without_sid",): 1, ("sid",): 1}


async def test_revoking_everything(idp, world, clock):
    """T24: all that is remembered is dropped and counted."""
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    for name in "abc":
        idp.tokens[name] = {"iat": NOW - 5}
        await world.get(access, name)
    assert tokens.revoke(all=True) == 3
    assert world.memory.active == 0
    assert await world.get(access, "a") is INACTIVE


async def test_a_revoked_token_is_not_resurrected(idp, world, clock):
    """I9, I12: no way leads back."""
    idp.tokens["good"] = {"sub": "alex", "iat": NOW - 5}
    access = access_to(provider_at(idp, ttl_resurrect=10_000.0))
    tokens = world.of(access.provider)
    await world.get(access, "good")
    tokens.revoke(sub="alex")
    idp.drop()
    await failure(world.get(access, "good"))


@pytest.mark.parametrize("what", [{}, {"token": "a", "sub": "b"}, {"sub": "a", "all": True}])
async def test_a_revocation_of_nothing_or_of_two_things(idp, world, what):
    """T13: a mistake of the caller changes nothing."""
    tokens = world.of(provider_at(idp))
    with pytest.raises(ValueError, match="exactly one"):
        tokens.revoke(**what)
    assert len(world.revocations) == 0


async def test_no_room_for_another_revocation(idp, world, clock):
    """T24: it is not said to be taken, and nothing is dropped."""
    idp.tokens["good"] = {"sub": "alex"}
    world.revocations = Revocations(clock, max_entries=1)
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    await world.get(access, "good")
    tokens.revoke(token="other")
    for what in ({"token": "good"}, {"sub": "alex"}):
        with pytest.raises(RevocationsFullError):
            tokens.revoke(**what)
    assert isinstance(peek(tokens, access, bearer("good")), ActiveToken)


# --- floods -----------------------------------------------------------------------------------------------------


async def test_random_tokens_by_the_thousand(idp, world, clock):
    """T25, I11: memory flat, good ones stay, questions capped; refreshing a good one is not held back."""
    idp.tokens["good"] = {}
    world.memory = MemoryTier(100, 10)
    access = access_to(provider_at(idp, inactive_rate=20.0))
    tokens = world.of(access.provider)
    await world.get(access, "good")
    outcomes = await asyncio.gather(*(world.get(access, f"random {n}") for n in range(2000)), return_exceptions=True)
    refused = [each for each in outcomes if each is not INACTIVE]
    assert {error.kind for error in refused} == {Cannot.OVERLOADED}
    assert len(idp.questions) <= 1 + 20 + access.provider.concurrency
    assert (world.memory.active, world.memory.inactive) == (1, 10)
    assert isinstance(peek(tokens, access, bearer("good")), ActiveToken)
    key = token_key(access.provider, "good")
    world.memory.put(key, world.memory.get(key)._replace(fetched_at=clock.monotonic() - 1000))
    assert isinstance(await world.get(access, "good"), ActiveToken)


# --- a new configuration ----------------------------------------------------------------------------------------


async def test_a_reload_that_changes_nothing_keeps_the_connections(idp, world):
    """I4: an unchanged provider does not notice."""
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    await world.get(access, "a")
    tokens.swap({"idp": provider_at(idp)})
    await world.get(access, "b")
    assert len(idp.connections) == 1


async def test_a_reload_with_the_rotated_secret(idp, world):
    """I4: recovers without a restart; what was remembered under the old one is not used."""
    idp.credentials = ("gateway", "new secret")
    idp.tokens["good"] = {}
    old = access_to(provider_at(idp))
    tokens = world.of(old.provider)
    assert (await failure(world.get(old, "good"))).kind is Cannot.REJECTED
    new = access_to(provider_at(idp, client_secret="new secret", digest_key=b"n" * 64))
    tokens.swap({"idp": new.provider})
    assert isinstance(await world.get(new, "good"), ActiveToken)
    await idp.until(idp.connections[0].ended.is_set)
    assert list(tokens.status()["identity_providers"]) == ["idp"]


async def test_a_request_of_the_old_configuration_is_still_answered(idp, world):
    """I4: it was admitted under a snapshot that names the old provider; its connection is not kept."""
    idp.tokens["good"] = {}
    old = access_to(provider_at(idp))
    tokens = world.of(old.provider)
    tokens.swap({"idp": provider_at(idp, timeout=7.0)})
    assert isinstance(await world.get(old, "good"), ActiveToken)
    await idp.until(idp.connections[0].ended.is_set)


async def test_a_reload_while_a_question_is_under_way(idp, world):
    """I4: the answer still arrives, then its connection is closed."""
    idp.tokens["good"] = {}
    hold = asyncio.Event()
    idp.will(hold, idp.truth)
    old = access_to(provider_at(idp))
    tokens = world.of(old.provider)
    asking = asyncio.ensure_future(world.get(old, "good"))
    await idp.asked(1)
    tokens.swap({})
    await turns()
    hold.set()
    assert isinstance(await asking, ActiveToken)
    await idp.until(idp.connections[0].ended.is_set)


async def test_a_token_revoked_between_two_reloads(idp, world):
    """T24: it stays revoked under the old configuration's keys and under the new one's."""
    idp.tokens["good"] = {}
    old, new = access_to(provider_at(idp)), access_to(provider_at(idp, digest_key=b"n" * 64))
    tokens = world.of(old.provider)
    await world.get(old, "good")
    tokens.swap({"idp": new.provider})
    tokens.revoke(token="good")
    tokens.swap({"idp": old.provider})
    assert await world.get(old, "good") is INACTIVE
    assert await world.get(new, "good") is INACTIVE


async def test_very_many_reloads(idp, world):
    """T24: the keys of old configurations are bounded; past the bound, memory starts anew."""
    idp.tokens["good"] = {}
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    await world.get(access, "good")
    for number in range(100):
        tokens.swap({"idp": provider_at(idp, digest_key=bytes([number]) * 64)})
    assert len(tokens.revoking._known) <= 65
    assert len(world.memory) == 0


# --- status and stopping ----------------------------------------------------------------------------------------


async def test_first_contact_asks_about_no_token(world):
    """T20: who is not there yet, by name, and why; nobody's count of introspections moves."""
    async with Idp() as there, Idp() as discovered, Idp() as gone:
        one = provider_at(there, name="there")
        two = provider_at(
            discovered, name="discovered", digest_key=b"2" * 64, introspection_endpoint=None, issuer=discovered.issuer
        )
        three = provider_at(gone, name="gone", digest_key=b"3" * 64)
        await gone.stop()
        tokens = world.of(one, two, three)
        assert {name: problem and problem.kind for name, problem in (await tokens.meet()).items()} == {
            "there": None,
            "discovered": None,
            "gone": Cannot.UNAVAILABLE,
        }
        assert list(tokens.problems()) == ["gone"]
        assert there.questions == discovered.questions == []
        await tokens.close()


async def test_the_status(idp, world):
    """N26: sizes and health; no token, no secret, no peer's text."""
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    await world.get(access, "bad")
    tokens.revoke(sub="alex")
    assert tokens.status() == {
        "memory": {"active": 0, "inactive": 1},
        "flights": 0,
        "revocations": 1,
        "identity_providers": {
            "idp": {
                "reachable": True,
                "problem": None,
                "held_off": False,
                "discovered": False,
                "under_way": 0,
                "waiting": 0,
            }
        },
    }


async def test_stopping_while_requests_wait(idp, world):
    """T30: they get an error at once; every connection is closed."""
    idp.will(asyncio.Event())
    access = access_to(provider_at(idp))
    tokens = world.of(access.provider)
    asking = asyncio.ensure_future(world.get(access, "t"))
    await idp.asked(1)
    await tokens.close()
    assert (await failure(asking)).kind is Cannot.UNAVAILABLE
    assert (await failure(tokens.resolve(access, bearer("t")))).kind is Cannot.UNAVAILABLE


async def test_marks_reach_another_worker(idp, clock, stats):
    """T24: a token that one worker revoked is refused by the next one, where it was remembered."""
    idp.tokens["good"] = {"sub": "alex", "exp": NOW + 100}
    idp.tokens["more"] = {"sub": "bob", "iat": NOW}
    access = access_to(provider_at(idp))
    worlds = World(clock, stats), World(clock, stats)
    one, two = (world.of(access.provider, fingerprint_key=b"shared") for world in worlds)
    for value in ("good", "more"):
        assert isinstance(await two.resolve(access, bearer(value)), ActiveToken)
    one.revoke(token="good")
    one.revoke(sub="bob")
    two.take(one.marks())
    assert peek(two, access, bearer("good")) is INACTIVE
    assert await two.resolve(access, bearer("good")) is INACTIVE
    assert await worlds[1].get(access, "more") is INACTIVE
    for each in (one, two):
        await each.close()
