"""The process: `python -m fastgate run`, its signals, its exit status, and what it writes."""

import asyncio
import json
import signal
import socket
import sys

import pytest

from tests.contract.parts import READER, SECRET, bearer, config, provider, route, service
from tests.support.client import PATIENCE, RawClient
from tests.support.gateway import ROOT, Gateway
from tests.support.idp import Idp, says
from tests.support.process import Process, answers, free_port
from tests.support.upstream import CLOSE, Upstream, answer

FORM = ("Content-Type", "application/x-www-form-urlencoded")


@pytest.fixture
async def idp():
    async with Idp() as started:
        started.tokens["good"] = dict(READER)
        yield started


async def until(condition, what):
    """Wait until something that is seen from outside only has come about."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await condition():  # noqa: ASYNC110 - another process has no events for us
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited for {what}") from None


async def ends(folder, text, *, env=None):
    """Run the gateway with a configuration that it cannot start with; returns status and what it wrote."""
    file = folder / "fastgate.yaml"
    file.write_text(text)
    command = [sys.executable, "-m", "fastgate", "run", "-c", str(file)]
    process = Process("gateway", command, cwd=folder, env={"PYTHONPATH": str(ROOT), **(env or {})})
    await asyncio.to_thread(process._process.wait, PATIENCE)
    return process.exit_code, process.out.read_text(), process.err.read_text()


# --- start --------------------------------------------------------------------------------------------------------


async def test_the_identity_provider_comes_later(idp, upstream):
    """N29, N85, T20: the gateway starts without it, says so, and is ready as soon as it is there."""
    idp.drop()
    settings = {"idp": provider(idp, introspection_endpoint=None, issuer=idp.issuer)}
    async with Gateway(config(idp, upstream, identity_providers=settings)) as gateway:
        status, said = await gateway.readiness()
        assert (status, said["reasons"]) == (503, ["identity provider idp has not answered yet"])
        assert (await gateway.get("/public")).status == 200
        assert (await gateway.get("/api", token="good")).status == 503
        await idp.start()
        await gateway.ready()
        assert (await gateway.get("/api", token="good")).status == 200
        log = gateway.log()
    assert "identity_provider_failed" in log
    assert "Traceback" not in log


OPEN = "services: [{name: a, url: 'http://127.0.0.1:9', auth: none, routes: [{paths: [/]}]}]\n"
MISTAKES = {
    "unset": (OPEN.replace("[/]", "['${NOWHERE}']"), 1, "NOWHERE"),
    "certificate": (
        "listen: {address: '127.0.0.1:PORT', tls: {certificate: no.pem, key: /dev/null}}\n" + OPEN,
        1,
        "listen.tls.certificate: names a file that cannot be read: No such file",
    ),
    "several": ("lisen: x\nservices: [{name: a, routes: []}]\nworkers: no\n", 4, "did you mean `listen`?"),
}


async def test_files_it_cannot_start_with(tmp_path):
    """P6: a line for each problem, with its place; status 1; no traceback, nothing listens."""
    port = free_port()

    async def mistaken(name):
        folder = tmp_path / name
        folder.mkdir()
        text, problems, said = MISTAKES[name]
        status, out, err = await ends(folder, text.replace("PORT", str(port)))
        lines = err.splitlines()
        assert (status, out, len(lines)) == (1, "", problems), err
        for line in lines:
            assert line.startswith(f"{folder}/fastgate.yaml:"), line
        assert said in err

    await asyncio.gather(*map(mistaken, MISTAKES))
    assert not answers(port)


@pytest.mark.parametrize("workers", [1, 3])
async def test_workers_that_cannot_serve(tmp_path, workers):
    """P6: on aiohttp's pure-Python parser the first workers say so, and nothing is left of the gateway."""
    port = free_port()
    text = f"listen: 127.0.0.1:{port}\nadmin: false\nworkers: {workers}\n{OPEN}"
    status, out, err = await ends(tmp_path, text, env={"AIOHTTP_NO_EXTENSIONS": "1"})
    assert (status, out) == (1, "")
    (sentence,) = [line for line in err.splitlines() if line.startswith("fastgate: ")]
    assert sentence.startswith(
        "fastgate: no worker can start: aiohttp runs on its pure-Python parser: unset AIOHTTP_NO"
    )
    assert "Traceback" not in err
    assert not answers(port)


@pytest.mark.parametrize("which", ["listen", "admin"])
async def test_a_port_in_use(tmp_path, which):
    """P6: one sentence that says what to do; status 1; the other port is not left open."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port, free = taken.getsockname()[1], free_port()
        ports = {"listen": free, "admin": free, which: port}
        status, out, err = await ends(
            tmp_path,
            f"listen: 127.0.0.1:{ports['listen']}\nadmin: {{listen: '127.0.0.1:{ports['admin']}'}}\n{OPEN}",
        )
    assert (status, out) == (1, "")
    (line,) = [line for line in err.splitlines() if "cannot listen" in line]
    sentence = f"cannot listen on 127.0.0.1:{port}: Address already in use; stop what holds the port or change"
    assert sentence in line
    assert "Traceback" not in err
    assert not answers(free)


# --- SIGHUP -------------------------------------------------------------------------------------------------------


async def test_hangup_reads_the_file_again(idp, upstream):
    """P5, T12: a good one is in force; a bad one changes nothing, and every problem of it is in the log."""
    async with Gateway(config(idp, upstream)) as gateway:
        process = gateway.process

        async def hang_up(outcome, count):
            process.signal(signal.SIGHUP)

            async def reached():
                return await gateway.metric("fastgate_config_reloads_total", outcome=outcome) == count

            await until(reached, f"reload {count} to be {outcome}")

        gateway.write({"services": [service(upstream, route("/new", "none"))]})
        await hang_up("taken", 1)
        assert (await gateway.get("/new")).status == 200
        assert (await gateway.get("/public")).status == 404
        bad = {"client_id": 7, "client_secret": [SECRET], "introspection_headers": {"X": f"{SECRET}\n"}}
        good = gateway.file.read_text()
        gateway.write({"identity_providers": {"idp": provider(idp, **bad)}})
        await hang_up("refused", 1)
        gateway.file.write_text("listen: [")
        await hang_up("refused", 2)
        assert (await gateway.get("/new")).status == 200
        gateway.file.write_text(good)
        await hang_up("taken", 2)
    events = [json.loads(line) for line in process.err.read_text().splitlines()]
    refused = [event for event in events if event["event"] == "configuration not reloaded"]
    places = [event.get("path") for event in refused]
    where = "identity_providers.idp."
    assert sorted(places[:3]) == [where + "client_id", where + "client_secret", where + "introspection_headers.X"]
    assert len(refused) == 4
    for event in refused:
        assert event["level"] == "error"
        assert event["problem"]
        assert event["line"]
        assert event["file"] == str(gateway.file)
        # A mistake in a file is no fault in a program.
        assert "exception" not in event
    assert SECRET not in process.tail(1 << 30)


# --- SIGTERM ------------------------------------------------------------------------------------------------------


async def test_terminate_drains(idp, upstream):
    """P3: everything under way is answered, nothing new is accepted, status 0."""
    held = asyncio.Event()
    idp.tokens["slow"] = dict(READER)
    gateway = await Gateway(config(idp, upstream)).start()
    process = gateway.process
    assert (await gateway.get("/api", token="good")).status == 200
    for _ in range(20):
        upstream.will(held, answer(200, b"late"))
    clients = []
    for _ in range(20):
        clients.append(await gateway.connect())
        await clients[-1].send(b"GET /api HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n")
    await upstream.until(lambda: len(upstream.requests) == 21)
    idp.will(held, idp.truth)
    clients.append(await gateway.connect())
    await clients[-1].send(b"GET /api HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer slow\r\n\r\n")
    await idp.asked(2)
    idle = await gateway.connect()
    assert (await idle.request("GET", "/nowhere")).status == 404
    process.signal(signal.SIGTERM)
    assert await idle.rest() == b""
    assert not answers(gateway.port)
    assert (await gateway.readiness())[1]["reasons"] == ["draining"]
    process.signal(signal.SIGTERM)
    held.set()
    for client in clients:
        got = await client.answer()
        assert (got.status, got.header("connection")) == (200, "close")
        await client.close()
    await idle.close()
    assert await gateway.stop() == 0
    events = [json.loads(line)["event"] for line in process.err.read_text().splitlines()]
    assert events[-2:] == ["draining", "stopped"]
    assert "Traceback" not in process.tail(1 << 30)


async def test_terminate_under_load_loses_nothing(idp):
    """P3: clients that ask and ask get an answer to whatever was taken from them; then nobody listens."""
    async with Upstream() as upstream:
        gateway = await Gateway(config(idp, upstream)).start()
        served = 0

        async def ask():
            nonlocal served
            while True:
                try:
                    client = await RawClient.connect(gateway.port)
                except ConnectionRefusedError:
                    return
                got = await client.request("GET", "/api", bearer("good"))
                assert got.status == 200
                served += 1
                await client.close()

        clients = [asyncio.create_task(ask()) for _ in range(8)]

        async def warm():
            return served > 200

        await until(warm, "200 requests")
        assert await gateway.stop() == 0
        await asyncio.gather(*clients)
        assert served == len(upstream.requests)


# --- what it writes -----------------------------------------------------------------------------------------------


async def test_nothing_secret_is_ever_written(idp, upstream):
    """N4, N13, N26, N90, T12: access lines are JSON; no token, secret or peer's text in any stream or metric."""
    tokens = [f"t0p-s3cret-{name}" for name in ("header", "query", "form", "cookie", "bad", "long", "odd", "revoked")]
    header, query, form, cookie, _, _, _, revoked = tokens
    for token in (header, query, form, cookie, revoked):
        idp.tokens[token] = {"sub": "alex-the-subject", "scope": "read"}
    sources = {"bearer_token_param_type": ["header", "query", "body", "cookie"]}
    wanted = config(idp, upstream, route("/api", sources), route("/dead", "none"), log={"format": "json"})
    async with Gateway(wanted, env={"SOMETHING": SECRET}) as gateway:
        process = gateway.process
        async with await gateway.connect() as client:
            asked = [
                await client.request("GET", "/api/header?private=1", bearer(header)),
                await client.request("GET", f"/api/query?access_token={query}"),
                await client.request("POST", "/api/form", FORM, body=f"access_token={form}".encode()),
                await client.request("GET", "/api/cookie", ("Cookie", f"access_token={cookie}")),
                await client.request("GET", "/api/bad", bearer(tokens[4])),
                await client.request("GET", "/api/long", bearer(tokens[5] * 1000)),
                await client.request("GET", "/api/twice", bearer(header), bearer(query)),
                await client.request("GET", "/nowhere", bearer(header)),
            ]
        assert [got.status for got in asked] == [200, 200, 200, 200, 401, 400, 400, 404]
        for body in (
            says({"error": "reflected-by-idp"}, 401),
            says(b"reflected-by-idp"),
            says(b"reflected-by-idp", 500),
        ):
            idp.will(body)
            assert (await gateway.get("/api", token=tokens[6])).status == 503
        upstream.will(b"HTTP/1.1 200 reflected-by-upstream\x00\r\n\r\n", CLOSE)
        assert (await gateway.get("/dead", ("X-Secret", SECRET))).status == 502
        await gateway.revoke(token=revoked)
        assert (await gateway.get("/api", token=revoked)).status == 401
        await gateway.admin("POST", "/tokens/revoke", {"token": revoked, "sub": "alex-the-subject"})
        async with await gateway.connect() as client:
            await client.send(f"GET /{header} HTTP/3.0\r\nAuthorization: Bearer {query}\r\n\r\n".encode())
            assert (await client.answer()).status == 505
        shown = json.dumps(await gateway.status()) + (await gateway.admin("GET", "/metrics")).body.decode()
    lines = [json.loads(line) for line in process.out.read_text().splitlines()]
    paths = [f"/api/{name}" for name in ("header", "query", "form", "cookie", "bad", "long", "twice")]
    expected = zip([*paths, "/nowhere"], [200, 200, 200, 200, 401, 400, 400, 404], strict=True)
    assert [(line["path"], line["status"]) for line in lines[:8]] == list(expected)
    first = lines[0]
    assert {key: first[key] for key in ("method", "host", "outcome", "route", "service", "peer")} == {
        "method": "GET",
        "host": "gateway.test",
        "outcome": "forwarded",
        "route": "api",
        "service": "upstream",
        "peer": "127.0.0.1",
    }
    assert [line["outcome"] for line in lines[8:12]] == ["failed"] * 4
    # What the file invites is said for people, before the log begins.
    said = [line for line in process.err.read_text().splitlines() if not line.startswith("warning: ")]
    events = [json.loads(line) for line in said]
    alarm = [event for event in events if event["event"] == "identity_provider_failed" and event["kind"] == "rejected"]
    assert alarm[0]["client_id"] == "gateway"
    written = process.tail(1 << 30) + shown
    for text in [*tokens, "t0p-s3cret", SECRET, "reflected-by", "alex-the-subject", "private=1"]:
        assert text not in written, text
    assert "Traceback" not in written
