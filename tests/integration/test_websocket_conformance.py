"""Autobahn's WebSocket cases (PyPI kosoku): the verdicts through the gateway are those without it.

The whole suite takes minutes because of the compression cases; by default groups 1 to 10 run whole and of each
compression group (12.*, 13.*) the first two cases. FASTGATE_WEBSOCKET=all runs every case.
"""

import os

import pytest
from aiohttp import WSMsgType, web
from kosoku import FailureError, run_fuzzingclient

from tests.support.gateway import Gateway

EVERYTHING = os.environ.get("FASTGATE_WEBSOCKET") == "all"
GROUPS = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 9, 10)]  # there is no 8, 11 is not offered
COMPRESSION = [f"{group}.{case}" for group in ("12.1", "12.2", "12.3", "12.4", "12.5") for case in (1, 2)]
COMPRESSION += [f"13.{group}.{case}" for group in range(1, 8) for case in (1, 2)]
CASES = None if EVERYTHING else GROUPS + COMPRESSION


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Send every message back, as Autobahn expects of a server under test."""
    socket = web.WebSocketResponse(max_msg_size=0, compress=True)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


@pytest.fixture
async def echo_port():
    app = web.Application()
    app.router.add_get("/ws", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield site._server.sockets[0].getsockname()[1]
    await runner.cleanup()


Verdicts = dict[str, tuple[str, str, int | None]]


async def verdicts(port: int, cases: list[str] | None = CASES) -> Verdicts:
    """Run the cases against a port: verdict on the messages, verdict on the closing, close code received."""
    try:
        results = await run_fuzzingclient(f"ws://127.0.0.1:{port}/ws", cases=cases, concurrency=4)
    except FailureError as failed:  # the server under test has its own failures; ours is the comparison
        results = failed.results
    return {one.case_id: (one.behavior.value, one.behavior_close.value, one.remote_close_code) for one in results}


@pytest.mark.filterwarnings("ignore:unclosed file .*autobahntestsuite:ResourceWarning")  # kosoku's own
@pytest.mark.timeout(3600 if EVERYTHING else 120)
async def test_verdicts_equal_those_without_the_gateway(echo_port, note):
    """N86, N88: the tunnel adds, loses and reorders nothing."""
    direct = await verdicts(echo_port)
    routes = [{"paths": ["/ws"], "auth": "none"}]
    service = {"name": "echo", "url": f"http://127.0.0.1:{echo_port}", "routes": routes}
    async with Gateway({"services": [service]}) as gateway:
        through = await verdicts(gateway.port)
        note(f"websocket: {len(through)} Autobahn cases through the gateway")
        different = {case for case in direct if direct[case] != through.get(case)}
        # A peer that ends a connection with octets unread resets it: what it had sent just before may overtake that,
        # or be lost, on either way. What is so every time is our doing.
        for _ in range(3):
            if different:
                through |= await verdicts(gateway.port, sorted(different))
                different = {case for case in different if direct[case] != through[case]}
    assert len(direct) > 250
    assert {case: (direct[case], through.get(case)) for case in different} == {}
