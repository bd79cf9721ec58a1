"""Trying out the Redis of a configuration, step by step: for `fastgate check --connect`."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from redis.exceptions import RedisError as LibraryError

from fastgate.model import Redis
from fastgate.stats import Stats
from fastgate.tokens.shared.clients import Way, Ways
from fastgate.tokens.shared.faults import ADVICE, Fault, RedisError, fault_of, fault_of_text
from fastgate.tokens.shared.line import Line
from fastgate.tokens.shared.messages import Messages
from fastgate.tokens.shared.scripts import CHECK, CLAIM, LAND, LOOK, PUSH, RENEW, Script

PATIENCE: Final = 5.0
"""Seconds for every step."""
MESSAGE_SECONDS: Final = 1.0
KEEPS_LEDGER: Final = frozenset({"noeviction", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"})


class _Trouble(Exception):  # noqa: N818 - it is what is looked for
    """A step failed."""


async def probe(redis: Redis) -> tuple[str, str]:
    """Connect, write, read, send and receive. Returns what is wrong, and what should be known; both may be empty."""
    way: Way | None = None
    try:
        way = await _step("connecting", Ways(redis).open())
        began = time.monotonic()
        await _step("asking", way.ping())
        took = time.monotonic() - began
        await _try(redis, way)
        return "", _slow(redis, took) or await _evicts(way)
    except _Trouble as trouble:
        return str(trouble), ""
    finally:
        if way is not None:
            await way.close()


async def _try(redis: Redis, way: Way) -> None:
    """Do in small everything that the shared tier does."""
    name, waiter = f"{redis.prefix}:{{probe}}", os.urandom(8).hex()
    state, lease, ledger, tag = (f"{name}:{kind}" for kind in ("state", "lease", "ledger", "tag"))
    came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    messages = Messages({f"{redis.prefix}:to:{waiter}": came.set_result})
    line = Line(PATIENCE, Stats())
    line.open(way.client)
    claim: list[bytes | str | int] = [b"", b"claim", 5000, waiter, 100]
    landing: list[bytes | str | int] = [b"claim", "5000", b"value", b"message", len(waiter), f"{redis.prefix}:to:"]
    await _step("subscribing", messages.subscribe(way.messages))
    async with _listening(messages):
        await _step("writing", line.run(lambda client: client.set(state, b"", px=1000)))
        await _script(line, "reading", LOOK, [state], [])
        for _ in range(2):  # the second time somebody else holds it
            await _script(line, "leasing", CLAIM, [f"{state}:none", lease], list(claim))
        renewed = await _script(line, "leasing", RENEW, [lease], [5000, b"claim"])
        await _script(line, "leasing", LAND, [state, lease], list(landing))
        with suppress(TimeoutError):
            await asyncio.wait_for(came, MESSAGE_SECONDS)
        for room in (10, 0):
            words: list[bytes | str | int] = [b"tag", room, f"{redis.prefix}:marks", b"", b"id", b"mark"]
            await _script(line, "revoking", PUSH, [ledger, tag], words)
        checked = await _script(line, "revoking", CHECK, [ledger, tag], [b"id"])
        await _step("revoking", line.run(lambda client: client.hscan(ledger)))
        await _step("revoking", line.run(lambda client: client.hdel(ledger, "id")))
        await _step("deleting", line.run(lambda client: client.delete(state)))
        await _step("deleting", line.run(lambda client: client.delete(tag)))
    if renewed != [1] or checked != [b"tag", [b"mark"]]:
        raise _Trouble(f"reading what was written: {ADVICE[Fault.PERMISSION]}")
    if not came.done() or came.cancelled():
        raise _Trouble(f"receiving a message: none came; {ADVICE[Fault.PERMISSION]}")


async def _script(line: Line, name: str, script: Script, keys: list[str], words: list[bytes | str | int]) -> Any:
    answer = await _step(name, line.script(script, keys, words))
    said = answer[0] if isinstance(answer[0], list) else answer  # of each, or of all
    if said[0] == b"refused":
        raise _Trouble(f"{name}: {ADVICE[fault_of_text(said[1].decode('ascii', 'replace'))]}")
    return answer


@asynccontextmanager
async def _listening(messages: Messages) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(messages.listen())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, LibraryError, OSError):
            await task


async def _step(name: str, doing: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(PATIENCE):
            return await doing
    except RedisError as error:
        raise _Trouble(f"{name}: {ADVICE[error.fault]}") from None
    except Exception as error:  # noqa: BLE001 - whatever it is, the step failed
        raise _Trouble(f"{name}: {ADVICE[fault_of(error)]}") from None


def _slow(redis: Redis, took: float) -> str:
    if took < redis.timeout:
        return ""
    return f"one round trip took {took * 1000:.0f} ms, more than `timeout` allows: it would be bypassed"


async def _evicts(way: Way) -> str:
    """Whether a full Redis may throw revocations away; nothing where it does not say."""
    try:
        async with asyncio.timeout(PATIENCE):
            said: Any = await way.client.info("memory")
    except (LibraryError, OSError, TimeoutError):
        return ""
    memory = said if "maxmemory_policy" in said else next(iter(said.values()), {})
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy in KEEPS_LEDGER or not memory.get("maxmemory"):
        return ""
    return f"maxmemory-policy {policy} may throw revocations away until a gateway puts them back; volatile-lru does not"
