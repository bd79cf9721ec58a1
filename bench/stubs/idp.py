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
from collections.abc import Awaitable
from typing import Any
from urllib.parse import parse_qsl

from bench.settings import GRANTED
from bench.stubs.serving import Answer, Handler, Request, as_json, serve

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


def handler() -> Handler:
    """What it answers."""
    asked: Counter[str] = Counter()

    async def later(token: str) -> Answer:
        await asyncio.sleep(int(token.split("-")[2]) / 1000)
        return as_json(claims(token))

    def handle(request: Request) -> Answer | Awaitable[Answer]:
        _, room, name = (request.target + "/").split("/", 3)[:3]
        if room == "questions":
            return Answer(str(asked[name]).encode(), content_type=b"text/plain")
        form = dict(parse_qsl(request.body.decode()))
        if room == "token":
            scope, lifetime = form.get("scope", GRANTED), int(form.get("lifetime", LIFETIME))
            granted = {"access_token": mint(scope, lifetime), "token_type": "Bearer", "expires_in": lifetime}
            return as_json(granted | {"scope": scope})
        asked[name] += 1
        token = form.get("token", "")
        return later(token) if token.startswith("bench-wait-") else as_json(claims(token))

    return handle


if __name__ == "__main__":
    serve(int(sys.argv[1]), handler())
