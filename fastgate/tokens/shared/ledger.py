"""The ledger of revocations: what one worker revokes is in force at all of them within a second, and stays so."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol

import structlog

from fastgate.clock import Clock
from fastgate.model import Mark
from fastgate.stats import Stats
from fastgate.tokens.quiet import Quiet
from fastgate.tokens.revocation import RevocationsFullError
from fastgate.tokens.shared.faults import Fault, RedisError
from fastgate.tokens.shared.line import Line
from fastgate.tokens.shared.scripts import CHECK, PUSH
from fastgate.tokens.shared.sealed_marks import Sealed, name_of, open_, pack, seal, unpack
from fastgate.tokens.shared.sealing import Keyring, Unopened

log: Final = structlog.get_logger("fastgate.tokens")

MARKS_MAX: Final = 100_000
"""In Redis."""
BATCH: Final = 64
"""Revocations in one message."""
PAGE: Final = 256
"""Revocations read in one operation."""
WATCHED: Final = 64
"""Revocations of ours that are looked after at once."""
TAG_SIZE: Final = 16
TAGS_MAX: Final = 256
MESSAGE_SECONDS: Final = 0.1
"""How long a message may take after the change that it tells of."""
FORGET_SECONDS: Final = 3600.0
"""A revocation is removed from Redis so long after its end: clocks of hosts differ."""


class MarkBook(Protocol):
    """The revocations that this worker knows."""

    def marks(self) -> list[Mark]:
        """List those in force."""
        ...

    def mark(self, claim: str, value: str) -> Mark | None:
        """Return what is known about one."""
        ...

    def take(self, marks: Iterable[Mark]) -> None:
        """Put more in force. Raises RevocationsFullError."""
        ...


class Ledger:
    """A hash in Redis of id to sealed mark, the tag of its latest change, and a channel that tells of changes.

    Redis is not believed: a mark that none of us sealed is refused, one that vanished is put back by whoever knows it.
    """

    def __init__(
        self,
        line: Line,
        keyring: Keyring,
        prefix: str,
        book: MarkBook,
        clock: Clock,
        stats: Stats,
        learned: Callable[[Sequence[Mark]], None],
    ) -> None:
        """`learned` is told what others revoked."""
        self._line = line
        self._keyring = keyring
        self._book = book
        self._learned = learned
        self._clock = clock
        self._stats = stats
        self._keys = [f"{prefix}:{{marks}}:ledger", f"{prefix}:{{marks}}:tag"]
        self.channel: Final = f"{prefix}:marks"
        self._tags: deque[bytes] = deque(maxlen=TAGS_MAX)
        """Changes that we made, read or were told of; the latest is the last."""
        self._unsent: dict[tuple[str, str], None] = {}
        self._sending: asyncio.Task[None] | None = None
        self._watched: deque[Mark] = deque()
        self._quiet = Quiet(clock)

    @property
    def unsent(self) -> int:
        """Revocations made here that have not reached Redis yet."""
        return len(self._unsent)

    # --- what we revoke -----------------------------------------------------------------------------------

    def spread(self, mark: Mark) -> None:
        """Tell everybody, now or as soon as Redis can be reached."""
        self._unsent[mark.claim, mark.value] = None
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def settled(self) -> bool:
        """Wait for what is being sent; whether all of it has reached Redis."""
        if self._sending is not None:
            await asyncio.wait([self._sending])
        return not self._unsent

    async def _send(self) -> None:
        while self._unsent:
            names = list(islice(self._unsent, BATCH))
            for name in names:
                del self._unsent[name]  # before the sending: one that is revoked again meanwhile is sent again
            try:
                await self._push(self._known(names))
            except RedisError:
                self._unsent.update(dict.fromkeys(names))
                return  # sent when the line is open again, or with the next look after the ledger

    def _known(self, names: Iterable[tuple[str, str]]) -> Iterator[Mark]:
        for claim, value in names:
            mark = self._book.mark(claim, value)
            if mark is not None:
                yield mark

    async def _push(self, marks: Iterable[Mark]) -> None:
        """Write and tell, in batches. Raises RedisError."""
        rest = iter(marks)
        while batch := [seal(self._keyring, mark) for mark in islice(rest, BATCH)]:
            tag = os.urandom(TAG_SIZE)
            self._tags.append(tag)  # before the message can come back to us
            arguments: list[Any] = [tag, MARKS_MAX, self.channel, pack(batch)]
            for each in batch:
                arguments += each
            outcome, *more = await self._line.script(PUSH, self._keys, arguments)
            if outcome == b"refused":
                raise self._line.refused(more[0])
            if more[0]:
                self._full("the ledger in Redis is full")
            self._stats.marks.add("sent", amount=len(batch) - more[0])

    # --- what others revoke -------------------------------------------------------------------------------

    def received(self, message: bytes) -> None:
        """A change, and the one before it, as they were told to everybody."""
        former, tag = message[:TAG_SIZE], message[TAG_SIZE : 2 * TAG_SIZE]
        if tag in self._tags:
            return  # our own
        if former in self._tags:
            self._tags.append(tag)  # nothing was missed in between
        self._take(self._opened(unpack(message[2 * TAG_SIZE :])))

    def _take(self, marks: Iterable[Mark]) -> None:
        """Put in force what is not."""
        now = self._clock.now()
        news = [mark for mark in marks if mark.until > now and self._is_news(mark)]
        if not news:
            return
        self._stats.marks.add("received", amount=len(news))
        try:
            self._book.take(news)
        except RevocationsFullError:
            self._full("this worker has no room for more")
        self._learned(news)

    def _opened(self, sealed: Iterable[Sealed]) -> Iterator[Mark]:
        """Read what one of us sealed; anything else is counted and refused."""
        for each in sealed:
            try:
                yield open_(self._keyring, each)
            except Unopened as error:
                self._stats.marks.add(f"refused_{error.reason}")
                advice = "sealed with a secret that this gateway lacks, or by somebody who should not"
                self._alarm("revocation_refused", reason=error.reason, advice=advice)

    def _is_news(self, mark: Mark) -> bool:
        known = self._book.mark(mark.claim, mark.value)
        return known is None or mark.at > known.at or mark.until > known.until

    # --- looking after it ---------------------------------------------------------------------------------

    async def catch_up(self) -> None:
        """Learn what was missed while the line was closed, and send what could not be sent. Raises RedisError."""
        tag, _ = await self._check([])
        if self._lost(tag):
            await self._sync(tag)
        await self._send()

    async def look_after(self) -> None:
        """See whether a change was missed, and whether some of what we know is still there. Raises RedisError."""
        if not self._watched:
            self._watched.extend(self._book.marks())
        batch = [self._watched.popleft() for _ in range(min(WATCHED, len(self._watched)))]
        names = [name_of(self._keyring, mark) for mark in batch]
        tag, there = await self._check(names)
        if self._lost(tag):
            await asyncio.sleep(MESSAGE_SECONDS)  # its message may be on the way
            if self._lost(tag):
                await self._sync(tag)
        else:
            found = [Sealed(name, octets) for name, octets in zip(names, there, strict=True) if octets is not None]
            self._take(self._opened(found))
            lacking = set(names) - {each.id for each in found if self._is_ours(each)}
            await self._push(self._known((m.claim, m.value) for m, n in zip(batch, names, strict=True) if n in lacking))
        await self._send()

    def _lost(self, tag: bytes) -> bool:
        """Whether there are changes that we know nothing of; a ledger without a tag has lost all of ours."""
        return tag not in self._tags or (not tag and bool(self._book.marks()))

    def _is_ours(self, sealed: Sealed) -> bool:
        """Whether it says all that we know; what cannot be opened says nothing."""
        try:
            mark = open_(self._keyring, sealed)
        except Unopened:
            return False
        return self._book.mark(mark.claim, mark.value) == mark

    async def _sync(self, tag: bytes) -> None:
        """Read all of it, and write what it lacks."""
        self._tags.append(tag)
        ours = {}
        for number, mark in enumerate(self._book.marks()):
            ours[name_of(self._keyring, mark)] = mark.claim, mark.value
            if not number % PAGE:
                await asyncio.sleep(0)
        over: list[bytes] = []
        async for page in self._pages():
            marks = list(self._opened(page))
            self._take(marks)
            for mark in marks:
                if self._book.mark(mark.claim, mark.value) == mark:
                    ours.pop(name_of(self._keyring, mark), None)
            long_ago = self._clock.now() - FORGET_SECONDS
            over += [name_of(self._keyring, mark) for mark in marks if mark.until < long_ago]
        for at in range(0, len(over), PAGE):
            await self._forget(over[at : at + PAGE])
        await self._push(self._known(ours.values()))

    async def _pages(self) -> AsyncIterator[list[Sealed]]:
        cursor = 0
        while True:
            try:
                cursor, page = await self._page(cursor)
            except RedisError as error:
                if error.fault is not Fault.REFUSED:
                    raise
                return  # of another type: the next mark replaces it
            yield [Sealed(name, octets) for name, octets in page.items()]
            if not cursor:
                return

    async def _page(self, cursor: int) -> tuple[int, dict[bytes, bytes]]:
        page: Any = await self._line.run(lambda client: client.hscan(self._keys[0], cursor, count=PAGE))
        return int(page[0]), page[1]

    async def _forget(self, names: list[bytes]) -> None:
        await self._line.run(lambda client: client.hdel(self._keys[0], *names))

    async def _check(self, names: list[bytes]) -> tuple[bytes, list[bytes | None]]:
        tag, there, *error = await self._line.script(CHECK, self._keys, list(names))
        return tag, [None] * len(names) if error else there

    def _full(self, what: str) -> None:
        self._stats.marks.add("full")
        self._alarm("revocations_full", detail=what, advice="revoke by sub, client_id or all instead of token by token")

    def _alarm(self, event: str, **details: str) -> None:
        # One kind for all of them: somebody who forges marks must not hide behind many kinds of lines.
        if self._quiet.suppressed("alarm") is not None:
            log.error(event, **details)

    async def close(self) -> None:
        """Stop sending."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
