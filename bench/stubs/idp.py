"""An identity provider: `python -m bench.stubs.idp PORT`.

POST /introspect answers RFC 7662. Every token that begins with "bench" is active, and so is, for its lifetime, what
POST /token gave (RFC 6749 section 4.4; `lifetime` in seconds is ours). Such a token says itself what it is good for:
nothing is kept, any number can be minted. About "bench-wait-MS-..." it thinks MS milliseconds, "bench-narrow..." lacks
the scope. Who asks at /introspect/NAME is counted by that name: GET /questions/NAME says how many questions there were.
"""

import asyncio
import base64
import json
import secrets
import sys
import time
from collections import Counter
from typing import Any

import uvloop
from aiohttp import web

from bench.settings import GRANTED

LIFETIME = 3600
MINTED = "minted."


def mint(scope: str, lifetime: int) -> str:
    """A token that carries its scope and its end."""
    about = json.dumps([scope, int(time.time()) + lifetime, secrets.token_hex(8)])
    return MINTED + base64.urlsafe_b64encode(about.encode()).decode()


def claims(token: str) -> dict[str, Any]:
    """What is said about a token (RFC 7662 section 2.2)."""
    now = int(time.time())
    scope, exp = GRANTED, now + LIFETIME
    if token.startswith(MINTED):
        scope, exp, _ = json.loads(base64.urlsafe_b64decode(token.removeprefix(MINTED)))
    elif token.startswith("bench-narrow"):
        scope = "bench.other"
    elif not token.startswith("bench"):
        return {"active": False}
    if exp <= now:
        return {"active": False}
    return {"active": True, "sub": "alex", "client_id": "bench", "scope": scope, "exp": exp}


def application() -> web.Application:
    """Make the server."""
    asked: Counter[str] = Counter()

    async def introspect(request: web.Request) -> web.Response:
        asked[request.match_info.get("name", "")] += 1
        token = str((await request.post()).get("token", ""))
        if token.startswith("bench-wait-"):
            await asyncio.sleep(int(token.split("-")[2]) / 1000)
        return web.json_response(claims(token))

    async def token(request: web.Request) -> web.Response:
        form = await request.post()
        scope, lifetime = str(form.get("scope", GRANTED)), int(str(form.get("lifetime", LIFETIME)))
        granted = {"access_token": mint(scope, lifetime), "token_type": "Bearer", "expires_in": lifetime}
        return web.json_response(granted | {"scope": scope}, headers={"Cache-Control": "no-store"})

    async def questions(request: web.Request) -> web.Response:
        return web.Response(text=str(asked[request.match_info.get("name", "")]))

    app = web.Application()
    app.add_routes(
        [
            web.post("/introspect", introspect),
            web.post("/introspect/{name}", introspect),
            web.post("/token", token),
            web.get("/questions/{name}", questions),
        ],
    )
    return app


if __name__ == "__main__":
    web.run_app(
        application(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        shutdown_timeout=0.1,
        loop=uvloop.new_event_loop(),  # it shares the core of the load generator
    )
