"""What one identity provider tells of its own accord: from the token it sends to the revocations that it means."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

import structlog

from fastgate.clock import Clock
from fastgate.errors import Cannot, FastgateError, IntrospectionError
from fastgate.model import IdentityProvider, Notice, NoticeKind, Notifier, Refusal, Refused
from fastgate.policy import logout_token, security_event
from fastgate.policy.signed import Signed, candidates, names_one_of, read_header
from fastgate.policy.strict_json import read_object
from fastgate.stats import Stats
from fastgate.tokens.keys import Keys
from fastgate.tokens.quiet import Quiet
from fastgate.tokens.seen import Seen

log: Final = structlog.get_logger("fastgate.tokens")

MAX_TOKEN: Final = 64 * 1024
"""Octets of a token."""
MAX_OWED: Final = 1000

Channel = Literal["logout", "events"]
"""By which way it comes: logout tokens, or security event tokens."""

Revoke = Callable[..., Awaitable[int]]
"""Takes a claim and its value as a keyword, and `at` (see `Notice`); returns how many token states went.

Raises FastgateError when no more can be noted.
"""


class _Way(NamedTuple):
    kind: NoticeKind
    """Of what could not be read."""
    read: Callable[[Signed, Mapping[str, Any], Notifier, float], Notice | Refusal]


_WAYS: Final[Mapping[Channel, _Way]] = {
    "logout": _Way(NoticeKind.LOGOUT, logout_token.read),
    "events": _Way(NoticeKind.SECURITY_EVENT, security_event.read),
}


class NoticeSource:
    """One identity provider on one channel."""

    __slots__ = (
        "_clock",
        "_keys",
        "_owed",
        "_payload",
        "_quiet",
        "_revoke",
        "_seen",
        "_stats",
        "_timeout",
        "_way",
        "name",
        "notifier",
    )

    def __init__(
        self,
        provider: IdentityProvider,
        notifier: Notifier,
        channel: Channel,
        keys: Keys,
        *,
        clock: Clock,
        stats: Stats,
        seen: Seen,
        revoke: Revoke,
    ) -> None:
        # Only who hears of logouts pays for what verifies signatures: 8 MB, and a tenth of a second at the start.
        from fastgate.tokens.signature import payload  # noqa: PLC0415

        self._payload = payload
        self.name: Final = provider.name
        self.notifier: Final = notifier
        self._timeout = provider.timeout
        self._way = _WAYS[channel]
        self._keys = keys
        self._clock = clock
        self._stats = stats
        self._seen = seen
        self._revoke = revoke
        self._quiet = Quiet(clock)
        self._owed: set[str] = set()
        """Seen, but not taken for want of room: no replays when they come again."""

    async def take(self, compact: str) -> Notice | Refusal:
        """Verify a token and revoke what it says; a refusal changes nothing.

        Raises IntrospectionError within the provider's timeout (whether it is genuine cannot be known now) and
        FastgateError (there is no room for what it revokes); the same token may come again after either.
        """
        try:
            taken = await self._take(compact)
        except IntrospectionError as error:
            self._note(self._way.kind, "unverifiable", error.detail)
            raise
        except FastgateError as error:
            self._note(self._way.kind, "no_room", str(error))
            raise
        if isinstance(taken, Refusal):
            return self.refuse(taken)
        self._stats.notices.add(self.name, str(taken.kind), "accepted" if taken.revocations else "acknowledged")
        by = [claim for claim, _ in taken.revocations]
        log.info("notice_taken", identity_provider=self.name, kind=str(taken.kind), revoked_by=by)
        return taken

    def status(self) -> dict[str, Any]:
        """For the status page."""
        return {"keys": self._keys.count, "problem": self._keys.problem}

    def refuse(self, refusal: Refusal) -> Refusal:
        """Count and log a refusal, also one that others decided on."""
        self._note(self._way.kind, str(refusal.reason), refusal.detail)
        return refusal

    def _note(self, kind: NoticeKind, outcome: str, detail: str) -> None:
        self._stats.notices.add(self.name, str(kind), outcome)
        suppressed = self._quiet.suppressed(outcome)
        if suppressed is not None:
            log.warning(
                "notice_not_taken",
                identity_provider=self.name,
                kind=str(kind),
                outcome=outcome,
                detail=detail,
                suppressed=suppressed,
            )

    async def _take(self, compact: str) -> Notice | Refusal:
        signed = read_header(compact)
        if isinstance(signed, Refusal):
            return signed
        body = await self._verified(signed, compact)
        if body is None:
            return Refusal(Refused.FORGED, "no key of the issuer made its signature")
        try:
            claims = read_object(body, MAX_TOKEN)
        except IntrospectionError:
            return Refusal(Refused.MALFORMED, "it does not hold a JSON object")
        notice = self._way.read(signed, claims, self.notifier, self._clock.now())
        return notice if isinstance(notice, Refusal) else await self._once(notice)

    async def _verified(self, signed: Signed, compact: str) -> bytes | None:
        try:
            async with asyncio.timeout(self._timeout):
                keys = await self._keys.current()
                body = self._payload(compact, candidates(keys, signed))
                if body is not None or names_one_of(keys, signed):
                    return body
                newer = await self._keys.newer()
        except TimeoutError:
            raise IntrospectionError(Cannot.TIMEOUT, f"no keys within {self._timeout:g} s") from None
        return None if newer is None else self._payload(compact, candidates(newer, signed))

    async def _once(self, notice: Notice) -> Notice | Refusal:
        name = f"{self.notifier.issuer}\0{notice.jti}"
        if name not in self._owed and not await self._seen.first(name, notice.keep):
            return Refusal(Refused.REPLAYED, "one with its jti was taken already")
        try:
            for claim, value in notice.revocations:
                await self._revoke(**{claim: value}, at=notice.at)
        except FastgateError:
            if len(self._owed) < MAX_OWED:
                self._owed.add(name)
            raise
        self._owed.discard(name)
        return notice
