"""An introspection endpoint: `python -m bench.stubs.idp PORT [SECONDS]`.

Every token that begins with "bench" is active. SECONDS is how long it thinks about each question.
GET /questions says how many it was asked.
"""

import asyncio
import sys
import time

from aiohttp import web


def application(delay: float) -> web.Application:
    """Make the server."""
    asked = 0

    async def introspect(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        token = str((await request.post()).get("token", ""))
        await asyncio.sleep(delay)
        if not token.startswith("bench"):
            return web.json_response({"active": False})
        claims = {"active": True, "sub": "alex", "scope": "bench.read bench.write", "client_id": "bench"}
        return web.json_response(claims | {"exp": int(time.time()) + 3600})

    async def questions(_: web.Request) -> web.Response:
        return web.Response(text=str(asked))

    app = web.Application()
    app.add_routes([web.post("/introspect", introspect), web.get("/questions", questions)])
    return app


if __name__ == "__main__":
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    web.run_app(application(seconds), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
