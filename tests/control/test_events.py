"""Back-channel logout and security events over real sockets, on both listeners that take them."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlencode

import pytest
from aiohttp.test_utils import TestClient, TestServer

from fastgate.clock import SystemClock
from fastgate.control import events
from fastgate.control.admin import admin_application
from fastgate.control.events import MAX_BODY, events_application
from fastgate.errors import FastgateError
from fastgate.model import IdentityProvider, Notifier
from fastgate.stats import Stats
from fastgate.tokens.notifications import Notifications
from fastgate.tokens.seen import SeenHere
from tests.support.idp import Idp, says
from tests.support.signer import Signer, mac, sign

SIGNER = Signer("ES256", "k1")
LOGOUT = "/identity-providers/idp/logout"
EVENTS = "/identity-providers/idp/events"
AUDIENCE = frozenset({"gateway"})
AGREED = {"Authorization": "Bearer agreed-on"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SET = {"Content-Type": "application/secevent+jwt"}


class Clock(SystemClock):
    """The machine's, but for a pause that nobody has to wait for."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Gateway:
    """The smallest thing that takes notices."""

    admin_token = "op-token"

    def __init__(self, idp: Idp) -> None:
        self.stats = Stats()
        self.idp = idp
        self.revoked: list[dict[str, object]] = []
        self.broken: Exception | None = None
        self.provider = IdentityProvider(
            name="idp",
            issuer=idp.issuer,
            introspection_endpoint=None,
            client_id="gateway",
            client_secret="s",
            timeout=20.0,
            logouts=Notifier(idp.issuer, AUDIENCE),
            security_events=Notifier(
                idp.issuer, AUDIENCE, None, frozenset({idp.issuer}), authorization=AGREED["Authorization"]
            ),
        )
        quiet = IdentityProvider("quiet", idp.issuer, None, "gateway", "s")
        self.clock = Clock()
        self.notifications = Notifications(
            {"idp": self.provider, "quiet": quiet},
            clock=self.clock,
            stats=self.stats,
            seen=SeenHere(self.clock.monotonic),
            revoke=self._revoke,
        )

    async def _revoke(self, **what: object) -> int:
        if self.broken is not None:
            raise self.broken
        self.revoked.append({name: value for name, value in what.items() if name != "at"})
        return 1

    @property
    def counts(self) -> dict[tuple[str, ...], int]:
        """By kind and outcome."""
        return {labels[1:]: value for labels, value in self.stats.notices.values.items()}

    def logout(self, **claims: object) -> str:
        return SIGNER.logout(self.idp.issuer, **{"sub": "alex", "sid": "s1", **claims})

    def event(self, name: str = "session-revoked", **claims: object) -> str:
        session = {"format": "complex", "session": {"format": "opaque", "id": "s1"}}
        return SIGNER.event(self.idp.issuer, name, **{"sub_id": session, **claims})


@pytest.fixture
async def idp() -> AsyncIterator[Idp]:
    async with Idp() as started:
        started.keys = [SIGNER.public]
        yield started


@pytest.fixture
async def gateway(idp: Idp) -> AsyncIterator[Gateway]:
    made = Gateway(idp)
    yield made
    await made.notifications.close()


@pytest.fixture(params=["admin", "events"])
async def client(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncIterator[TestClient]:
    make = admin_application if request.param == "admin" else events_application
    async with TestClient(TestServer(make(gateway))) as started:
        yield started


async def post_logout(client: TestClient, token: str, **more: str):
    return await client.post(LOGOUT, data=urlencode({"logout_token": token, **more}), headers=FORM)


async def post_event(client: TestClient, token: str):
    return await client.post(EVENTS, data=token, headers=AGREED | SET)


# --- back-channel logout ------------------------------------------------------------------------------------------


async def test_a_logout(client, gateway):
    """OpenID Connect Back-Channel Logout 1.0 section 2.8: 200, not to be stored. No admin token is needed."""
    answer = await post_logout(client, gateway.logout(), something="else")
    assert (answer.status, await answer.read()) == (200, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Connection"] == "close"
    assert gateway.revoked == [{"sid": "s1"}, {"sub_without_sid": "alex"}]
    assert gateway.counts == {("logout", "accepted"): 1}


async def test_a_forged_logout(client, gateway):
    """400, nothing is revoked, and it is counted."""
    stranger = Signer("ES256", "stranger")
    tokens = [
        stranger.logout(gateway.idp.issuer, sub="alex"),
        stranger.logout(gateway.idp.issuer, sub="alex", header={"kid": "k1"}),
        sign(None, b"{}", alg="none"),
        mac(SIGNER, b"{}"),
    ]
    for token in tokens:
        answer = await post_logout(client, token)
        assert answer.status == 400
        assert (await answer.json())["error"] == "invalid_request"
        assert answer.headers["Cache-Control"] == "no-store"
    assert gateway.revoked == []
    assert gateway.counts == {("logout", "forged"): len(tokens)}


async def test_a_replayed_logout(client, gateway):
    """400, nothing more is revoked, and it is counted."""
    token = gateway.logout()
    assert (await post_logout(client, token)).status == 200
    before = list(gateway.revoked)
    answer = await post_logout(client, token)
    assert answer.status == 400
    assert "already" in (await answer.json())["error_description"]
    assert gateway.revoked == before
    assert gateway.counts == {("logout", "accepted"): 1, ("logout", "replayed"): 1}


@pytest.mark.parametrize(
    "claims", [{"aud": "other"}, {"iss": "https://evil.test"}, {"exp": 1}, {"nonce": "n"}, {"events": {}}, {"jti": ...}]
)
async def test_a_genuine_token_that_is_no_logout_for_us(client, gateway, claims):
    """Section 2.6: 400."""
    answer = await post_logout(client, gateway.logout(**claims))
    assert answer.status == 400
    assert gateway.revoked == []


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", FORM),
        (b"token=x", FORM),
        (b"logout_token=", FORM),
        (b"logout_token=a.b.c&logout_token=a.b.c", FORM),
        (b"logout_token=\xff", FORM),
        (b"logout_token=" + b"a" * MAX_BODY, FORM),
        (b'{"logout_token": "a.b.c"}', {"Content-Type": "application/json"}),
        (b"logout_token=a.b.c", {"Content-Type": "text/plain"}),
    ],
)
async def test_a_body_without_one_logout_token(client, gateway, body, headers):
    """400, counted; nobody is asked for keys."""
    answer = await client.post(LOGOUT, data=body, headers=headers)
    assert answer.status == 400
    assert (await answer.json())["error"] == "invalid_request"
    assert gateway.counts == {("logout", "malformed"): 1}
    assert gateway.idp.key_requests == 0


async def test_a_body_that_does_not_end(client, gateway, monkeypatch):
    """T4: whoever stalls is answered."""
    monkeypatch.setattr(events, "BODY_SECONDS", 0.1)

    async def stalls():
        yield b"logout_token="
        await asyncio.sleep(60)

    async with asyncio.timeout(20):
        answer = await client.post(LOGOUT, data=stalls(), headers=FORM)
    assert answer.status == 400
    assert gateway.counts == {("logout", "malformed"): 1}


async def test_the_keys_cannot_be_had(client, gateway):
    """503 with a time to come again, and then it is taken: nothing is lost, nothing is believed."""
    gateway.idp.will_serve_keys(says(b"", 503, ("Retry-After", "1")))
    token = gateway.logout()
    answer = await post_logout(client, token)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert gateway.revoked == []
    assert gateway.counts == {("logout", "unverifiable"): 1}
    gateway.clock.ahead = 1.0
    assert (await post_logout(client, token)).status == 200
    assert gateway.revoked


async def test_no_room_for_another_revocation(client, gateway):
    """503: what cannot be noted is not acknowledged; it is taken when it comes again."""
    gateway.broken = FastgateError("too many revocations")
    token = gateway.logout()
    answer = await post_logout(client, token)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    gateway.broken = None
    assert (await post_logout(client, token)).status == 200


async def test_a_fault_of_ours(client, gateway):
    """T12: 500, and the exception's text does not go out."""
    gateway.broken = RuntimeError("secret-of-the-gateway")
    answer = await post_logout(client, gateway.logout())
    assert answer.status == 500
    assert "secret" not in await answer.text()


# --- security events ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "outcome", "revoked"),
    [
        ("session-revoked", "session_revoked", "accepted", [{"sid": "s1"}]),
        ("credential-change", "credential_change", "accepted", [{"sid": "s1"}]),
        ("verification", "verification", "acknowledged", []),
        ("stream-updated", "stream_updated", "acknowledged", []),
        ("https://example.test/unknown", "security_event", "acknowledged", []),
    ],
)
async def test_a_security_event(client, gateway, name, kind, outcome, revoked):
    """RFC 8935 section 2.2: 202 with an empty body."""
    answer = await post_event(client, gateway.event(name))
    assert (answer.status, await answer.read()) == (202, b"")
    assert gateway.revoked == revoked
    assert gateway.counts == {(kind, outcome): 1}


async def test_a_security_event_that_came_before(client, gateway):
    """RFC 8935 section 2: answered as if it had not, but nothing is done again, and it is counted."""
    token = gateway.event()
    assert [(await post_event(client, token)).status for _ in range(3)] == [202] * 3
    assert gateway.revoked == [{"sid": "s1"}]
    assert gateway.counts == {("session_revoked", "accepted"): 1, ("security_event", "replayed"): 2}


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"iss": "https://evil.test"}, "invalid_issuer"),
        ({"aud": "other"}, "invalid_audience"),
        ({"header": {"kid": "unknown"}}, "invalid_key"),
        ({"header": {"typ": "JWT"}}, "invalid_request"),
        ({"iat": 1}, "invalid_request"),
        ({"sub": "alex"}, "invalid_request"),
        ({"events": {}}, "invalid_request"),
        ({"sub_id": {"format": "email", "email": "secret@example.test"}}, "invalid_request"),
    ],
)
async def test_a_security_event_that_is_refused(client, gateway, claims, error):
    """RFC 8935 sections 2.3 and 2.4: 400 with a code and a sentence that repeats nothing."""
    answer = await post_event(client, gateway.event(**claims))
    assert (answer.status, answer.headers["Content-Language"]) == (400, "en")
    said = await answer.json()
    assert said["err"] == error
    assert said["description"]
    assert "secret" not in said["description"]
    assert gateway.revoked == []


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer wrong")],
        [("Authorization", "bearer agreed-on")],
        [("Authorization", "")],
        [("Authorization", "Bearer op-token")],
        [("Authorization", "Bearer agreed-on"), ("Authorization", "Bearer agreed-on")],
        [("Authorization", "Bearer agréed-on")],
    ],
)
async def test_without_the_authorization_that_was_agreed_on(client, gateway, headers):
    """RFC 8935 section 2.4: 400 authentication_failed, whatever the body; counted."""
    answer = await client.post(EVENTS, data=gateway.event(), headers=[*headers, *SET.items()])
    assert answer.status == 400
    assert (await answer.json())["err"] == "authentication_failed"
    assert gateway.revoked == []
    assert gateway.counts == {("security_event", "unauthorized"): 1}


async def test_where_no_authorization_was_agreed_on(idp, gateway):
    """The signature alone counts; what is sent besides is not looked at."""
    gateway.notifications.swap({"idp": replace(gateway.provider, security_events=Notifier(idp.issuer, AUDIENCE))})
    async with TestClient(TestServer(events_application(gateway))) as client:
        for headers in (SET, SET | {"Authorization": "Basic eDp5"}):
            assert (await client.post(EVENTS, data=gateway.event(), headers=headers)).status == 202


@pytest.mark.parametrize("type_", ["application/jwt", "application/x-www-form-urlencoded", "text/plain"])
async def test_a_security_event_of_another_type(client, gateway, type_):
    """RFC 8935 section 2.1: application/secevent+jwt."""
    answer = await client.post(EVENTS, data=gateway.event(), headers=AGREED | {"Content-Type": type_})
    assert (answer.status, (await answer.json())["err"]) == (400, "invalid_request")
    assert gateway.counts == {("security_event", "malformed"): 1}


async def test_a_logout_token_is_no_security_event(client, gateway):
    """And the other way round: each has its own address."""
    assert (await post_event(client, gateway.logout())).status == 400
    assert (await post_logout(client, gateway.event())).status == 400
    assert gateway.revoked == []


async def test_the_keys_of_events_cannot_be_had(client, gateway):
    """503: the transmitter keeps it and comes again."""
    gateway.idp.will_serve_keys(says(b"", 500))
    answer = await post_event(client, gateway.event())
    assert answer.status == 503
    assert answer.headers["Retry-After"].isdigit()


# --- who is there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["quiet/logout", "quiet/events", "nobody/logout", "idp/other", "idp%2Flogout", "idp"])
async def test_who_does_not_send_anything(client, gateway, path):
    """Nothing is there for providers that are not configured to; nothing is counted under their names."""
    answer = await client.post(f"/identity-providers/{path}", data=b"logout_token=x", headers=FORM)
    assert answer.status in {401, 404}
    assert gateway.counts == {}


@pytest.mark.parametrize("path", [LOGOUT, EVENTS])
async def test_a_wrong_method(client, path):
    """Notices are posted."""
    assert (await client.get(path)).status in {401, 405}


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/status", "/tokens/revoke", "/config/reload"])
async def test_nothing_else_is_served_to_identity_providers(gateway, path):
    """T13: the listener of its own has no operator's requests."""
    async with TestClient(TestServer(events_application(gateway))) as client:
        for method in ("GET", "POST"):
            assert (await client.request(method, path, json={"all": True})).status == 404


@pytest.mark.parametrize("path", ["/tokens/revoke", "/identity-providers/../tokens/revoke", "/config/reload"])
async def test_the_admin_token_is_still_needed_for_the_rest(gateway, path):
    """T13: what needs no token is these two paths and health."""
    async with TestClient(TestServer(admin_application(gateway))) as client:
        url = client.make_url("/").with_path(path, encoded=True)
        assert (await client.session.post(url, json={"all": True})).status == 401


async def test_a_browser(gateway):
    """T13: on the admin listener a page may not even forward what it found."""
    async with TestClient(TestServer(admin_application(gateway))) as client:
        form = urlencode({"logout_token": gateway.logout()})
        answer = await client.post(LOGOUT, data=form, headers=FORM | {"Origin": "http://evil.example"})
    assert answer.status == 403
    assert gateway.revoked == []
