"""The issuer's metadata over real sockets (OpenID Connect Discovery 4, RFC 8414)."""

import asyncio

import pytest
import structlog

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE, ClientAuth
from tests.support.idp import Idp, flood, says
from tests.tokens.parts import provider_at, turns

OIDC = "/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server"


def discovering(idp, **changes):
    """Describe the provider by its issuer alone."""
    return provider_at(idp, issuer=idp.issuer, introspection_endpoint=None, **changes)


async def failure(introspector):
    with pytest.raises(IntrospectionError) as caught:
        await introspector.introspect("t")
    return caught.value


async def settled(introspector):
    """Wait for the load of metadata that is under way in the background, if there is one."""
    await asyncio.gather(*introspector._discovery._learned._flights._tasks)


async def test_the_endpoint_is_learned_once(idp, introspector_of):
    """N29, T20: discovery is on demand and remembered."""
    introspector = introspector_of(discovering(idp))
    assert introspector.status()["discovered"] is False
    for number in range(3):
        assert await introspector.introspect(str(number)) is INACTIVE
    assert idp.discoveries == [OIDC]
    assert introspector.status()["discovered"] is True


async def test_an_explicit_endpoint_needs_no_discovery(idp, introspector_of):
    """N29: an issuer beside an endpoint is for comparing `iss` only."""
    await introspector_of(provider_at(idp, issuer=idp.issuer)).introspect("t")
    assert idp.discoveries == []


async def test_fifty_questions_wait_for_one_discovery(idp, introspector_of):
    """T28, I10: discovery is a flight, too."""
    hold = asyncio.Event()
    idp.will_discover(hold, idp._describe)
    introspector = introspector_of(discovering(idp))
    tasks = [asyncio.ensure_future(introspector.introspect(str(n))) for n in range(50)]
    await idp.until(lambda: bool(idp.discoveries))
    await turns(20)
    hold.set()
    assert await asyncio.gather(*tasks) == [INACTIVE] * 50
    assert idp.discoveries == [OIDC]


async def test_an_issuer_with_a_path_and_the_oauth_place(introspector_of):
    """N29: RFC 8414 section 3.1 puts its well-known part in front of the issuer's path."""
    async with Idp(issuer_path="/realms/a") as idp:
        introspector = introspector_of(discovering(idp))
        idp.will_discover(says(b"", 404))
        idp.will_discover(says({"issuer": idp.issuer, "introspection_endpoint": idp.endpoint}))
        assert await introspector.introspect("t") is INACTIVE
        assert idp.discoveries == ["/realms/a" + OIDC, OAUTH + "/realms/a"]


@pytest.mark.parametrize("difference", ["/", "x", " "])
async def test_metadata_of_another_issuer(idp, introspector_of, difference):
    """N29, T8: the issuer is compared code point by code point; nothing of such a document is used."""
    idp.metadata = {"issuer": idp.issuer + difference}
    assert (await failure(introspector_of(discovering(idp)))).kind is Cannot.MALFORMED
    assert idp.questions == []


@pytest.mark.parametrize(
    "endpoint",
    ["http://idp.test/introspect", None, 5, "", "/introspect", "https://user:pass@idp.test/", "file:///etc/passwd"],
)
async def test_metadata_with_an_endpoint_to_keep_away_from(idp, introspector_of, endpoint):
    """N15, N29, T8: no credentials go to a plaintext or meaningless address, whoever says so."""
    idp.metadata = {"introspection_endpoint": endpoint}
    assert (await failure(introspector_of(discovering(idp)))).kind is Cannot.MALFORMED
    assert idp.questions == []


async def test_an_issuer_in_plaintext(idp, introspector_of, monkeypatch):
    """N15: metadata decide where our secret goes; they are not read over plaintext beyond loopback."""

    async def lookup(*_args, **_kwargs):
        raise AssertionError("nobody may be looked for")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
    provider = provider_at(idp, issuer="http://idp.test", introspection_endpoint=None)
    assert "allow_http" in (await failure(introspector_of(provider))).detail


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ((says(b"<html>"),), Cannot.MALFORMED),
        ((says([1]),), Cannot.MALFORMED),
        ((flood,), Cannot.MALFORMED),
        ((says(b"", 500),), Cannot.UNAVAILABLE),
        ((says(b"", 401),), Cannot.UNAVAILABLE),
        ((says(b"", 302, ("Location", "http://127.0.0.1:1/")),), Cannot.UNAVAILABLE),
    ],
)
async def test_discovery_fails(idp, introspector_of, clock, steps, kind):
    """T20, N15: closed while it fails, not asked again for a second, then learned without a restart."""
    idp.will_discover(*steps)
    idp.will_discover(says(b"", 404))
    introspector = introspector_of(discovering(idp))
    first = await failure(introspector)
    assert first.kind is kind
    assert first.detail.startswith("discovery: ")
    again = await failure(introspector)
    assert (again.kind, again.retry_after) == (kind, 1.0)
    assert len(idp.discoveries) == 2
    assert idp.questions == []
    clock.pass_(1)
    assert await introspector.introspect("t") is INACTIVE


async def test_discovery_hangs(idp, introspector_of, clock):
    """T4, T20: its time is part of the question's, and it has a deadline of its own."""
    idp.will_discover(asyncio.Event())
    introspector = introspector_of(discovering(idp, timeout=0.1))
    assert (await failure(introspector)).kind is Cannot.TIMEOUT
    await asyncio.wait_for(idp.connections[0].reader.read(), 10)
    clock.pass_(1)
    idp.will_discover(asyncio.Event())
    assert (await failure(introspector)).kind is Cannot.TIMEOUT
    assert len(idp.discoveries) == 2


async def test_the_server_is_down_at_first(introspector_of, clock):
    """T20, I9: starting without it works; it is found when it has come."""
    idp = Idp()
    await idp.start()
    idp.drop()
    introspector = introspector_of(discovering(idp))
    with pytest.raises(IntrospectionError):
        await introspector.probe()
    assert introspector.reachable is False
    await idp.start()
    clock.pass_(1)
    await introspector.probe()
    assert introspector.reachable is True
    await introspector.close()
    await idp.stop()


async def test_the_server_asks_discovery_for_a_pause(idp, introspector_of, clock):
    """I3: Retry-After holds for discovery, within bounds."""
    for _ in range(2):
        idp.will_discover(says(b"", 503, ("Retry-After", "9")))
    introspector = introspector_of(discovering(idp))
    await failure(introspector)
    clock.pass_(8)
    assert (await failure(introspector)).retry_after == 1.0
    assert len(idp.discoveries) == 2


async def test_metadata_are_refreshed_in_the_background(idp, introspector_of, clock):
    """N29: after an hour; nobody waits for it, and the new endpoint is used once it is there."""
    introspector = introspector_of(discovering(idp))
    await introspector.introspect("a")
    clock.pass_(3600)
    hold = asyncio.Event()
    idp.metadata = {"introspection_endpoint": idp.url + "/elsewhere"}
    idp.will_discover(hold, idp._describe)
    assert await introspector.introspect("b") is INACTIVE
    await idp.until(lambda: len(idp.discoveries) == 2)
    hold.set()
    await settled(introspector)
    await introspector.introspect("c")
    assert [question.request.target for question in idp.questions] == ["/introspect"] * 2 + ["/elsewhere"]


async def test_a_failed_refresh_changes_nothing(idp, introspector_of, clock):
    """T20: what was learned is used until something newer was learned."""
    introspector = introspector_of(discovering(idp))
    await introspector.introspect("a")
    idp.metadata = None
    clock.pass_(3600)
    for number in range(3):
        assert await introspector.introspect(str(number)) is INACTIVE
        await settled(introspector)
    assert len(idp.discoveries) == 3  # both places once, not once per question
    clock.pass_(60)
    assert await introspector.introspect("z") is INACTIVE
    await settled(introspector)
    assert len(idp.discoveries) == 5


async def test_the_endpoint_moves(idp, introspector_of, clock):
    """I9, N29: a failing endpoint makes us look again, not more than twice a minute."""
    introspector = introspector_of(discovering(idp))
    await introspector.introspect("a")
    idp.metadata = {"introspection_endpoint": idp.url + "/new"}
    clock.pass_(30)
    for _ in range(2):
        idp.will(says(b"", 404))
        await failure(introspector)
    await settled(introspector)
    await introspector.introspect("b")
    assert idp.questions[-1].request.target == "/new"
    assert idp.discoveries == [OIDC, OIDC]


async def test_only_the_other_way_to_send_the_secret_is_offered(idp, introspector_of):
    """N14, N29: `introspection_endpoint_auth_methods_supported` is honoured, once with a warning."""
    idp.credentials = ("gateway", "s3cret-of-ours")
    idp.metadata = {"introspection_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_post"]}
    introspector = introspector_of(discovering(idp))
    with structlog.testing.capture_logs() as logs:
        for token in "ab":
            assert await introspector.introspect(token) is INACTIVE
    assert [question.request.one("authorization") for question in idp.questions] == [None, None]
    assert [(line["event"], line["used"]) for line in logs] == [("identity_provider_auth_method", "client_secret_post")]


@pytest.mark.parametrize(
    ("configured", "offered"),
    [
        (ClientAuth.POST, ["client_secret_basic", "client_secret_post"]),
        (ClientAuth.POST, None),
        (ClientAuth.BASIC, ["private_key_jwt"]),
    ],
)
async def test_the_configured_way_is_kept(idp, introspector_of, configured, offered):
    """N14, N29: what is configured holds where it is offered, or where nothing better is."""
    idp.credentials = ("gateway", "s3cret-of-ours")
    idp.metadata = {} if offered is None else {"introspection_endpoint_auth_methods_supported": offered}
    assert await introspector_of(discovering(idp, client_auth=configured)).introspect("t") is INACTIVE
    basic = idp.questions[0].request.one("authorization") is not None
    assert basic is (configured is ClientAuth.BASIC)


async def test_neither_issuer_nor_endpoint(idp, introspector_of):
    """T8: there is nowhere to ask; the token's own `iss` is never an address."""
    introspector = introspector_of(provider_at(idp, introspection_endpoint=None))
    assert (await failure(introspector)).kind is Cannot.UNAVAILABLE
    assert idp.connections == []
