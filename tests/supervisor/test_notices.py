"""What identity providers tell of their own accord reaches every worker: the supervisor takes it, once for all."""

import os
import signal
import ssl
from urllib.parse import urlencode

import pytest
import trustme

from tests.contract.parts import config, provider
from tests.support.client import RawClient, fetch
from tests.support.process import answers, free_port
from tests.support.signer import Signer

from .parts import Fleet

SIGNER = Signer("ES256")
KIND = ("Content-Type", "application/x-www-form-urlencoded")
WHERE = "/identity-providers/idp/logout"


@pytest.fixture
def telling(idp, upstream):
    """Two workers, and an identity provider that logs people out."""
    idp.keys = [SIGNER.public]
    told = provider(idp, issuer=idp.issuer, introspection_endpoint=None, backchannel_logout=True)
    events = {"listen": f"127.0.0.1:{free_port()}"}
    return config(idp, upstream, workers=2, identity_providers={"idp": told}, events=events)


def port_of(gateway):
    return int(gateway.config["events"]["listen"].rpartition(":")[2])


async def log_out(port, token):
    return (await fetch(port, "POST", WHERE, KIND, body=urlencode({"logout_token": token}).encode())).status


async def answered(gateway):
    """Ask on many new connections; returns which answers came."""
    return {(await gateway.get("/api", token="good")).status for _ in range(12)}


async def test_a_logout(idp, telling):
    """T24: refused by all workers and by those that come later; one that came before is known, wherever it comes."""
    async with Fleet(telling) as gateway:
        assert await answered(gateway) == {200}
        token = SIGNER.logout(idp.issuer, sub="alex", sid="s1")
        assert await log_out(port_of(gateway), token) == 200
        assert await answered(gateway) == {401}
        for port in (port_of(gateway), gateway.admin_port):
            assert await log_out(port, token) == 400
        before = await gateway.pids()
        os.kill(before[1], signal.SIGKILL)
        await gateway.serving(2, without={before[1]})
        assert await answered(gateway) == {401}
        assert await gateway.metric("fastgate_notices_total", outcome="accepted") == 1
        assert await gateway.metric("fastgate_notices_total", outcome="replayed") == 2
        assert (await gateway.status())["notices"] == {"idp/logout": {"keys": 1, "problem": None}}


async def test_who_may_tell_something_changes_with_a_reload(idp, telling):
    """P5: the listener stays where it is; what is served there is what the file says now."""
    async with Fleet(telling) as gateway:
        port, changes = port_of(gateway), {"identity_providers": {"idp": provider(idp)}, "events": None}
        gateway.write(changes)
        said = await gateway.admin("POST", "/config/reload")
        assert b'"needs_restart":["events.listen"]' in said.body
        assert await log_out(port, SIGNER.logout(idp.issuer, sub="alex")) == 404
        gateway.write({name: telling[name] for name in changes})
        assert b'"needs_restart":[]' in (await gateway.admin("POST", "/config/reload")).body
        assert await log_out(port, SIGNER.logout(idp.issuer, sub="alex")) == 200
    assert not answers(port)


async def test_a_new_certificate(telling):
    """P5: the listeners of the supervisor have the new one as well, without being closed."""
    old, new = trustme.CA(), trustme.CA()
    gateway = Fleet(telling)
    both = gateway.folder / "both.pem"

    def write(ca):
        both.write_bytes(ca.issue_cert("gateway.test").private_key_and_cert_chain_pem.bytes())

    async def ask(ca):
        trusting = ssl.create_default_context()
        ca.configure_trust(trusting)
        async with await RawClient.connect(port, tls=trusting, server_hostname="gateway.test") as client:
            return (await client.request("GET", "/livez")).status

    write(old)
    port = free_port()
    secure = {"address": f"127.0.0.1:{port}", "tls": {"certificate": str(both), "key": str(both)}}
    gateway.config["events"] = {"listen": secure}
    async with gateway:
        assert await ask(old) == 404
        write(new)
        gateway.process.signal(signal.SIGHUP)
        (reloaded,) = await gateway.logged("configuration reloaded")
        assert (reloaded["needs_restart"], reloaded["renewed"]) == ([], ["certificates"])
        assert [await ask(new) for _ in range(4)] == [404] * 4
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(old)
