"""An identity provider that can be made sick: `python -m bench.stubs.sick PORT`.

POST /introspect answers as `bench.tokens` has it, after `thinks`. POST /be/MODE changes how: "well"; "hanging" (what
waits is answered as soon as it is well again); "failing" (500); "malformed" (by turns what no JSON parser should take
for a yes). GET /asked says as JSON how often it was asked about tokens in all, by mode, and when: the latest
monotonic seconds, each with the port that the question came from.
"""

import asyncio
import itertools
import json
import sys
import time
from collections import Counter, deque

import uvloop
from aiohttp import web

from bench.tokens import claims, thinks

_KEPT = 200_000
MALFORMED = (
    b'{"active": "true", "sub": "user-1", "scope": "bench.read bench.write"}',
    b'{"active": true, "active": false, "sub": "user-1", "scope": "bench.read bench.write"}',
    b'{"active": true, "sub": "user-1", "scope": "bench.re',
    b'{"active": 1, "sub": "user-1", "scope": "bench.read bench.write"}',
    b"<html><body>active: true</body></html>",
    b"[true]",
    b"",
)


def application() -> web.Application:
    """Make the server."""
    asked: Counter[str] = Counter()
    when: deque[tuple[float, int]] = deque(maxlen=_KEPT)
    turns = itertools.cycle(MALFORMED)
    state = {"mode": "well"}
    well = asyncio.Event()
    well.set()

    async def introspect(request: web.Request) -> web.Response:
        mode = state["mode"]
        asked[mode] += 1
        peer = request.transport.get_extra_info("peername") if request.transport else None
        when.append((time.monotonic(), peer[1] if peer else 0))
        token = str((await request.post()).get("token", ""))
        if mode == "failing":
            return web.Response(status=500, text="broken")
        if mode == "malformed":
            return web.Response(body=next(turns), content_type="application/json")
        if seconds := thinks(token):
            await asyncio.sleep(seconds)
        await well.wait()
        return web.json_response(claims(token))

    async def be(request: web.Request) -> web.Response:
        state["mode"] = request.match_info["mode"]
        if state["mode"] == "hanging":
            well.clear()
        else:
            well.set()
        return web.Response()

    async def told(request: web.Request) -> web.Response:
        since = float(request.query.get("since", "inf"))
        latest = [each for each in when if each[0] >= since]
        return web.Response(text=json.dumps({"total": asked.total(), "modes": asked, "when": latest}))

    app = web.Application()
    app.add_routes([web.post("/introspect", introspect), web.post("/be/{mode}", be), web.get("/asked", told)])
    return app


async def _serve(port: int) -> None:
    runner = web.AppRunner(application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
