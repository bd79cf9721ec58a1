"""Every source of the configuration in force, through reloads."""

import asyncio

import pytest
import structlog

from fastgate.model import Notice, Notifier
from fastgate.tokens.notifications import Notifications, notifiers
from fastgate.tokens.seen import SeenHere
from tests.support.idp import says
from tests.support.signer import Signer
from tests.tokens.parts import NOW, provider_at, turns

SIGNER = Signer("ES256", "k1")


@pytest.fixture
async def notifications_of(idp, clock, stats):
    """Make what takes notices from these providers; closed at the end."""
    idp.keys = [SIGNER.public]
    made = []

    async def revoke(**_):
        return 1

    def make(*providers):
        named = {each.name: each for each in providers}
        seen = SeenHere(clock.monotonic)
        made.append(Notifications(named, clock=clock, stats=stats, seen=seen, revoke=revoke))
        return made[-1]

    yield make
    for each in made:
        await each.close()


def from_idp(idp, jwks_uri=None):
    return Notifier(idp.issuer, frozenset({"gateway"}), jwks_uri, frozenset({idp.issuer}))


def token(idp):
    return SIGNER.logout(idp.issuer, sub="alex", iat=NOW, exp=NOW + 120)


async def test_who_may_tell_what(idp, notifications_of):
    """Only who is configured to, and only that."""
    quiet = provider_at(idp, name="quiet")
    logs_out = provider_at(idp, name="logs-out", issuer=idp.issuer, logouts=from_idp(idp))
    sends_events = provider_at(idp, name="sends-events", issuer=idp.issuer, security_events=from_idp(idp))
    notifications = notifications_of(quiet, logs_out, sends_events)
    found = {
        (name, channel)
        for name in ("quiet", "logs-out", "sends-events", "nobody")
        for channel in ("logout", "events")
        if notifications.source(name, channel) is not None
    }
    assert found == {("logs-out", "logout"), ("sends-events", "events")}
    assert [channel for channel, _ in notifiers(quiet)] == []
    assert notifications.status() == {
        "logs-out/logout": {"keys": 0, "problem": None},
        "sends-events/events": {"keys": 0, "problem": None},
    }


async def test_both_ways_of_one_provider_share_its_keys(idp, notifications_of):
    """They are fetched once; another transmitter's are its own."""
    both = provider_at(idp, issuer=idp.issuer, logouts=from_idp(idp), security_events=from_idp(idp))
    await notifications_of(both).meet()
    assert idp.key_requests == 1
    apart = provider_at(idp, issuer=idp.issuer, logouts=from_idp(idp), security_events=from_idp(idp, idp.jwks_uri))
    await notifications_of(apart).meet()
    assert idp.key_requests == 3


async def test_keys_that_are_missing_at_the_start(idp, notifications_of):
    """It is said at once what will not work, and the first logout tries again."""
    idp.will_serve_keys(says(b"", 404))
    notifications = notifications_of(provider_at(idp, issuer=idp.issuer, logouts=from_idp(idp)))
    with structlog.testing.capture_logs() as logs:
        await notifications.meet()
    assert [(line["event"], line["identity_provider"]) for line in logs] == [("identity_provider_keys_missing", "idp")]
    assert notifications.status()["idp/logout"] == {"keys": 0, "problem": "keys: status 404"}


async def test_a_reload_that_changes_nothing_keeps_the_keys(idp, notifications_of):
    """And one that changes something asks again."""
    provider = provider_at(idp, issuer=idp.issuer, logouts=from_idp(idp))
    notifications = notifications_of(provider)
    await notifications.meet()
    notifications.swap({"idp": provider_at(idp, issuer=idp.issuer, logouts=from_idp(idp))})
    await notifications.meet()
    assert idp.key_requests == 1
    notifications.swap({"idp": provider_at(idp, issuer=idp.issuer, logouts=from_idp(idp, idp.jwks_uri))})
    await notifications.meet()
    assert idp.key_requests == 2
    notifications.swap({})
    assert notifications.source("idp", "logout") is None


async def test_a_logout_under_way_outlives_a_reload(idp, notifications_of):
    """What was begun with the former configuration is ended with it."""
    notifications = notifications_of(provider_at(idp, issuer=idp.issuer, logouts=from_idp(idp)))
    hold = asyncio.Event()
    idp.will_serve_keys(hold, idp._show_keys)
    taking = asyncio.ensure_future(notifications.source("idp", "logout").take(token(idp)))
    await idp.until(lambda: idp.key_requests == 1)
    notifications.swap({})
    await turns(10)
    hold.set()
    assert isinstance(await taking, Notice)


async def test_former_connections_are_closed_when_their_time_is_over(idp, notifications_of):
    """Nothing of a former configuration stays."""
    notifications = notifications_of(provider_at(idp, issuer=idp.issuer, logouts=from_idp(idp), timeout=0.05))
    await notifications.meet()
    notifications.swap({})
    async with asyncio.timeout(10):
        await asyncio.gather(*notifications._closing)
        assert await idp.connections[-1].reader.read() == b""
    await turns()
    assert not notifications._closing
