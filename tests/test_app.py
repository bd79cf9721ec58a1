"""One worker, in this process: how it starts, reloads, drains and fails, and what it tells operators."""

import asyncio
import json
import socket
import ssl
import threading
import time
from dataclasses import replace
from urllib.parse import urlencode

import pytest
import structlog
import trustme

from fastgate.app import App
from fastgate.dataplane import server
from fastgate.errors import ConfigError, Problem, StartError
from fastgate.model import Address
from tests.contract.parts import READER, SECRET, Served, bearer, config, provider, route, service
from tests.support.client import PATIENCE, RawClient, fetch
from tests.support.idp import Idp
from tests.support.plane import route as made_route
from tests.support.plane import service as made_service
from tests.support.plane import snapshot
from tests.support.process import answers
from tests.support.signer import Signer
from tests.support.upstream import Upstream, answer, silence


@pytest.fixture
async def idp():
    async with Idp() as started:
        started.tokens["good"] = dict(READER)
        yield started


@pytest.fixture
def usual(idp, upstream):
    return config(idp, upstream)


def taken_port(listening):
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening.getsockname()[1]


# --- start --------------------------------------------------------------------------------------------------------


async def test_start_with_the_identity_provider_down(idp, usual):
    """N29, N85, T20: public routes work, the others are 503, readiness says who is missing until it has come."""
    idp.drop()
    async with Served(usual) as gateway:
        assert (await gateway.readiness()) == (
            503,
            {"status": "unready", "reasons": ["identity provider idp has not answered yet"]},
        )
        assert (await gateway.admin("GET", "/livez")).status == 200
        assert (await gateway.get("/public")).status == 200
        assert (await gateway.get("/api", token="good")).status == 503
        assert (await gateway.status())["ready"] is False
        await idp.start()
        await gateway.ready()
        assert (await gateway.get("/api", token="good")).status == 200
        # Once met, an outage is no reason to send requests elsewhere: what is remembered goes on here.
        idp.drop()
        assert (await gateway.get("/api", token="unknown")).status == 503
        assert (await gateway.readiness())[0] == 200


@pytest.mark.parametrize("which", ["listen", "admin", "events"])
async def test_a_port_in_use_leaves_nothing_half_started(usual, which, tmp_path):
    """P6: one sentence; the listeners that were bound before it are closed again."""
    with socket.socket() as listening:
        port = taken_port(listening)
        gateway = Served(usual)
        gateway.write()
        made = gateway._load()
        taken = Address("127.0.0.1", port)
        listen, admin = made.settings.listen, made.settings.admin
        events = taken if which == "events" else None
        if which == "listen":
            listen = (*listen, taken)
        elif which == "admin":
            admin = replace(admin, address=taken)
        app = App(lambda: replace(made, settings=replace(made.settings, listen=listen, admin=admin, events=events)))
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use; stop "):
            await app.start()
        assert app._bound == []
        assert app.listeners.accepting == frozenset()
        for _, first in app.addresses:
            assert not answers(first)
        assert {task.get_name() for task in asyncio.all_tasks()} == {asyncio.current_task().get_name()}


async def test_several_listeners_with_tls_and_without(idp, usual):
    """Every listener serves; the upstream is told how a request came."""
    ca = trustme.CA()
    gateway = Served(usual)
    leaf = ca.issue_cert("gateway.test")
    (gateway.folder / "cert.pem").write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
    (gateway.folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    tls = {"certificate": "cert.pem", "key": "key.pem"}
    gateway.config["listen"] = ["127.0.0.1:8000", {"address": "127.0.0.1:8443", "tls": tls}]
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    async with gateway:
        (_, plain), (_, secure) = gateway.app.addresses
        assert (await fetch(plain, "GET", "/any", bearer("good"))).status == 200
        async with await RawClient.connect(secure, tls=trusting, server_hostname="gateway.test") as client:
            got = await client.request("GET", "/any", bearer("good"))
            assert got.status == 200
            assert '["X-Forwarded-Proto", "https"]' in got.body.decode()


async def test_without_an_admin_listener(usual):
    """`admin: false` listens nowhere."""
    gateway = Served({**usual, "admin": False})
    async with gateway:
        assert gateway.app.admin_address is None
        assert gateway.app.admin_token is None
        assert (await gateway.get("/public")).status == 200


# --- what identity providers send ---------------------------------------------------------------------------------

SIGNER = Signer("ES256")


@pytest.fixture
def telling(idp, usual):
    """The usual configuration, with an identity provider that logs people out."""
    idp.keys = [SIGNER.public]
    told = provider(idp, issuer=idp.issuer, introspection_endpoint=None, backchannel_logout=True)
    return {**usual, "identity_providers": {"idp": told}, "events": {"listen": "127.0.0.1:8002"}}


async def log_out(gateway, token, port=None):
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    where = "/identity-providers/idp/logout"
    body = urlencode({"logout_token": token}).encode()
    return await fetch(port or gateway.events_port, "POST", where, kind, body=body)


async def test_a_logout_refuses_the_sessions_tokens(idp, telling):
    """T24: at once, although the answer is remembered, and ever after, although it is asked again; both listeners."""
    idp.tokens["other"] = READER | {"sid": "s2"}
    async with Served(telling) as gateway:
        for sid, token, port in (("s1", "good", gateway.events_port), ("s2", "other", gateway.admin_port)):
            assert (await gateway.get("/api", token=token)).status == 200
            got = await log_out(gateway, SIGNER.logout(idp.issuer, sub="alex", sid=sid), port)
            assert got.status == 200, got
            for _ in range(2):
                assert (await gateway.get("/api", token=token)).status == 401
        assert await gateway.metric("fastgate_notices_total", identity_provider="idp", outcome="accepted") == 2
        assert (await gateway.status())["notices"] == {"idp/logout": {"keys": 1, "problem": None}}


async def test_a_logout_of_a_moment_ago(idp, telling):
    """T24: what was issued since is not concerned, also when it was told late."""
    now = int(time.time())
    idp.tokens |= {"before": READER | {"iat": now - 60}, "since": READER | {"iat": now - 20}}
    async with Served(telling) as gateway:
        for token in ("before", "since"):
            assert (await gateway.get("/api", token=token)).status == 200
        assert (await log_out(gateway, SIGNER.logout(idp.issuer, sub="alex", iat=now - 30))).status == 200
        assert (await gateway.get("/api", token="before")).status == 401
        assert (await gateway.get("/api", token="since")).status == 200


async def test_a_logout_beats_an_introspection_under_way(idp, telling):
    """T24: an answer that was on its way does not bring the session back."""
    told = asyncio.Event()
    async with Served(telling) as gateway:
        await gateway.ready()
        idp.will(told, idp.truth)
        pending = asyncio.create_task(gateway.get("/api", token="good"))
        await idp.asked(1)
        assert (await log_out(gateway, SIGNER.logout(idp.issuer, sub="alex", sid="s1"))).status == 200
        told.set()
        assert (await pending).status == 401


async def test_a_forged_logout_changes_nothing(idp, telling):
    """400, counted, and the session goes on."""
    async with Served(telling) as gateway:
        assert (await gateway.get("/api", token="good")).status == 200
        forged = Signer("ES256", "stranger").logout(idp.issuer, sub="alex", sid="s1")
        assert (await log_out(gateway, forged)).status == 400
        assert (await gateway.get("/api", token="good")).status == 200
        assert await gateway.metric("fastgate_notices_total", outcome="forged") == 1
        assert await gateway.metric("fastgate_revocations_total") == 0


async def test_who_may_send_something_changes_with_a_reload(idp, telling):
    """P5: the listener stays where it is; what is served there is what the file says now."""
    async with Served(telling) as gateway:
        quiet = {"identity_providers": {"idp": provider(idp)}, "events": None}
        gateway.write({**quiet, "admin": {"listen": f"127.0.0.1:{gateway.admin_port}"}})
        got = await gateway.admin("POST", "/config/reload")
        assert json.loads(got.body)["needs_restart"] == ["events.listen"]
        assert (await log_out(gateway, SIGNER.logout(idp.issuer, sub="alex"))).status == 404
        await gateway.reload(**{key: telling[key] for key in ("identity_providers", "events")})
        assert (await log_out(gateway, SIGNER.logout(idp.issuer, sub="alex"))).status == 200


# --- what operators see -----------------------------------------------------------------------------------------


async def test_the_status_page(idp, usual, upstream):
    """N26, T12: sizes, ratios and health; neither tokens nor secrets, nor anything that a peer said."""
    async with Served(usual) as gateway:
        assert (await gateway.status())["cache"]["memory"]["hit_ratio"] is None
        for token in ("good", "good", "good", "bad"):
            await gateway.get("/api?q=query", token=token)
        status = await gateway.status()
        assert status["version"]
        assert len(status["config_version"]) == 16
        assert status["ready"] is True
        assert status["workers"] == [{"connections": 0}]
        assert status["cache"] == {"memory": {"active": 1, "inactive": 1, "hit_ratio": 0.5}}
        assert status["flights"] == status["revocations"] == 0
        assert status["identity_providers"]["idp"]["reachable"] is True
        address = f"127.0.0.1:{upstream.port}"
        assert status["upstreams"]["upstream"][address] == {
            "healthy": True,
            "open_connections": 1,
            "idle_connections": 1,
        }
        text = json.dumps(status) + (await gateway.admin("GET", "/metrics")).body.decode()
        for word in ("good", "bad", SECRET, "alex", "query"):
            assert word not in text.replace("bad_request", "")
        for name, labels in (
            ("fastgate_cache_entries", {"tier": "memory", "state": "active"}),
            ("fastgate_upstream_open", {"service": "upstream"}),
        ):
            assert await gateway.metric(name, **labels) == 1


async def test_the_metrics_of_a_few_requests(idp, usual):
    """N26, T25: what was asked, remembered, refused and forwarded is counted under the configuration's names."""
    async with Served(usual) as gateway:
        for target, token in (("/api", "good"), ("/api", "good"), ("/api", "bad"), ("/api", None), ("/x", None)):
            await gateway.get(target, token=token)
        counted = {
            ("fastgate_requests_total", "route=api,status=200"): 2,
            ("fastgate_requests_total", "route=api,status=401"): 2,
            ("fastgate_requests_total", "route=,status=404"): 1,
            ("fastgate_denials_total", "route=api,reason=inactive"): 1,
            ("fastgate_denials_total", "route=api,reason=no_credentials"): 1,
            ("fastgate_introspections_total", "identity_provider=idp,outcome=active"): 1,
            ("fastgate_introspections_total", "identity_provider=idp,outcome=inactive"): 1,
            ("fastgate_introspection_seconds_count", "identity_provider=idp"): 2,
            ("fastgate_cache_hits_total", "tier=memory,state=active"): 1,
            ("fastgate_cache_misses_total", "tier=memory,reason=absent"): 2,
            ("fastgate_flights_total", "role=started"): 2,
            ("fastgate_upstream_seconds_count", "service=upstream"): 2,
            ("fastgate_upstream_connections_total", "service=upstream,how=opened"): 1,
            ("fastgate_upstream_connections_total", "service=upstream,how=reused"): 1,
            ("fastgate_connections", ""): 0,
            ("fastgate_requests_active", ""): 0,
        }
        for (name, text), value in counted.items():
            labels = dict(pair.split("=") for pair in text.split(",")) if text else {}
            assert await gateway.metric(name, **labels) == value, (name, text)


async def test_revoking_is_logged_without_the_token(usual):
    """T12, T13: by what, and how many; never which."""
    async with Served(usual) as gateway:
        assert (await gateway.get("/api", token="good")).status == 200
        with structlog.testing.capture_logs() as events:
            await gateway.revoke(token="good")
            await gateway.revoke(sub="alex")
        assert [(event["by"], event["count"]) for event in events] == [("token", 1), ("sub", 0)]
        assert "good" not in str(events)
        assert "alex" not in str(events)
        assert (await gateway.get("/api", token="good")).status == 401


# --- reload -------------------------------------------------------------------------------------------------------


async def test_a_good_reload(idp, upstream, usual):
    """P5: new routes, providers and requirements at once; what is remembered and connected stays."""
    async with Served(usual) as gateway:
        assert (await gateway.get("/api", token="good")).status == 200
        before = (await gateway.status())["config_version"]
        routes = (route("/api", {"scopes_required": ["write"]}), route("/new"))
        gateway.write({"services": [service(upstream, *routes)]})
        got = await gateway.admin("POST", "/config/reload")
        assert got.status == 200
        body = json.loads(got.body)
        assert body["config_version"] == (await gateway.status())["config_version"] != before
        assert body["needs_restart"] == []
        assert (await gateway.get("/api", token="good")).status == 403
        assert (await gateway.get("/new", token="good")).status == 200
        assert (await gateway.get("/public")).status == 404
        assert await gateway.metric("fastgate_config_reloads_total", outcome="taken") == 1
    assert len(idp.questions) == 1
    assert len(upstream.connections) == 1


async def test_a_bad_reload_changes_nothing(usual):
    """P5, T12: every problem with its place, no secret among them; the old configuration serves on."""
    async with Served(usual) as gateway:
        before = await gateway.status()
        gateway.write({"listen": "nowhere", "services": [{"name": "x y", "url": "ftp://a", "routes": []}], "typo": 1})
        got = await gateway.admin("POST", "/config/reload")
        assert (got.status, got.header("cache-control")) == (422, "no-store")
        body = json.loads(got.body)
        assert body["message"] == "nothing was changed"
        places = {problem["path"] for problem in body["problems"]}
        assert places == {"listen", "services[0].name", "services[0].url", "services[0].routes", "typo"}
        assert all(problem["line"] for problem in body["problems"])
        assert SECRET not in got.body.decode()
        gateway.file.write_text("services: [")
        assert (await gateway.admin("POST", "/config/reload")).status == 422
        gateway.file.unlink()
        assert (await gateway.admin("POST", "/config/reload")).status == 422
        assert await gateway.metric("fastgate_config_reloads_total", outcome="refused") == 3
        assert (await gateway.get("/api", token="good")).status == 200
        assert (await gateway.status())["config_version"] == before["config_version"]


async def test_a_reload_that_needs_a_restart_says_so(idp, upstream, usual):
    """P5: settings of sockets and sizes are named, the others are in force."""
    gateway = Served(usual)
    async with gateway:
        changes = {
            "limits": {"connections": 7},
            "cache": {"memory": {"max_entries": 7}},
            "log": {"access": True},
            "admin": {"listen": f"127.0.0.1:{gateway.admin_port}", "token": "adm1n"},
            "services": [service(upstream, route("/new", "none"))],
        }
        gateway.write(changes)
        got = await gateway.admin("POST", "/config/reload")
        assert json.loads(got.body)["needs_restart"] == ["limits", "cache", "log"]
        assert (await gateway.get("/new")).status == 200
        # The admin token is no setting of a socket.
        assert (await gateway.admin("GET", "/status")).status == 401


async def test_a_reload_from_plain_to_tls_says_so(usual):
    """P5: a listener keeps speaking what it spoke."""
    gateway = Served(usual)
    leaf = trustme.CA().issue_cert("gateway.test")
    (gateway.folder / "both.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    tls = {"certificate": "both.pem", "key": "both.pem"}
    async with gateway:
        for change, named in (
            ({"listen": {"address": gateway.config["listen"], "tls": tls}}, ["listen"]),
            ({"admin": False}, ["listen", "admin.listen"]),
        ):
            gateway.write(change)
            got = await gateway.admin("POST", "/config/reload")
            assert json.loads(got.body)["needs_restart"] == named
        assert (await gateway.get("/public")).status == 200


@pytest.mark.parametrize("admin", [False, {"listen": "127.0.0.2:8001"}], ids=["none", "elsewhere"])
async def test_a_reload_never_opens_the_admin_listener(usual, admin):
    """T13, P5: the one that is open keeps its token when the file has no place for it any more."""
    gateway = Served(usual)
    gateway.config["admin"]["token"] = "adm1n"
    async with gateway:
        gateway.write({"admin": admin})
        token = bearer("adm1n")
        got = await fetch(gateway.admin_port, "POST", "/config/reload", token)
        assert json.loads(got.body)["needs_restart"] == ["admin.listen"]
        assert (await gateway.admin("GET", "/status")).status == 401
        assert (await fetch(gateway.admin_port, "GET", "/status", token)).status == 200
        gateway.write({"admin": {"listen": f"127.0.0.1:{gateway.admin_port}", "token": "rotated"}})
        assert (await fetch(gateway.admin_port, "POST", "/config/reload", token)).status == 200
        assert (await fetch(gateway.admin_port, "GET", "/status", token)).status == 401
        assert (await fetch(gateway.admin_port, "GET", "/status", bearer("rotated"))).status == 200


async def test_requests_under_way_keep_their_route(idp, upstream, usual):
    """N24, P5: also through several reloads that took their route, their service and its provider away."""
    told = asyncio.Event()
    idp.will(told, idp.truth)
    upstream.will(told, answer(200, b"old"))
    async with Upstream() as other, Served(usual) as gateway:
        pending = asyncio.create_task(gateway.get("/api", token="good"))
        await idp.asked(1)
        forwarded = asyncio.create_task(gateway.get("/public"))
        await upstream.head()
        for number in range(3):
            name = f"other{number}"
            settings = {name: provider(idp, client_id=name)}
            await gateway.reload(
                services=[service(other, route("/api", "none"), name=name)], identity_providers=settings
            )
        assert (await gateway.get("/api")).status == 200
        assert len(other.requests) == 1
        told.set()
        assert ((await forwarded).status, (await pending).status) == (200, 200)
        assert [got.target for got in upstream.requests] == ["/public", "/api"]
        assert upstream.requests[1].header("authorization") == "Bearer good"
        # What they used is closed behind them.
        await upstream.until(lambda: all(each.ended.is_set() for each in upstream.connections))


async def test_reloads_under_load_lose_nothing(idp, usual):
    """P5: twenty reloads, good and bad ones, beneath clients that never stop asking."""
    async with Upstream() as one, Upstream() as two, Served(config(idp, one)) as gateway:
        stop = asyncio.Event()
        asked = 0

        async def ask(keep):
            nonlocal asked
            client = await gateway.connect()
            while not stop.is_set():
                got = await client.request("POST", "/api", bearer("good"), body=b"body")
                assert (got.status, b'"body": "body"' in got.body) == (200, True), got
                asked += 1
                if not keep:
                    await client.close()
                    client = await gateway.connect()
            await client.close()

        clients = [asyncio.create_task(ask(number % 2)) for number in range(10)]
        for number in range(20):
            seen = asked
            if number % 4 == 3:
                gateway.write({"services": []})
                assert (await gateway.admin("POST", "/config/reload")).status == 422
            else:
                await gateway.reload(services=[service((one, two)[number % 2], route("/api"), name=f"s{number % 3}")])
            async with asyncio.timeout(PATIENCE):
                while asked < seen + 20:  # noqa: ASYNC110 - the clients set the pace
                    await asyncio.sleep(0.001)
        stop.set()
        await asyncio.gather(*clients)
        assert one.requests
        assert two.requests
        assert await gateway.metric("fastgate_requests_total", status="200") == asked


async def test_two_reloads_at_once():
    """P5: one after the other: the configuration that was read last is the one in force."""
    begun, go_on = threading.Event(), threading.Event()
    files = iter("123")

    def load():
        version = next(files)
        if version == "2":
            begun.set()
            assert go_on.wait(PATIENCE)
        made = snapshot((made_route("/public", made_service(9), None),))
        return replace(made, version=version)

    app = App(load)
    await app.start()
    try:
        first = asyncio.create_task(app.reload())
        await asyncio.to_thread(begun.wait, PATIENCE)
        second = asyncio.create_task(app.reload())
        go_on.set()
        assert [(await each)["config_version"] for each in (first, second)] == ["2", "3"]
        assert app.status()["config_version"] == "3"
    finally:
        await app.drain()


async def test_a_loader_that_breaks_in_any_way():
    """P5: whatever is raised while loading, nothing changes and it is counted."""
    errors = iter([ConfigError("file", [Problem("a", "is wrong", 1)]), OSError("disk"), RecursionError()])
    made = snapshot((made_route("/public", made_service(9), None),))
    loads = 0

    def load():
        nonlocal loads
        loads += 1
        if loads > 1:
            raise next(errors)
        return made

    app = App(load)
    await app.start()
    try:
        for kind in (ConfigError, OSError, RecursionError):
            with pytest.raises(kind):
                await app.reload()
        assert app.stats.config_reloads.values == {("refused",): 3}
        assert app.status()["config_version"] == "test"
    finally:
        await app.drain()


async def test_a_new_identity_provider_does_not_unready(idp, usual):
    """T20: readiness is about the start; one that is gone from the file is not waited for any more."""
    idp.drop()
    async with Served(usual) as gateway:
        assert (await gateway.readiness())[0] == 503
        async with Idp() as other:
            other.tokens["good"] = dict(READER)
            await gateway.reload(identity_providers={"other": provider(other)})
            assert (await gateway.readiness())[0] == 200
            assert (await gateway.get("/api", token="good")).status == 200


# --- drain --------------------------------------------------------------------------------------------------------


async def test_draining_loses_nothing_that_is_under_way(idp, upstream, usual):
    """P3: what was accepted is answered with `Connection: close`; nothing new is accepted; idle clients part."""
    told = asyncio.Event()
    idp.will(told, idp.truth)
    upstream.will(told, answer(200, b"late"))
    gateway = await Served(usual).start()
    idle = await gateway.connect()
    assert (await idle.request("GET", "/nowhere")).status == 404
    pending = await gateway.connect()
    await pending.send(b"GET /api HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n")
    await idp.asked(1)
    forwarded = await gateway.connect()
    await forwarded.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
    await upstream.head()
    uploading = await gateway.connect()
    await uploading.send(b"POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
    await upstream.head(1)
    app = gateway.app
    draining = asyncio.create_task(gateway.stop())
    assert await idle.rest() == b""
    assert app.readiness() == ["draining"]
    assert (await gateway.readiness())[0] == 503
    with pytest.raises(ConnectionRefusedError):
        await gateway.connect()
    told.set()
    await uploading.send(b"dy")
    for client in (pending, forwarded, uploading):
        got = await client.answer()
        assert (got.status, got.header("connection")) == (200, "close")
        assert await client.rest() == b""
    assert await draining == 0
    assert upstream.requests[1].body == b"body"
    for client in (idle, pending, forwarded, uploading):
        await client.close()


async def test_a_request_that_arrives_as_draining_begins(upstream, usual):
    """P3: octets that were sent before the end was announced are a request, not an idle connection."""
    gateway = await Served(usual).start()
    clients = [await gateway.connect() for _ in range(20)]
    for client in clients[:10]:
        assert (await client.request("GET", "/public")).status == 200
    for client in clients:
        client.writer.write(b"GET /public/last HTTP/1.1\r\nHost: a\r\n\r\n")
    # Nothing was read or accepted since: the loop, which all of this shares, has not run.
    waiting = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(5)]
    for each in waiting:
        each.sendall(b"GET /public/first HTTP/1.1\r\nHost: a\r\n\r\n")
    draining = asyncio.create_task(gateway.stop())
    clients += [RawClient(*await asyncio.open_connection(sock=each)) for each in waiting]
    for client in clients:
        got = await client.answer()
        assert (got.status, got.header("connection")) == (200, "close")
        await client.close()
    assert await draining == 0


async def test_a_client_that_says_something_while_we_drain(usual, monkeypatch):
    """P3: a request may be on the way, from who has just connected and from who had answers before: it is answered."""
    monkeypatch.setattr(server, "_ONE_MORE", PATIENCE)
    gateway = await Served(usual).start()
    idle, fresh = [await gateway.connect() for _ in range(2)]
    assert (await idle.request("GET", "/public")).status == 200
    app = gateway.app
    draining = asyncio.create_task(gateway.stop())
    while app.listeners.accepting:  # noqa: ASYNC110 - it does not tell
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    for client in (idle, fresh):
        got = await client.request("GET", "/public")
        assert (got.status, got.header("connection")) == (200, "close")
    assert await draining == 0
    for client in (idle, fresh):
        await client.close()


async def test_a_client_that_has_connected_and_says_nothing(usual):
    """P3: it is not waited for until the end."""
    gateway = await Served(usual).start()
    async with await gateway.connect() as silent:
        await gateway.until_metric(1, "fastgate_connections")
        draining = asyncio.create_task(gateway.stop())
        assert await silent.rest() == b""
        assert await draining == 0


async def test_draining_has_an_end(idp, upstream, usual):
    """P3: who is not done by `drain_timeout` is cut, visibly, and counted."""
    upstream.will(silence)
    upstream.will(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n", silence)
    gateway = await Served({**usual, "limits": {"drain_timeout": "200ms"}}).start()
    silent, streaming = await gateway.connect(), await gateway.connect()
    await silent.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
    await upstream.head()
    await streaming.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
    await streaming.answer_head()
    assert await gateway.stop() == 2
    assert await silent.ended()
    await upstream.until(lambda: all(each.ended.is_set() for each in upstream.connections))
    for client in (silent, streaming):
        await client.close()
