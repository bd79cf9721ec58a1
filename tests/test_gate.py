"""The one decision: real routes, real tokens, an identity provider on a socket, and no server in between."""

import asyncio

import pytest

from fastgate.dataplane.head import parse_request_head
from fastgate.gate import Gate, Pending
from fastgate.model import (
    AccessPolicy,
    DenialReason,
    Extraction,
    Forward,
    Limits,
    Reply,
    Requirement,
    TokenSource,
)
from fastgate.stats import Stats
from fastgate.tokens.memory import MemoryTier
from fastgate.tokens.resolver import Tokens
from fastgate.tokens.revocation import Revocations
from tests.support.idp import Idp, says
from tests.support.plane import access, provider, route, service, snapshot
from tests.support.upstream import RESET

NOW = 1_700_000_000
EVERYWHERE = Extraction(frozenset(TokenSource))
FORM = "Content-Type: application/x-www-form-urlencoded"


class Clock:
    """Stands still until told otherwise."""

    def __init__(self):
        self.seconds = 0.0

    def now(self):
        return NOW + self.seconds

    def monotonic(self):
        return 1000.0 + self.seconds


class Door:
    """A gate and what stands behind it."""

    def __init__(self, idp):
        self.idp = idp
        self.clock = Clock()
        self.stats = Stats()
        self.provider = provider(idp.endpoint, timeout=20.0)
        self.needs = access(self.provider)
        self.to = service(9)
        self.routes = (
            route("/public", self.to, None),
            route("/api", self.to, self.needs),
            route("/form", self.to, access(self.provider, extraction=EVERYWHERE)),
            route("/write", self.to, access(self.provider, policy=AccessPolicy(requirements=(WRITE,)))),
        )
        self.snapshot = snapshot(self.routes)
        self.tokens = Tokens(
            MemoryTier(100, 100), self.snapshot.providers, self.clock, self.stats, Revocations(self.clock)
        )
        self.gate = Gate(self.snapshot, self.tokens, self.clock)

    def admit(self, target, *lines, token=None, method="GET"):
        return self.gate.admit(request(target, *lines, token=token, method=method))

    async def outcome(self, target, *lines, token=None, method="GET", form=None):
        """Do what the data plane does with a request."""
        decision = self.admit(target, *lines, token=token, method=method)
        if isinstance(decision, Pending):
            decision = await decision.settle(form if decision.wants_form else None)
        return decision


WRITE = Requirement(DenialReason.SCOPE, ("scope",), (frozenset({"write"}),))


def request(target, *lines, token=None, method="GET"):
    """Parse a request head as the data plane does."""
    bearer = [] if token is None else [f"Authorization: Bearer {token}"]
    text = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: gateway.test", *bearer, *lines, "", ""])
    return parse_request_head(text.encode("latin-1"), limits=Limits(), scheme="http", peer="192.0.2.1", port=80)


@pytest.fixture
async def idp():
    async with Idp() as started:
        started.tokens["good"] = {"sub": "alex", "scope": "read", "exp": NOW + 3600}
        yield started


@pytest.fixture
async def door(idp):
    made = Door(idp)
    yield made
    await made.tokens.close()


def challenge(reply):
    return dict(reply.fields).get(b"WWW-Authenticate", b"").decode()


# --- steps 3 to 5: what needs no identity provider --------------------------------------------------------------


@pytest.mark.parametrize(("target", "status"), [("/nowhere", 404), ("/api/%2e%2e/public", 400)])
async def test_no_route(door, target, status):
    """N72: a path without a route, or with two, is answered at once."""
    decision = door.admit(target, token="good")
    assert isinstance(decision, Reply)
    assert decision.status == status
    assert door.idp.questions == []


async def test_a_public_route(door):
    """A public route forwards without a permit and asks nobody, whatever the request carries."""
    for lines in ((), ("Authorization: Bearer bad",), ("Authorization: Bearer a", "Authorization: Bearer b")):
        decision = door.admit("/public/x", *lines)
        assert isinstance(decision, Forward)
        assert (decision.route.name, decision.permit) == ("/public", None)
        assert decision.forwarding is door.snapshot.settings.forwarding
    assert door.idp.questions == []


@pytest.mark.parametrize(
    ("lines", "status", "error"),
    [
        ((), 401, ""),
        (("Authorization: Basic Zm9vOmJhcg==",), 401, ""),
        (("Authorization: Bearer",), 400, "invalid_request"),
        (("Authorization: Bearer a b",), 400, "invalid_request"),
        (("Authorization: Bearer a", "Authorization: Bearer b"), 400, "invalid_request"),
    ],
)
async def test_credentials_that_need_no_question(door, lines, status, error):
    """N2, N3, N7, N10, T31, T35: refused at once, with the challenge of its class; nobody is asked."""
    decision = door.admit("/api", *lines)
    assert isinstance(decision, Reply)
    assert (decision.status, decision.route) == (status, "/api")
    assert challenge(decision) == 'Bearer realm="test"' + (f', error="{error}"' if error else "")
    assert door.idp.questions == []


# --- steps 6 to 12: tokens -----------------------------------------------------------------------------------------


async def test_a_cold_token_is_settled_and_then_a_hit(door):
    """N24: pending, one question, forwarded with its identity; from then on decided without waiting."""
    pending = door.admit("/api", token="good")
    assert isinstance(pending, Pending)
    assert not pending.wants_form
    assert not pending.hopeless()
    told = []
    pending.glance(told.append)  # nothing is shared: there is nobody who could know it
    assert told == [None]
    settled = await pending.settle()
    assert isinstance(settled, Forward)
    hit = door.admit("/api", token="good")
    assert isinstance(hit, Forward)
    for forward in (settled, hit):
        assert forward.route.name == "/api"
        assert forward.permit is not None
        assert forward.permit.token.value == "good"
        assert forward.permit.fields == ((b"X-Auth-Subject", b"alex"),)
        assert forward.permit.state.exp == NOW + 3600
    assert [question.token for question in door.idp.questions] == ["good"]


async def test_an_inactive_token(door):
    """N9, N18: 401 invalid_token; remembered, so that the next one is refused at once."""
    settled = await door.outcome("/api", token="bad")
    again = door.admit("/api", token="bad")
    for reply in (settled, again):
        assert isinstance(reply, Reply)
        assert (reply.status, reply.reason) == (401, "inactive")
        assert challenge(reply) == 'Bearer realm="test", error="invalid_token"'
    assert len(door.idp.questions) == 1


async def test_a_scope_that_is_missing(door):
    """N9, N24, T1: remembered on one route, decided anew on another one."""
    assert isinstance(await door.outcome("/api", token="good"), Forward)
    reply = door.admit("/write", token="good")
    assert isinstance(reply, Reply)
    assert (reply.status, reply.reason) == (403, "scope")
    assert challenge(reply).startswith('Bearer realm="test", error="insufficient_scope"')
    assert len(door.idp.questions) == 1


async def test_exp_passes_while_a_token_is_remembered(door):
    """N19, T14: not a hit any more; an answer that is out of date itself is refused."""
    assert isinstance(await door.outcome("/api", token="good"), Forward)
    door.idp.tokens["good"]["exp"] = NOW + 60
    assert isinstance(door.admit("/api", token="good"), Forward)
    door.clock.seconds = 3600.0
    pending = door.admit("/api", token="good")
    assert isinstance(pending, Pending)
    reply = await pending.settle()
    assert isinstance(reply, Reply)
    assert (reply.status, reply.reason) == (401, "expired")


async def test_a_request_that_may_not_be_forwarded(door):
    """N64, T32: the token is looked at first, then what the request says about forwarding."""
    nominates = "Connection: close, X-Auth-Subject"
    assert (await door.outcome("/api", nominates, token="bad")).status == 401
    assert (await door.outcome("/api", nominates, token="good")).status == 400
    assert door.admit("/api", nominates, token="good").status == 400
    assert door.admit("/public", nominates).status == 400


async def test_the_identity_provider_is_gone(door):
    """N85, T20: 503 with Retry-After and no challenge; nothing is remembered; it comes back."""
    door.idp.drop()
    reply = await door.outcome("/api", token="good")
    assert isinstance(reply, Reply)
    assert (reply.status, reply.reason, reply.route) == (503, "unavailable", "/api")
    assert dict(reply.fields)[b"Retry-After"].isdigit()
    assert challenge(reply) == ""
    await door.idp.start()
    assert isinstance(await door.outcome("/api", token="good"), Forward)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (says({"error": "invalid_client"}, 401), "rejected"),
        (says(b"", 500), "unavailable"),
        (says({"active": "true"}), "malformed"),
        (RESET, "unavailable"),
    ],
)
async def test_the_identity_provider_does_not_tell(door, answer, reason):
    """N16, N17, T18, T39: not knowing is 503, never a pass and never the client's 401."""
    door.idp.will(answer)
    reply = await door.outcome("/api", token="good")
    assert isinstance(reply, Reply)
    assert (reply.status, reply.reason) == (503, reason)
    assert isinstance(await door.outcome("/api", token="good"), Forward)


async def test_whoever_settles_may_leave(door):
    """T29: the question goes on, and its answer is remembered."""
    told = asyncio.Event()
    door.idp.will(told, door.idp.truth)
    pending = door.admit("/api", token="good")
    assert isinstance(pending, Pending)
    first = asyncio.create_task(pending.settle())
    second = asyncio.create_task(door.outcome("/api", token="good"))
    await door.idp.asked(1)
    first.cancel()
    told.set()
    assert isinstance(await second, Forward)
    assert isinstance(door.admit("/api", token="good"), Forward)
    assert len(door.idp.questions) == 1


# --- tokens in a form ---------------------------------------------------------------------------------------------


async def test_a_token_in_a_form(door):
    """N5: the form is asked for, its token settled, and remembered like any other one."""
    for _ in range(2):
        pending = door.admit("/form", FORM, "Content-Length: 20", method="POST")
        assert isinstance(pending, Pending)
        assert pending.wants_form
        assert not pending.hopeless()
        forward = await pending.settle(b"a=1&access_token=good")
        assert isinstance(forward, Forward)
        assert forward.permit is not None
        assert forward.permit.token.source is TokenSource.BODY
    assert len(door.idp.questions) == 1


@pytest.mark.parametrize(
    ("lines", "form", "status"),
    [
        ((), b"a=1", 401),
        ((), b"", 401),
        ((), None, 401),
        ((), b"access_token=", 400),
        ((), b"access_token=good&access_token=good", 400),
        (("Authorization: Bearer good",), b"access_token=good", 400),
        (("Cookie: access_token=good",), b"access_token=good", 400),
    ],
)
async def test_a_form_that_is_refused(door, lines, form, status):
    """N3, N5: a token by two methods, twice, empty or not at all; nobody is asked."""
    pending = door.admit("/form", FORM, "Content-Length: 20", *lines, method="POST")
    assert isinstance(pending, Pending)
    reply = await pending.settle(form)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.route) == (status, "/form")
    assert door.idp.questions == []


async def test_a_token_beside_a_form_without_one(door):
    """N3: the form is read although the header has a token, because it could hold a second one."""
    pending = door.admit("/form", FORM, "Content-Length: 3", method="POST", token="good")
    assert isinstance(pending, Pending)
    assert pending.wants_form
    forward = await pending.settle(b"a=1")
    assert isinstance(forward, Forward)
    assert forward.permit is not None
    assert forward.permit.token.source is TokenSource.HEADER


async def test_a_form_and_an_identity_provider_that_is_gone(door):
    """N5, N85: the same 503 as anywhere."""
    door.idp.drop()
    reply = await door.outcome("/form", FORM, "Content-Length: 17", method="POST", form=b"access_token=good")
    assert isinstance(reply, Reply)
    assert reply.status == 503


# --- snapshots ----------------------------------------------------------------------------------------------------


async def test_a_snapshot_swapped_while_a_request_is_settled(door):
    """N24, P5: the request keeps the snapshot it was admitted under; the next one sees the new one."""
    told = asyncio.Event()
    door.idp.will(told, door.idp.truth)
    pending = door.admit("/api", token="good")
    assert isinstance(pending, Pending)
    settling = asyncio.create_task(pending.settle())
    await door.idp.asked(1)
    stricter = snapshot((route("/api", service(9), access(door.provider, policy=door.routes[3].access.policy)),))
    door.gate.swap(stricter)
    assert door.gate.snapshot is stricter
    told.set()
    forward = await settling
    assert isinstance(forward, Forward)
    assert forward.route is door.routes[1]
    assert forward.forwarding is door.snapshot.settings.forwarding
    reply = door.admit("/api", token="good")
    assert isinstance(reply, Reply)
    assert reply.status == 403
    assert door.admit("/public").status == 404


# --- the rule that must never break -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/public", "/api", "/form", "/write", "/nowhere"])
@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Authorization: Bearer good",),
        ("Authorization: Bearer bad",),
        ("Authorization: Bearer odd",),
        ("Authorization: bearer good", "Connection: authorization"),
        ("Cookie: access_token=good",),
        ("Authorization: Basic good",),
    ],
)
@pytest.mark.parametrize("up", [True, False])
async def test_nothing_protected_is_forwarded_without_a_permit(door, target, lines, up):
    """N24: a protected route is forwarded with the permit of an active token, or not at all."""
    door.idp.tokens["odd"] = {"scope": ["read", {"a": 1}], "aud": 7}
    if not up:
        door.idp.drop()
    for _ in range(2):
        decision = await door.outcome(target, *lines)
        assert isinstance(decision, Forward | Reply)
        if isinstance(decision, Forward):
            assert (decision.permit is None) == (decision.route.access is None)
            if decision.permit is not None:
                assert up
                assert decision.permit.token.value == "good"
        elif target == "/public":
            assert lines[1:], decision


# --- a head that was considered before --------------------------------------------------------------------------


async def test_a_head_that_comes_again(door):
    """N19, N24, T14: considered once, decided every time: on what is remembered, fresh, not expired, not revoked."""
    await door.outcome("/api", token="good")
    admission = door.gate.consider(request("/api", token="good"))
    first = door.gate.again(admission)
    assert isinstance(first, Forward)
    assert door.gate.again(admission) is first
    assert door.stats.cache_hits.values["memory", "active"] == 2
    door.clock.seconds += 200
    assert door.gate.again(admission) is first
    door.clock.seconds += 200
    assert door.gate.again(admission) is None
    assert door.stats.cache_misses.values["memory", "stale"] == 1


async def test_a_head_that_comes_again_with_a_revoked_token(door):
    """T24: a revocation counts at once, also one that leaves the memory as it is; others go on."""
    door.idp.tokens["more"] = {"scope": "read", "exp": NOW + 3600}
    for token in ("good", "more"):
        await door.outcome("/api", token=token)
    admissions = [door.gate.consider(request("/api", token=token)) for token in ("good", "more")]
    assert all(isinstance(door.gate.again(each), Forward) for each in admissions)
    revoked = Revocations(door.clock)
    revoked.revoke_token(door.tokens.fingerprints(admissions[0].token)[0])
    door.tokens.take(revoked.marks())
    for _ in range(2):
        refused = door.gate.again(admissions[0])
        assert isinstance(refused, Reply)
        assert refused.status == 401
        assert isinstance(door.gate.again(admissions[1]), Forward)
    assert door.stats.cache_hits.values["memory", "revoked"] == 2


@pytest.mark.parametrize(
    "value", ["Bearer good", "bearer  other", "Bearer", "Bearer a b", "Basic Zm9vOmJhcg==", "Bearer " + "a" * 8193]
)
def test_a_head_that_is_like_one_before_but_for_its_token(door, value):
    """N2, N3, N7, T31: it comes to what it would come to alone."""
    before = door.gate.consider(request("/api", token="before"))
    alone = door.gate.consider(request("/api", f"Authorization: {value}"))
    alike = door.gate.consider_like(before, value.encode())
    if isinstance(alone, Reply):
        assert alike is alone
    else:
        assert (alike.token, alike.key, alike.route, alike.access) == (
            alone.token,
            alone.key,
            alone.route,
            alone.access,
        )


async def test_a_head_that_comes_again_after_a_reload(door):
    """P5: an admission belongs to its snapshot."""
    await door.outcome("/api", token="good")
    admission = door.gate.consider(request("/api", token="good"))
    assert isinstance(door.gate.again(admission), Forward)
    door.gate.swap(snapshot(door.routes))
    assert door.gate.again(admission) is None


async def test_a_head_that_comes_again_before_its_time(door):
    """N21: a token that is not valid yet is refused until it is, then it is not."""
    door.idp.tokens["early"] = {"scope": "read", "nbf": NOW + 100, "exp": NOW + 3600}
    assert (await door.outcome("/api", token="early")).status == 401
    admission = door.gate.consider(request("/api", token="early"))
    for _ in range(2):
        assert door.gate.again(admission).status == 401
    door.clock.seconds += 101
    assert isinstance(door.gate.again(admission), Forward)
    assert isinstance(door.gate.again(admission), Forward)
