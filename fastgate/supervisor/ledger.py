"""Revocations of this host: they reach every worker before they are confirmed, and those that begin later."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog

from fastgate.clock import SystemClock
from fastgate.model import Mark
from fastgate.policy.digest import fingerprint
from fastgate.supervisor.member import Member
from fastgate.tokens.revocation import Revocations, RevocationsFullError
from fastgate.worker.channel import GoneError, SilentError

log = structlog.get_logger("fastgate.supervisor")

Answer = TypeVar("Answer")

WITHIN: Final = 5.0
"""Seconds that a worker may take to confirm what all of them must do; then it is replaced."""
_ASKING: Final = 0.5
"""Seconds that a worker may take to tell the revocations that it knows."""


class Ledger:
    """What was revoked, by whichever worker."""

    def __init__(self, ttl: float, told: Callable[[], Iterable[Member]]) -> None:
        """`ttl`: see `Revocations`; `told` are the workers that have begun."""
        self.key: Final = os.urandom(32)
        """All workers digest revoked tokens with it: what one has revoked, the others recognise."""
        self._revocations = Revocations(SystemClock(), ttl)
        self._told = told

    def marks(self) -> list[Mark]:
        """List every revocation in force."""
        return self._revocations.marks()

    async def revoke(self, what: Mapping[str, Any]) -> int:
        """Forget and refuse, in every worker; `what` is as for `Tokens.revoke`. Raises FastgateError."""
        # Noted first: who begins while the others are told begins with it.
        marks = [self._noted(what)]
        answers = await asyncio.gather(
            *(confirmed(member.revoke(what, WITHIN), member) for member in self._told()), return_exceptions=True
        )
        counts = [0]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                counts.append(answer[0])
                marks += answer[1]
        # Who had the token in memory knows how long it has to be refused; the others have to know it too.
        await self.spread(marks)
        return 1 if "token" in what else sum(counts)

    async def spread(self, marks: Sequence[Mark], *, besides: Member | None = None) -> None:
        """Put revocations in force in every worker but the one that has made them. Raises FastgateError."""
        for mark in marks:
            self._revocations.take(mark)
        others = [member for member in self._told() if member is not besides]
        await asyncio.gather(*(confirmed(member.learn(marks, WITHIN), member) for member in others))

    def keep(self, marks: Sequence[Mark]) -> None:
        """Know what a worker learned from other hosts: they tell the other workers, but not those that begin later."""
        with suppress(RevocationsFullError):  # the worker, who has no more room either, has raised the alarm
            for mark in marks:
                self._revocations.take(mark)

    async def learn(self, members: Iterable[Member]) -> None:
        """Ask workers what they know: how long the tokens last that were met, and what other hosts revoked."""
        for marks in await asyncio.gather(*(member.marks(_ASKING) for member in members)):
            for mark in marks:
                self._revocations.take(mark)

    def _noted(self, what: Mapping[str, Any]) -> Mark:
        if "token" in what:
            return self._revocations.revoke_token(fingerprint(what["token"], self.key))
        if "all" in what:
            return self._revocations.revoke_all()
        ((claim, value),) = [(name, value) for name, value in what.items() if name != "at"]
        return self._revocations.revoke_claim(claim, value, what.get("at"))


async def confirmed(doing: Coroutine[Any, Any, Answer], member: Member) -> Answer | None:
    """Let a worker do what every one of them must: one that does not confirm it is ended, its successor will know."""
    try:
        return await doing
    except SilentError:
        log.error("worker does not confirm a change: ended", worker=member.number, pid=member.pid)  # noqa: TRY400
        member.kill()
    except GoneError:
        pass
    return None
