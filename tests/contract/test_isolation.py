"""What happens to one request, listener or configuration is nobody else's business."""

import asyncio
import json

import pytest
import structlog

from fastgate.gate import Gate
from tests.contract.parts import READER, bearer, config, provider, route
from tests.support.client import RawClient, fetch
from tests.support.upstream import Upstream


async def test_a_storm_of_clients_that_leave(lane, idp):
    """N24, T22, T29: whoever stays gets his own answer about his own token, with his own body, and nobody else's."""
    for number in range(12):
        idp.tokens[f"t{number}"] = {"sub": f"user-{number}", "scope": "read" if number % 3 else "write"}
    settings = {"idp": provider(idp, cache_ttl_max=0, cache_ttl_neg=0)}
    auth = {"scopes_required": ["read"], "upstream_headers": [{"header": "X-Who", "path": ["sub"]}]}
    async with Upstream() as upstream:
        wanted = config(idp, upstream, route("/api", auth), identity_providers=settings)
        async with lane(wanted) as gateway:

            async def ask(number):
                body = f"body-of-{number}".encode() * (1 + number % 5 * 3000)
                client = await RawClient.connect(gateway.port)
                for count in range(12):
                    if (number + count) % 4 == 0:
                        head = f"POST /api HTTP/1.1\r\nHost: a\r\n{': '.join(bearer(f't{number}'))}\r\n"
                        await client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: count * 100])
                        if count % 3:
                            await asyncio.sleep(0)
                        client.abort()
                        client = await RawClient.connect(gateway.port)
                        continue
                    got = await client.request("POST", "/api", bearer(f"t{number}"), body=body)
                    assert got.status == (200 if number % 3 else 403)
                    if got.status == 200:
                        echoed = json.loads(got.body)
                        assert ["X-Who", f"user-{number}"] in echoed["fields"]
                        assert echoed["body"].encode() == body[:65536]
                        assert echoed["length"] == len(body)
                    elif got.header("connection") == "close":
                        await client.close()
                        client = await RawClient.connect(gateway.port)
                await client.close()

            await asyncio.gather(*map(ask, range(12)))
            async with asyncio.timeout(30):
                while await gateway.metric("fastgate_requests_active"):  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(0.01)
            assert (await gateway.status())["flights"] == 0
        for got in upstream.requests:
            assert got.header("authorization").replace("Bearer t", "user-") == got.header("x-who")
            assert int(got.header("x-who")[5:]) % 3
        upstream.broken.clear()


async def test_a_fault_of_our_own_is_500_for_one_request(lane, idp, upstream, monkeypatch):
    """N90, T12, T23: that request alone; nothing of it is told to the client, and no token to the log."""
    consider = Gate.consider

    def consider_or_break(gate, head):
        if head.path == "/public/broken":
            raise RuntimeError("a bug")
        return consider(gate, head)

    monkeypatch.setattr(Gate, "consider", consider_or_break)
    structlog.reset_defaults()  # an earlier test may have quietened the log
    with structlog.testing.capture_logs([structlog.processors.format_exc_info]) as events:
        async with lane(config(idp, upstream)) as gateway, await gateway.connect() as client:
            assert (await client.request("GET", "/public")).status == 200
            broken = await client.request("GET", "/public/broken?q=t0p-s3cret", bearer("t0p-s3cret"))
            assert (broken.status, broken.header("connection")) == (500, "close")
            assert json.loads(broken.body) == {"message": "Internal Server Error"}
            assert await client.ended()
            assert (await gateway.get("/public")).status == 200
            assert await gateway.metric("fastgate_requests_active") == 0
    (fault,) = [event for event in events if event["log_level"] == "error"]
    assert "RuntimeError: a bug" in fault["exception"]
    assert "t0p-s3cret" not in str(fault)


async def test_operators_paths_are_not_on_the_clients_listener(lane, idp, upstream):
    """N90, T13: neither listener serves what belongs to the other one."""
    async with lane(config(idp, upstream)) as gateway:
        for method, path in (
            ("GET", "/metrics"),
            ("GET", "/status"),
            ("GET", "/readyz"),
            ("POST", "/tokens/revoke"),
            ("POST", "/config/reload"),
        ):
            assert (await gateway.request(method, path, token="good")).status == 404
            other = await fetch(gateway.admin_port, "PUT" if method == "POST" else "DELETE", path)
            assert other.status == 405
        assert (await gateway.admin("GET", "/public")).status == 404
        assert (await gateway.admin("GET", "/api")).status == 404
    assert upstream.requests == []


async def test_a_secret_that_was_rotated(lane, idp, upstream):
    """N17, T39: 503 while the identity provider refuses us, nothing remembered; a reload with the new one heals."""
    idp.credentials = ("gateway", "the-new-one")
    async with lane(config(idp, upstream)) as gateway:
        for _ in range(3):
            got = await gateway.get("/api", token="good")
            assert (got.status, got.header("www-authenticate")) == (503, None)
        status = (await gateway.status())["identity_providers"]["idp"]
        assert (status["reachable"], status["problem"]) == (
            False,
            "rejected: status 401: our client credentials were refused",
        )
        assert await gateway.metric("fastgate_introspections_total", outcome="rejected") == 3
        await gateway.reload(identity_providers={"idp": provider(idp, client_secret="the-new-one")})
        assert (await gateway.get("/api", token="good")).status == 200
        assert (await gateway.get("/api", token="bad")).status == 401


@pytest.mark.parametrize("outer", ["none", {"scopes_required": ["write"]}], ids=str)
async def test_public_is_said_never_inherited_by_mistake(lane, idp, upstream, outer):
    """N24, T34: a route with requirements of its own is protected whatever its service says, and the reverse."""
    wanted = config(
        idp, upstream, route("/own", {"audience_required": ["api"]}), route("/open", "none"), route("/plain")
    )
    wanted["services"][0]["auth"] = outer
    idp.tokens["writer"] = {**READER, "scope": "write"}
    async with lane(wanted) as gateway:
        assert (await gateway.get("/own")).status == 401
        assert (await gateway.get("/own", token="writer")).status == 200
        assert (await gateway.get("/own", token="good")).status == (200 if outer == "none" else 403)
        assert (await gateway.get("/open")).status == 200
        assert (await gateway.get("/plain")).status == (200 if outer == "none" else 401)
