"""What identity providers tell of their own accord: every source, through reloads."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

from fastgate.clock import Clock
from fastgate.errors import IntrospectionError
from fastgate.model import IdentityProvider, Notifier
from fastgate.stats import Stats
from fastgate.tokens.keys import Keys
from fastgate.tokens.notice_source import Channel, NoticeSource, Revoke
from fastgate.tokens.seen import Seen

log: Final = structlog.get_logger("fastgate.tokens")


class Notifications:
    """Every source of the configuration in force; those of a former one end what they began."""

    __slots__ = ("_clock", "_closing", "_keys", "_revoke", "_seen", "_sources", "_stats")

    def __init__(
        self, providers: Mapping[str, IdentityProvider], *, clock: Clock, stats: Stats, seen: Seen, revoke: Revoke
    ) -> None:
        """Open nothing yet. Made inside the running loop."""
        self._clock = clock
        self._stats = stats
        self._seen = seen
        self._revoke = revoke
        self._keys: dict[tuple[IdentityProvider, str | None], Keys] = {}
        self._sources: dict[tuple[str, Channel], NoticeSource] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.swap(providers)

    def source(self, name: str, channel: Channel) -> NoticeSource | None:
        """Return who sends on this channel under the name of a provider; None: nobody does."""
        return self._sources.get((name, channel))

    def swap(self, providers: Mapping[str, IdentityProvider]) -> None:
        """Take a new configuration: unchanged providers keep their keys."""
        former, self._keys = self._keys, {}
        self._sources = {
            (provider.name, channel): self._source(provider, channel, notifier, former)
            for provider in providers.values()
            for channel, notifier in notifiers(provider)
        }
        for key in former.keys() - self._keys.keys():
            task = asyncio.get_running_loop().create_task(_close_later(former[key], key[0].timeout))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def meet(self) -> None:
        """Get every key set once: the first logout need not wait for it, and what is wrong is said at once."""
        await asyncio.gather(*(_meet(provider, keys) for (provider, _), keys in self._keys.items()))

    def status(self) -> dict[str, Any]:
        """For the status page: by provider and channel, how many keys are known and why none newer could be had."""
        return {f"{name}/{channel}": source.status() for (name, channel), source in self._sources.items()}

    async def close(self) -> None:
        """Close every connection."""
        for task in list(self._closing):
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await asyncio.gather(*(keys.close() for keys in self._keys.values()))

    def _source(
        self,
        provider: IdentityProvider,
        channel: Channel,
        notifier: Notifier,
        former: Mapping[tuple[IdentityProvider, str | None], Keys],
    ) -> NoticeSource:
        key = (provider, notifier.jwks_uri)
        if key not in self._keys:
            self._keys[key] = former.get(key) or Keys(provider, notifier.jwks_uri, self._clock)
        return NoticeSource(
            provider,
            notifier,
            channel,
            self._keys[key],
            clock=self._clock,
            stats=self._stats,
            seen=self._seen,
            revoke=self._revoke,
        )


def notifiers(provider: IdentityProvider) -> list[tuple[Channel, Notifier]]:
    """List the channels on which a provider may tell something."""
    written: tuple[tuple[Channel, Notifier | None], ...] = (
        ("logout", provider.logouts),
        ("events", provider.security_events),
    )
    return [(channel, notifier) for channel, notifier in written if notifier is not None]


async def _meet(provider: IdentityProvider, keys: Keys) -> None:
    try:
        await keys.current()
    except IntrospectionError as error:
        log.warning(
            "identity_provider_keys_missing",
            identity_provider=provider.name,
            detail=error.detail,
            advice="until they can be had, logouts and security events are answered 503",
        )


async def _close_later(keys: Keys, seconds: float) -> None:
    """Close when whoever uses them has met its deadline."""
    try:
        await asyncio.sleep(seconds)
    finally:
        await keys.close()
