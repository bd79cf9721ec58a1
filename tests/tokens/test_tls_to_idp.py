"""TLS towards the identity provider, with real certificates."""

import asyncio
import ssl

import pytest
import trustme
import uvloop

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE
from fastgate.stats import Stats
from fastgate.tokens.introspector import Introspector
from tests.support.idp import Idp, says
from tests.support.upstream import RESET
from tests.tokens.parts import FakeClock, provider_at


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(str(path))
    return made, str(path)


def serving(authority, *names):
    """Make a server's context with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert(*names).configure_cert(context)
    return context


async def failure(introspector):
    with pytest.raises(IntrospectionError) as caught:
        await introspector.introspect("t")
    return caught.value


async def test_the_configured_authority_and_the_right_name(authority, introspector_of):
    """N15, T21: verified against `ca_file`; also the reused connection and the retry on a new one."""
    async with Idp(tls=serving(authority, "127.0.0.1")) as idp:
        introspector = introspector_of(provider_at(idp, ca_file=authority[1]))
        assert await introspector.introspect("a") is INACTIVE
        assert await introspector.introspect("b") is INACTIVE
        assert len(idp.connections) == 1
        idp.will(RESET)
        assert await introspector.introspect("c") is INACTIVE


async def test_discovery_is_verified_as_well(authority, introspector_of):
    """N15, T21: metadata from an unverified server are no metadata."""
    async with Idp(tls=serving(authority, "127.0.0.1")) as idp:
        for ca_file, ok in [(authority[1], True), (None, False)]:
            provider = provider_at(idp, issuer=idp.issuer, introspection_endpoint=None, ca_file=ca_file)
            introspector = introspector_of(provider)
            if ok:
                assert await introspector.introspect("t") is INACTIVE
            else:
                error = await failure(introspector)
                assert (error.kind, error.detail) == (
                    Cannot.UNAVAILABLE,
                    "discovery: its certificate was refused",
                )


async def test_an_untrusted_authority(authority, introspector_of):
    """N15, T21, I6: refused by default; nothing of the question is sent."""
    async with Idp(tls=serving(authority, "127.0.0.1")) as idp:
        error = await failure(introspector_of(provider_at(idp)))
        assert (error.kind, error.detail) == (Cannot.UNAVAILABLE, "its certificate was refused")
        assert idp.questions == []


async def test_a_certificate_for_another_name(authority, introspector_of):
    """N15, T21, I6: the host name is verified too."""
    async with Idp(tls=serving(authority, "idp.test")) as idp:
        error = await failure(introspector_of(provider_at(idp, ca_file=authority[1])))
        assert (error.kind, error.detail) == (Cannot.UNAVAILABLE, "its certificate was refused")
        assert idp.questions == []


async def test_verification_is_switched_off(authority, introspector_of):
    """N15: only where it was asked for."""
    async with Idp(tls=serving(authority, "idp.test")) as idp:
        assert await introspector_of(provider_at(idp, ssl_verify=False)).introspect("t") is INACTIVE


async def test_an_old_protocol_version(authority, introspector_of):
    """N15, I6: TLS 1.2 is the least."""
    context = serving(authority, "127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with Idp(tls=context) as idp:
        error = await failure(introspector_of(provider_at(idp, ca_file=authority[1])))
        assert error.kind is Cannot.UNAVAILABLE
        assert idp.questions == []


async def test_plaintext_where_tls_is_expected(introspector_of):
    """N15, I6: no fallback; the server sees a ClientHello and nothing else."""
    seen = []

    async def plain(reader, writer):
        seen.append(await reader.read(1))
        writer.write(says(b"", 400))
        seen.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        endpoint = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/introspect"
        error = await failure(introspector_of(provider_at(Idp(), introspection_endpoint=endpoint)))
        assert (error.kind, error.detail) == (Cannot.UNAVAILABLE, "the TLS handshake failed")
        assert seen[0] == b"\x16"
        assert b"introspect" not in b"".join(seen)


async def test_the_handshake_stalls(introspector_of):
    """T4, I6: the deadline covers it."""
    accepted = asyncio.Event()
    ended = asyncio.Event()

    async def hold(reader, writer):
        accepted.set()
        await reader.read()
        ended.set()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        endpoint = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/introspect"
        provider = provider_at(Idp(), introspection_endpoint=endpoint, timeout=0.1)
        assert (await failure(introspector_of(provider))).kind is Cannot.TIMEOUT
        await asyncio.wait_for(accepted.wait(), 10)
        await asyncio.wait_for(ended.wait(), 10)


def test_the_same_on_uvloop(authority):
    """N15, T4, I2, I8: the loop of production maps every failure alike."""

    async def scene():
        stats = Stats()
        async with Idp(tls=serving(authority, "127.0.0.1")) as idp:
            good = Introspector(provider_at(idp, ca_file=authority[1]), FakeClock(), stats)
            assert await good.introspect("a") is INACTIVE
            idp.will(RESET)
            assert await good.introspect("b") is INACTIVE
            untrusted = Introspector(provider_at(idp), FakeClock(), stats)
            assert (await failure(untrusted)).detail == "its certificate was refused"
            idp.will(asyncio.Event())
            hurried = Introspector(provider_at(idp, ssl_verify=False, timeout=0.2), FakeClock(), stats)
            assert (await failure(hurried)).kind is Cannot.TIMEOUT
            idp.drop()
            assert (await failure(good)).kind is Cannot.UNAVAILABLE
            for each in (good, untrusted, hurried):
                await each.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())
