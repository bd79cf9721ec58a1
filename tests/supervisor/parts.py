"""A gateway of several workers, looked at from outside."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.client import PATIENCE
from tests.support.gateway import Gateway

Worker = dict[str, Any]


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Wait until something that is seen from outside only has come about; returns what it was."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not (seen := await condition()):  # noqa: ASYNC110 - another process has no events for us
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited for {what}") from None
    return seen


class Fleet(Gateway):
    """The gateway as a process, and its workers."""

    async def workers(self) -> dict[int, Worker]:
        """Every worker that is there to stay, by number."""
        return {w["worker"]: w for w in (await self.status())["workers"] if w["state"] != "leaving"}

    async def pids(self) -> dict[int, int]:
        """Their processes."""
        return {number: worker["pid"] for number, worker in (await self.workers()).items()}

    async def serving(self, count: int, *, without: set[int] = frozenset()) -> dict[int, int]:  # type: ignore[assignment]
        """Wait until so many workers serve, none of them one of these processes; returns their pids."""

        async def there() -> dict[int, int]:
            workers = await self.workers()
            good = all(w["state"] == "serving" and w["pid"] not in without for w in workers.values())
            return {n: w["pid"] for n, w in workers.items()} if good and len(workers) == count else {}

        return dict(await until(there, f"{count} workers, none of {without}"))

    def processes(self) -> list[int]:
        """Every process of the gateway that lives, the first one included."""
        assert self.last is not None
        return group(self.last.pid)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to all of them, from the youngest on; who has ended meanwhile need not get it."""
        for pid in sorted(self.processes(), reverse=True):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def named(self, name: str) -> list[int]:
        """Those of them that have this name."""
        return [pid for pid in self.processes() if _field(pid, "comm").strip() == name]

    def events(self, text: str = "") -> list[dict[str, Any]]:
        """The event log so far; with `text` only events of this kind."""
        assert self.last is not None
        # The last line may not be complete yet.
        lines = [line for line in self.last.err.read_text().splitlines(keepends=True) if line.endswith("\n")]
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in events if text in ("", event["event"])]

    async def logged(self, text: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until so many events of a kind were logged; returns them."""

        async def there() -> list[dict[str, Any]]:
            found = self.events(text)
            return found if len(found) >= count else []

        return list(await until(there, f"{count} times {text!r} in the log"))


def group(leader: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _field(int(entry.name), "stat").rpartition(") ")[2].split()
            if len(stat) > 2 and int(stat[2]) == leader and stat[0] != "Z":
                found.append(int(entry.name))
    return found


def rss(pid: int) -> int:
    """Resident memory in octets."""
    return int(_field(pid, "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _field(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""
