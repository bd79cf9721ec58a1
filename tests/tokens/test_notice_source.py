"""From a token that an identity provider sends to what it revokes, with its keys over real sockets."""

import asyncio

import pytest
import structlog

from fastgate.errors import FastgateError, IntrospectionError
from fastgate.model import Notice, NoticeKind, Notifier, Refusal, Refused
from fastgate.tokens import notice_source
from fastgate.tokens.keys import UNKNOWN_KEY_SECONDS
from fastgate.tokens.notifications import Notifications
from fastgate.tokens.seen import SeenHere
from tests.support.idp import says
from tests.support.signer import LOGOUT, Signer, mac, sign
from tests.tokens.parts import NOW, provider_at

SIGNER, OTHER = Signer("RS256", "k1"), Signer("RS256", "k2")


class Taker:
    """A source with everything around it, and what it revoked."""

    def __init__(self, idp, clock, stats):
        self.idp = idp
        self.stats = stats
        self.revoked = []
        self.full = False
        notifier = Notifier(idp.issuer, frozenset({"gateway"}), None, frozenset({idp.issuer}))
        provider = provider_at(idp, issuer=idp.issuer, logouts=notifier, security_events=notifier)
        self.notifications = Notifications(
            {"idp": provider}, clock=clock, stats=stats, seen=SeenHere(clock.monotonic), revoke=self._revoke
        )

    async def _revoke(self, **what):
        if self.full:
            raise FastgateError("full")
        self.revoked.append(what)
        return 1

    async def logout(self, token=None, *, signer=SIGNER, **claims):
        token = self.token(signer=signer, **claims) if token is None else token
        return await self.notifications.source("idp", "logout").take(token)

    async def event(self, *args, signer=SIGNER, **claims):
        token = signer.event(self.idp.issuer, *args, **{"iat": NOW, **claims})
        return await self.notifications.source("idp", "events").take(token)

    def token(self, *, signer=SIGNER, **claims):
        return signer.logout(self.idp.issuer, **{"sub": "alex", "sid": "s1", "iat": NOW, "exp": NOW + 120, **claims})

    @property
    def counts(self):
        return self.stats.notices.values


@pytest.fixture
async def taker(idp, clock, stats):
    idp.keys = [SIGNER.public]
    made = Taker(idp, clock, stats)
    yield made
    await made.notifications.close()


def reason(said):
    assert isinstance(said, Refusal), said
    return said.reason


ENDED = [{"sid": "s1", "at": NOW}, {"sub_without_sid": "alex", "at": NOW}]


async def test_a_logout(taker):
    """The session is revoked as of the moment it ended, and counted."""
    assert isinstance(await taker.logout(), Notice)
    assert taker.revoked == ENDED
    assert taker.counts == {("idp", "logout", "accepted"): 1}


async def test_a_logout_of_a_user(taker):
    """Without a session it is every session of the user."""
    await taker.logout(sid=...)
    assert taker.revoked == [{"sub": "alex", "at": NOW}]


async def test_a_security_event(taker):
    """What it says about whom decides."""
    session = {"format": "opaque", "id": "s1"}
    await taker.event("session-revoked", {"format": "complex", "session": session})
    await taker.event("credential-change", {"format": "iss_sub", "iss": taker.idp.issuer, "sub": "alex"})
    assert taker.revoked == [{"sid": "s1", "at": NOW}, {"sub": "alex", "at": NOW}]
    assert taker.counts == {
        ("idp", "session_revoked", "accepted"): 1,
        ("idp", "credential_change", "accepted"): 1,
    }


@pytest.mark.parametrize(
    ("name", "kind"), [("verification", NoticeKind.VERIFICATION), ("stream-updated", NoticeKind.STREAM_UPDATED)]
)
async def test_events_about_the_stream(taker, name, kind):
    """SSF 1.0: acknowledged, and nothing is revoked."""
    assert (await taker.event(name, {"format": "opaque", "id": "stream"})).kind is kind
    assert taker.revoked == []
    assert taker.counts == {("idp", str(kind), "acknowledged"): 1}


def forged(taker):
    """A logout as it should be, signed in every way that does not count."""
    claims = {
        "iss": taker.idp.issuer,
        "aud": "gateway",
        "iat": NOW,
        "exp": NOW + 120,
        "jti": "j",
        "sub": "alex",
        "events": {LOGOUT: {}},
    }
    octets = str(claims).replace("'", '"').encode()
    genuine = SIGNER.sign(claims, typ="logout+jwt")
    head, _, signature = genuine.split(".")
    other = SIGNER.sign({**claims, "sub": "sam"}).split(".")[1]
    stranger = Signer("RS256", "stranger")
    return {
        "none": sign(None, octets, alg="none"),
        "none, with a name": sign(None, octets, alg="none", kid="k1"),
        "an HMAC with the public key": mac(SIGNER, octets),
        "another key": stranger.sign(claims, kid="k1"),
        "an unknown key": stranger.sign(claims),
        "a key in the header": stranger.sign(claims, kid=..., jwk=stranger.public),
        "another payload": f"{head}.{other}.{signature}",
        "no signature": f"{head}.{genuine.split('.')[1]}.",
    }


FORGERIES = (
    "none",
    "none, with a name",
    "an HMAC with the public key",
    "another key",
    "an unknown key",
    "a key in the header",
    "another payload",
    "no signature",
)


@pytest.mark.parametrize("how", FORGERIES)
async def test_a_forged_logout(taker, how):
    """Nothing is revoked, and it is counted as what it is."""
    assert reason(await taker.logout(forged(taker)[how])) is Refused.FORGED
    assert taker.revoked == []
    assert taker.counts == {("idp", "logout", "forged"): 1}


async def test_the_genuine_one_beside_the_forged_ones(taker):
    """What the forged ones are made from counts."""
    forgeries = forged(taker)
    assert tuple(forgeries) == FORGERIES
    for token in forgeries.values():
        await taker.logout(token)
    assert isinstance(await taker.logout(), Notice)
    assert taker.revoked == ENDED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"aud": "other"}, Refused.WRONG_AUDIENCE),
        ({"iss": "https://evil.test"}, Refused.WRONG_ISSUER),
        ({"exp": NOW - 61}, Refused.STALE),
        ({"iat": NOW + 61}, Refused.STALE),
        ({"nonce": "n"}, Refused.MALFORMED),
        ({"events": ...}, Refused.MALFORMED),
        ({"sub": ..., "sid": ...}, Refused.MALFORMED),
        ({"header": {"typ": "at+jwt"}}, Refused.MALFORMED),
    ],
)
async def test_a_genuine_token_that_is_no_logout_for_us(taker, change, why):
    """Signed by the right key, and yet nothing is revoked."""
    assert reason(await taker.logout(**change)) is why
    assert taker.revoked == []
    assert taker.counts == {("idp", "logout", str(why)): 1}


@pytest.mark.parametrize(
    "payload", [b"[]", b"", b"\xff", b'{"iss": 1, "iss": 2}', b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}"]
)
async def test_a_signed_payload_that_is_no_object(taker, payload):
    """Whatever the key signed: it is read as strictly as every answer."""
    token = sign(SIGNER.key, payload or b" ", alg="RS256", kid="k1", typ="logout+jwt")
    assert reason(await taker.logout(token)) is Refused.MALFORMED


async def test_a_token_that_is_none(taker):
    """Garbage is refused before anybody is asked for keys."""
    assert reason(await taker.logout("garbage")) is Refused.MALFORMED
    assert taker.idp.key_requests == 0


async def test_a_replayed_logout(taker, clock):
    """T24: a session that was started since is not ended by yesterday's logout, and it is counted."""
    token = taker.token()
    assert isinstance(await taker.logout(token), Notice)
    for _ in range(3):
        clock.pass_(50)
        assert reason(await taker.logout(token)) is Refused.REPLAYED
    assert taker.revoked == ENDED
    clock.pass_(30)
    assert reason(await taker.logout(token)) is Refused.STALE
    assert taker.counts == {
        ("idp", "logout", "accepted"): 1,
        ("idp", "logout", "replayed"): 3,
        ("idp", "logout", "stale"): 1,
    }


async def test_the_same_identifier_of_another_issuer_is_another_one(idp, clock, stats, taker):
    """RFC 7519 section 4.1.7: identifiers are unique for one issuer."""
    await taker.logout(jti="j1")
    elsewhere = Notifier("https://other.test", frozenset({"gateway"}), idp.jwks_uri, frozenset())
    taker.notifications.swap({"two": provider_at(idp, name="two", logouts=elsewhere)})
    source = taker.notifications.source("two", "logout")
    token = taker.token(iss="https://other.test", jti="j1")
    assert isinstance(await source.take(token), Notice)
    assert reason(await source.take(token)) is Refused.REPLAYED


async def test_two_at_once(taker):
    """One of them is the first."""
    token = taker.token()
    said = await asyncio.gather(*(taker.logout(token) for _ in range(10)))
    assert sum(isinstance(each, Notice) for each in said) == 1
    assert taker.revoked == ENDED


async def test_the_keys_are_rotated(taker, clock):
    """A token that names a key we do not have makes us look again."""
    await taker.logout()
    clock.pass_(UNKNOWN_KEY_SECONDS)
    taker.idp.keys = [OTHER.public]
    assert isinstance(await taker.logout(signer=OTHER), Notice)
    assert reason(await taker.logout()) is Refused.FORGED  # the old key was withdrawn
    assert taker.idp.key_requests == 2


async def test_invented_names_of_keys(taker, clock):
    """Whoever sends them makes us ask the identity provider once in a while, not once each."""
    await taker.logout()
    stranger = Signer("RS256", "stranger")
    for number in range(50):
        clock.pass_(0.1)
        token = stranger.sign({"jti": "x"}, kid=str(number))
        assert reason(await taker.logout(token)) is Refused.FORGED
    assert taker.idp.key_requests <= 3


async def test_the_keys_cannot_be_had(taker, clock):
    """Whether it is genuine cannot be known: neither taken nor called forged, and taken when it comes again."""
    taker.idp.will_serve_keys(says(b"", 500))
    token = taker.token()
    with pytest.raises(IntrospectionError):
        await taker.logout(token)
    assert taker.revoked == []
    assert taker.counts == {("idp", "logout", "unverifiable"): 1}
    clock.pass_(1)
    assert isinstance(await taker.logout(token), Notice)


async def test_the_keys_take_too_long(idp, clock, stats):
    """T4: the sender is answered within the provider's deadline."""
    notifier = Notifier(idp.issuer, frozenset({"gateway"}))
    provider = provider_at(idp, issuer=idp.issuer, logouts=notifier, timeout=0.2)
    notifications = Notifications(
        {"idp": provider}, clock=clock, stats=stats, seen=SeenHere(clock.monotonic), revoke=dict
    )
    idp.will_serve_keys(asyncio.Event())
    with pytest.raises(IntrospectionError):
        await notifications.source("idp", "logout").take(SIGNER.logout(idp.issuer))
    await notifications.close()


async def test_keys_that_are_known_while_the_server_is_down(taker, clock):
    """A logout by a known key is verified; by an unknown one it is not judged."""
    await taker.logout()
    clock.pass_(4000)
    for _ in range(2):
        taker.idp.will_serve_keys(says(b"", 500))
    fresh = {"iat": NOW + 4000, "exp": NOW + 4120}
    assert isinstance(await taker.logout(**fresh), Notice)
    with pytest.raises(IntrospectionError):
        await taker.logout(signer=OTHER, **fresh)


async def test_no_room_for_another_revocation(taker):
    """What could not be noted is not acknowledged, and taken when it comes again."""
    taker.full = True
    token = taker.token()
    with pytest.raises(FastgateError):
        await taker.logout(token)
    taker.full = False
    assert isinstance(await taker.logout(token), Notice)
    assert taker.counts == {("idp", "logout", "no_room"): 1, ("idp", "logout", "accepted"): 1}


async def test_no_room_for_many(taker, monkeypatch):
    """What we owe is bounded, too: beyond that, one that comes again counts as a replay."""
    monkeypatch.setattr(notice_source, "MAX_OWED", 1)
    taker.full = True
    first, second = taker.token(), taker.token()
    for token in (first, second):
        with pytest.raises(FastgateError):
            await taker.logout(token)
    taker.full = False
    assert isinstance(await taker.logout(first), Notice)
    assert reason(await taker.logout(second)) is Refused.REPLAYED


async def test_what_the_log_says(taker, clock):
    """T12: why, in our own words and not for each one of a flood; nothing of the token."""
    token = taker.token(sub="secret-of-alex", aud="secret-audience")
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            await taker.logout(token)
        clock.pass_(10)
        await taker.logout(token)
        await taker.logout(sub="secret-of-alex", sid="secret-session")
    assert [(line["event"], line.get("outcome"), line.get("suppressed")) for line in logs] == [
        ("notice_not_taken", "wrong_audience", 0),
        ("notice_not_taken", "wrong_audience", 4),
        ("notice_taken", None, None),
    ]
    assert logs[-1]["revoked_by"] == ["sid", "sub_without_sid"]
    assert "secret" not in str(logs)
    assert token[:20] not in str(logs)
