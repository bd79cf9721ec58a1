"""Where operators reach the gateway: the certificate may be renewed, the sockets stay."""

import ssl

import pytest
import trustme

from fastgate.control.admin_listener import AdminListener
from fastgate.dataplane.listening import listen_on
from fastgate.model import Address
from tests.support.client import RawClient

from .test_admin import Gateway


def context(ca):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("gateway.test").configure_cert(made)
    return made


async def test_another_certificate():
    """P5: from then on clients see it; nobody is refused, and connections that are open stay open."""
    old, new = trustme.CA(), trustme.CA()
    listener = AdminListener(Gateway())
    (sock,) = listen_on(Address("127.0.0.1", 0))

    async def connect(ca):
        trusting = ssl.create_default_context()
        ca.configure_trust(trusting)
        port = listener.address[1]
        return await RawClient.connect(port, tls=trusting, server_hostname="gateway.test")

    with sock:
        await listener.start([sock], context(old))
        async with await connect(old) as before:
            assert (await before.request("GET", "/livez")).status == 200
            await listener.serve([sock], context(new))
            async with await connect(new) as client:
                assert (await client.request("GET", "/livez")).status == 200
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(old)
            assert (await before.request("GET", "/livez")).status == 200
        await listener.close()
