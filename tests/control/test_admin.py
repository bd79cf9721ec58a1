"""The admin listener over real sockets."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from fastgate.control.admin import admin_application
from fastgate.control.metrics import Processes
from fastgate.errors import ConfigError, FastgateError, Problem
from fastgate.stats import Counter, Stats

KNOWN = "known-token"


class Gateway:
    """The smallest thing that can be operated: one remembered token, a switch for each thing that can be wrong."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.admin_token: str | None = None
        self.fresh = 0
        self.reasons: list[str] = []
        self.lacking: list[str] = []
        self.revoked: list[dict[str, Any]] = []
        self.full = False
        self.broken = False
        self.problems: list[Problem] = []
        self.unreadable = False
        self.reached: bool | None = None
        self.version = "v1"

    async def refresh(self) -> None:
        self.fresh += 1

    def processes(self) -> Processes:
        return Processes((os.getpid(),))

    def missing(self) -> list[str]:
        return self.lacking

    def gauges(self) -> Iterable[Counter]:
        entries = Counter("fastgate_cache_entries", "Remembered.", "tier", kind="gauge")
        entries.add("memory", amount=7)
        return [entries]

    def readiness(self) -> list[str]:
        return self.reasons

    def status(self) -> dict[str, Any]:
        if self.broken:
            raise RuntimeError("secret-of-the-gateway")
        return {"version": "0", "config_version": self.version}

    async def revoke(self, **named: Any) -> int:
        if self.full:
            raise FastgateError("too many revocations")
        self.revoked.append(named)
        return 1 if "token" in named else 3

    async def told(self) -> bool | None:
        return self.reached

    async def reload(self) -> dict[str, Any]:
        if self.unreadable:
            raise FastgateError("fastgate.yaml cannot be read: permission denied")
        if self.problems:
            raise ConfigError("fastgate.yaml", self.problems)
        self.version = "v2"
        return {"config_version": self.version}


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
async def admin(gateway: Gateway) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(admin_application(gateway))) as client:
        yield client


async def test_alive(admin):
    """Liveness says only that the loop turns."""
    answer = await admin.get("/livez")
    assert answer.status == 200
    assert await answer.json() == {"status": "alive"}
    assert answer.headers["Cache-Control"] == "no-store"


async def test_ready(admin):
    answer = await admin.get("/readyz")
    assert (answer.status, await answer.json()) == (200, {"status": "ready"})


async def test_not_ready_says_why(admin, gateway):
    gateway.reasons = ["keycloak: discovery failed", "draining"]
    answer = await admin.get("/readyz")
    assert answer.status == 503
    assert await answer.json() == {"status": "unready", "reasons": gateway.reasons}


async def test_ready_although_something_is_missing(admin, gateway):
    """One worker that is ready is enough; the answer says what is not as it should be, as of now."""
    gateway.lacking = ["worker 2 does not answer"]
    answer = await admin.get("/readyz")
    assert answer.status == 200
    assert await answer.json() == {"status": "ready", "missing": gateway.lacking}
    assert gateway.fresh == 1


async def test_metrics_are_prometheus_text(admin, gateway):
    gateway.stats.requests.add("anything", "200")
    answer = await admin.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = await answer.text()
    assert 'fastgate_requests_total{route="anything",status="200"} 1.0' in text
    assert 'fastgate_cache_entries{tier="memory"} 7.0' in text


async def test_status(admin):
    answer = await admin.get("/status")
    assert answer.content_type == "application/json"
    assert (await answer.json())["config_version"] == "v1"


@pytest.mark.parametrize(
    "named", [{"token": KNOWN}, {"sub": "alex"}, {"sid": "1"}, {"client_id": "app"}, {"all": True}]
)
async def test_one_thing_to_revoke(admin, gateway, named):
    answer = await admin.post("/tokens/revoke", json=named)
    assert answer.status == 200
    assert await answer.json() == {"revoked": 1 if "token" in named else 3}
    assert gateway.revoked == [named]


@pytest.mark.parametrize("reached", [True, False])
async def test_a_revocation_that_others_are_told_of(admin, gateway, reached):
    """T24: the answer says whether it has reached what all workers and hosts share."""
    gateway.reached = reached
    answer = await admin.post("/tokens/revoke", json={"sub": "alex"})
    assert await answer.json() == {"revoked": 3, "shared": reached}


async def test_revoking_an_unknown_token(admin):
    """T13: the answer for a token does not say whether it was known."""
    known = await admin.post("/tokens/revoke", json={"token": KNOWN})
    unknown = await admin.post("/tokens/revoke", json={"token": "never-seen"})
    assert (known.status, await known.read()) == (unknown.status, await unknown.read())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"token=abc", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "JSON object"),
        (b'"abc"', "JSON object"),
        (b"null", "JSON object"),
        (b"{}", "exactly one"),
        (b'{"token": "s3cret", "sub": "b"}', "exactly one"),
        (b'{"token": "s3cret", "token": "b"}', "exactly one"),
        (b'{"token": ' + b"[" * 1000 + b"]" * 1000 + b', "token": "b"}', "exactly one"),
        (b'{"user": "s3cret"}', "unknown key"),
        (b'{"sub": "a", "user": "b"}', "unknown key"),
        (b'{"token": ""}', "not empty"),
        (b'{"token": 5}', "must be a string"),
        (b'{"token": null}', "must be a string"),
        (b'{"sub": ["s3cret"]}', "must be a string"),
        (b'{"token": "s3cret\\n"}', "no token has"),
        ('{"token": "s3cret\u00e9"}'.encode(), "no token has"),
        (b'{"all": false}', "must be true"),
        (b'{"all": 1}', "must be true"),
        (b'{"all": "true"}', "must be true"),
        (b'{"token": "' + b"a" * 65536 + b'"}', "larger than 65536"),
    ],
)
async def test_a_body_that_does_not_say_what_to_revoke(admin, gateway, body, said):
    """T13: nothing is revoked, the message says what is wrong and repeats nothing of the body."""
    answer = await admin.post("/tokens/revoke", data=body, headers={"Content-Type": "application/json"})
    assert answer.status == 400
    message = (await answer.json())["message"]
    assert said in message
    assert "s3cret" not in message
    assert gateway.revoked == []


@pytest.mark.parametrize("type_", ["text/plain", "application/x-www-form-urlencoded", "application/json5"])
async def test_a_body_a_web_page_could_send(admin, gateway, type_):
    """T13: a form or plain text is refused, whatever it holds: a browser sends those without asking."""
    answer = await admin.post("/tokens/revoke", data=b'{"all": true}', headers={"Content-Type": type_})
    assert answer.status == 415
    assert gateway.revoked == []


@pytest.mark.parametrize("path", ["/tokens/revoke", "/config/reload"])
async def test_a_browser(admin, gateway, path):
    """T13: what carries Origin comes from a web page, also from one whose name was rebound to our address."""
    answer = await admin.post(path, json={"all": True}, headers={"Origin": "http://evil.example:8001"})
    assert answer.status == 403
    assert gateway.revoked == []
    assert gateway.version == "v1"


async def test_no_room_for_another_revocation(admin, gateway):
    """A revocation that cannot be kept is not acknowledged."""
    gateway.full = True
    answer = await admin.post("/tokens/revoke", json={"token": KNOWN})
    assert answer.status == 503
    assert await answer.json() == {"message": "too many revocations"}


async def test_reload(admin, gateway):
    answer = await admin.post("/config/reload")
    assert (answer.status, await answer.json()) == (200, {"config_version": "v2"})


async def test_reload_of_a_bad_file(admin, gateway):
    """Every problem comes back with its place; nothing changed."""
    gateway.problems = [Problem("services[0].url", "is not a URL", 7), Problem("admin.token", "is missing")]
    answer = await admin.post("/config/reload")
    assert answer.status == 422
    assert await answer.json() == {
        "message": "nothing was changed",
        "file": "fastgate.yaml",
        "problems": [
            {"path": "services[0].url", "line": 7, "message": "is not a URL"},
            {"path": "admin.token", "line": None, "message": "is missing"},
        ],
    }
    assert gateway.version == "v1"


async def test_reload_of_a_file_that_is_gone(admin, gateway):
    gateway.unreadable = True
    answer = await admin.post("/config/reload")
    assert answer.status == 422
    assert (await answer.json())["problems"] == [{"message": "fastgate.yaml cannot be read: permission denied"}]
    assert gateway.version == "v1"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/status"),
        ("POST", "/tokens/revoke"),
        ("POST", "/config/reload"),
        ("GET", "/nothing/here"),
        ("DELETE", "/livez/x"),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer wrong")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer op-token2")],
        [("Authorization", "Basic op-token")],
        [("Authorization", "op-token")],
        [("Authorization", "Bearer op-token"), ("Authorization", "Bearer op-token")],
        [("Authorization", "Bearer op-tok\u00e9n")],
    ],
)
async def test_without_the_admin_token(admin, gateway, method, path, headers):
    """T13: nothing but health is to be had, not even whether a path exists."""
    gateway.admin_token = "op-token"
    answer = await admin.request(method, path, headers=headers)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="fastgate admin"'
    assert "op-token" not in await answer.text()
    assert gateway.version == "v1"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_with_the_admin_token(admin, gateway, scheme):
    gateway.admin_token = "op-token"
    headers = {"Authorization": f"{scheme} op-token"}
    assert (await admin.get("/status", headers=headers)).status == 200
    assert (await admin.post("/tokens/revoke", json={"all": True}, headers=headers)).status == 200


async def test_probes_without_the_admin_token(admin, gateway):
    """An orchestrator's probes carry no credentials."""
    gateway.admin_token = "op-token"
    assert (await admin.get("/livez")).status == 200
    assert (await admin.get("/readyz")).status == 200


async def test_a_new_admin_token_after_a_reload(admin, gateway):
    """The token is asked for at every request, not remembered from the start."""
    gateway.admin_token = "old"
    assert (await admin.get("/status", headers={"Authorization": "Bearer old"})).status == 200
    gateway.admin_token = "new"
    assert (await admin.get("/status", headers={"Authorization": "Bearer old"})).status == 401


async def test_an_unknown_path(admin):
    answer = await admin.get("/nope")
    assert (answer.status, await answer.json()) == (404, {"message": "Not Found"})


async def test_a_wrong_method(admin):
    answer = await admin.get("/tokens/revoke")
    assert (answer.status, await answer.json()) == (405, {"message": "Method Not Allowed"})
    assert answer.headers["Allow"] == "POST"


async def test_a_status_that_breaks(admin, gateway):
    """T12: one answer is lost, not the listener, and the exception's text does not go out."""
    gateway.broken = True
    answer = await admin.get("/status")
    assert answer.status == 500
    assert "secret-of-the-gateway" not in await answer.text()
    assert (await admin.get("/livez")).status == 200


async def test_header_octets_that_are_not_utf8(gateway):
    """A token comparison has an answer for every octet a header may hold."""
    gateway.admin_token = "op-token"
    runner = web.AppRunner(admin_application(gateway))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n")
        writer.write(b"Authorization: Bearer \xff\xfe\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
        writer.close()
        await writer.wait_closed()
    finally:
        await runner.cleanup()
