"""An identity provider that can be made sick: `python -m bench.stubs.sick PORT`.

POST /introspect answers as `bench.tokens` has it, after `thinks`. POST /be/MODE changes how: "well"; "hanging" (what
waits is answered as soon as it is well again); "failing" (500); "malformed" (by turns what no JSON parser should take
for a yes). GET /asked says as JSON how often it was asked about tokens in all, by mode, and when: the latest
monotonic seconds, each with the port that the question came from.
"""

import asyncio
import itertools
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable
from math import inf
from urllib.parse import parse_qsl

from bench.stubs.serving import Answer, Handler, Request, as_json, serve
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


def handler() -> Handler:
    """What it answers."""
    asked: Counter[str] = Counter()
    when: deque[tuple[float, int]] = deque(maxlen=_KEPT)
    turns = itertools.cycle(MALFORMED)
    mode = "well"
    well = asyncio.Event()
    well.set()

    def introspect(request: Request) -> Answer | Awaitable[Answer]:
        asked[mode] += 1
        when.append((time.monotonic(), request.transport.get_extra_info("peername")[1]))
        token = dict(parse_qsl(request.body.decode())).get("token", "")
        if mode == "failing":
            return Answer(b"broken", 500, b"text/plain")
        if mode == "malformed":
            return Answer(next(turns))
        seconds = thinks(token)
        return later(token, seconds) if seconds or not well.is_set() else as_json(claims(token))

    async def later(token: str, seconds: float) -> Answer:
        await asyncio.sleep(seconds)
        await well.wait()
        return as_json(claims(token))

    def handle(request: Request) -> Answer | Awaitable[Answer]:
        nonlocal mode
        if request.target.startswith("/be/"):
            mode = request.target.removeprefix("/be/")
            (well.clear if mode == "hanging" else well.set)()
            return Answer(b"")
        if request.target.startswith("/asked"):
            _, _, since = request.target.partition("?since=")
            latest = [each for each in when if each[0] >= float(since or inf)]
            return as_json({"total": asked.total(), "modes": asked, "when": latest})
        return introspect(request)

    return handle


if __name__ == "__main__":
    serve(int(sys.argv[1]), handler())
