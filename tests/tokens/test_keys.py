"""Key sets over real sockets (RFC 7517), asked for, refreshed and kept."""

import asyncio

import pytest

from fastgate.errors import Cannot, IntrospectionError
from fastgate.policy.signed import MAX_KEY_SET
from fastgate.tokens.keys import UNKNOWN_KEY_SECONDS, Keys
from tests.support.idp import flood, says
from tests.support.signer import Signer
from tests.tokens.parts import provider_at, turns

FIRST, SECOND = Signer("ES256", "k1"), Signer("ES256", "k2")


@pytest.fixture
def idp(idp):
    idp.keys = [FIRST.public]
    return idp


@pytest.fixture
async def keys_of(idp, clock):
    """Make key sets that are closed at the end."""
    made = []

    def make(jwks_uri=None, **changes):
        provider = provider_at(idp, **{"issuer": idp.issuer, "introspection_endpoint": None, **changes})
        made.append(Keys(provider, jwks_uri, clock))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def failure(awaitable):
    with pytest.raises(IntrospectionError) as caught:
        await awaitable
    return caught.value


async def settled(keys):
    """Wait for what is loaded in the background, if there is something."""
    await asyncio.gather(*keys._learned._flights._tasks)


async def test_keys_are_found_through_the_metadata_once(idp, keys_of):
    """RFC 8414 section 2: on demand, and remembered."""
    keys = keys_of()
    assert (keys.count, keys.problem) == (0, None)
    assert await keys.current() == await keys.current() == (FIRST.public,)
    assert (len(idp.discoveries), idp.key_requests) == (1, 1)
    assert (keys.count, keys.problem) == (1, None)


async def test_a_configured_address_needs_no_metadata(idp, keys_of):
    """The configuration knows better."""
    assert await keys_of(idp.jwks_uri).current() == (FIRST.public,)
    assert (len(idp.discoveries), idp.key_requests) == (0, 1)


async def test_metadata_without_an_introspection_endpoint(idp, keys_of):
    """Keys do not depend on what only introspection needs, and what is configured."""
    idp.metadata = {"introspection_endpoint": None}
    assert await keys_of(introspection_endpoint=idp.endpoint).current() == (FIRST.public,)


@pytest.mark.parametrize("uri", [None, 5, "/keys", "ftp://idp.test/", "http://idp.test/keys", "https://u:p@idp.test/"])
async def test_metadata_that_lead_to_no_keys(idp, keys_of, uri):
    """N15: neither nowhere nor over plain http beyond this machine: whoever changed them on the way could sign."""
    idp.metadata = {"jwks_uri": uri}
    assert (await failure(keys_of().current())).kind is Cannot.MALFORMED
    assert idp.key_requests == 0


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ((says(b"", 500),), Cannot.UNAVAILABLE),
        ((says(b"", 404),), Cannot.UNAVAILABLE),
        ((says(b"", 302, ("Location", "http://127.0.0.1:1/")),), Cannot.UNAVAILABLE),
        ((says(b"<html>"),), Cannot.MALFORMED),
        ((says({"keys": []}),), Cannot.MALFORMED),
        ((says(b'{"keys": [' + b" " * MAX_KEY_SET + b"]}"),), Cannot.MALFORMED),
        ((flood,), Cannot.MALFORMED),
        ((asyncio.Event(),), Cannot.TIMEOUT),
    ],
)
async def test_keys_that_cannot_be_had(idp, keys_of, clock, steps, kind):
    """T4: bounded in size and time, not asked for again for a second, then found without a restart."""
    idp.will_serve_keys(*steps)
    keys = keys_of(timeout=0.3 if kind is Cannot.TIMEOUT else 20.0)
    first = await failure(keys.current())
    assert first.kind is kind
    assert first.detail.startswith("keys: ")
    assert keys.problem == first.detail
    assert (await failure(keys.current())).retry_after == 1.0
    assert idp.key_requests == 1
    clock.pass_(1)
    assert await keys.current() == (FIRST.public,)
    assert keys.problem is None


async def test_many_wait_for_one_load(idp, keys_of):
    """T28: loading keys is a flight, too."""
    hold = asyncio.Event()
    idp.will_serve_keys(hold, idp._show_keys)
    keys = keys_of()
    tasks = [asyncio.ensure_future(keys.current()) for _ in range(20)]
    await idp.until(lambda: idp.key_requests == 1)
    await turns(10)
    hold.set()
    assert await asyncio.gather(*tasks) == [(FIRST.public,)] * 20
    assert idp.key_requests == 1


async def test_a_key_that_is_not_there_yet(idp, keys_of, clock):
    """Rotation: asked for at once, but not again and again, however many invented names come."""
    keys = keys_of()
    await keys.current()
    clock.pass_(UNKNOWN_KEY_SECONDS)
    idp.keys = [FIRST.public, SECOND.public]
    assert await keys.newer() == (FIRST.public, SECOND.public)
    assert [await keys.newer() for _ in range(50)] == [None] * 50
    assert idp.key_requests == 2
    clock.pass_(UNKNOWN_KEY_SECONDS)
    assert await keys.newer() == (FIRST.public, SECOND.public)


async def test_two_miss_the_same_key(idp, keys_of, clock):
    """The second waits for what the first one started; it is not told that there is no such key."""
    keys = keys_of()
    await keys.current()
    clock.pass_(UNKNOWN_KEY_SECONDS)
    hold = asyncio.Event()
    idp.keys = [SECOND.public]
    idp.will_serve_keys(hold, idp._show_keys)
    first = asyncio.ensure_future(keys.newer())
    await idp.until(lambda: idp.key_requests == 2)
    second = asyncio.ensure_future(keys.newer())
    await turns()
    hold.set()
    assert await first == await second == (SECOND.public,)


async def test_a_key_is_missed_while_the_server_is_down(idp, keys_of, clock):
    """The keys that are known go on; whether there is another one cannot be known, and is not denied."""
    keys = keys_of()
    await keys.current()
    clock.pass_(UNKNOWN_KEY_SECONDS)
    idp.will_serve_keys(says(b"", 503, ("Retry-After", "7")))
    assert (await failure(keys.newer())).kind is Cannot.UNAVAILABLE
    assert (await failure(keys.newer())).retry_after == 7.0
    assert await keys.current() == (FIRST.public,)
    assert "503" in keys.problem
    clock.pass_(7)
    assert await keys.newer() == (FIRST.public,)
    assert idp.key_requests == 3


async def test_keys_are_refreshed_in_the_background(idp, keys_of, clock):
    """After an hour; nobody waits for it, a failure changes nothing, and a key that was withdrawn goes."""
    keys = keys_of()
    await keys.current()
    idp.will_serve_keys(says(b"", 500))
    clock.pass_(3600)
    assert await keys.current() == (FIRST.public,)
    await settled(keys)
    idp.keys = [SECOND.public]
    clock.pass_(60)
    assert await keys.current() == (FIRST.public,)
    await settled(keys)
    assert await keys.current() == (SECOND.public,)


async def test_the_keys_move(idp, keys_of, clock):
    """Where they are is looked up anew when they are not there any more."""
    keys = keys_of()
    await keys.current()
    idp.metadata = {"jwks_uri": idp.jwks_uri + "?new"}
    idp.will_serve_keys(says(b"", 404))
    clock.pass_(40)
    await failure(keys.newer())
    clock.pass_(40)
    await keys.newer()
    await asyncio.gather(*keys._discovery._learned._flights._tasks)
    assert len(idp.discoveries) == 2
