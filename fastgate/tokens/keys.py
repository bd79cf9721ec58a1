"""The keys with which an identity provider signs what it tells us of its own accord (RFC 7517)."""

from typing import Final

from fastgate.clock import Clock
from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import IdentityProvider
from fastgate.policy.signed import Key, read_key_set
from fastgate.tokens.client import Client
from fastgate.tokens.discovery import OK, Discovery, refuse_plaintext
from fastgate.tokens.learned import Learned

UNKNOWN_KEY_SECONDS: Final = 5.0
"""Between two looks for a key that a token names and that is not there."""


class Keys:
    """One key set: asked for on demand, refreshed in the background, kept while it cannot be had again.

    Has connections of its own: a crowd of introspections does not hold back a logout.
    """

    __slots__ = ("_client", "_discovery", "_jwks_uri", "_learned", "_provider")

    def __init__(self, provider: IdentityProvider, jwks_uri: str | None, clock: Clock) -> None:
        """Open nothing yet. `jwks_uri` None: what the metadata of the provider's issuer say."""
        self._provider = provider
        self._jwks_uri = jwks_uri
        self._client = Client(provider)
        self._discovery = Discovery(provider, self._client, clock)
        self._learned = Learned("keys", self._ask, provider.timeout, clock)

    @property
    def count(self) -> int:
        """How many keys are known."""
        return len(self._learned.known or ())

    @property
    def problem(self) -> str | None:
        """Why the last attempt to get them failed, in our own words."""
        return self._learned.problem

    async def current(self) -> tuple[Key, ...]:
        """Return the keys. Raises IntrospectionError within the provider's timeout when there are none to be had."""
        return await self._learned.get()

    async def newer(self) -> tuple[Key, ...] | None:
        """Ask again, for a key that is not among them; None: not now, that was done a moment ago.

        Raises IntrospectionError: whether there is such a key cannot be known.
        """
        return await self._learned.newer(UNKNOWN_KEY_SECONDS)

    async def close(self) -> None:
        """Close every connection."""
        await self._learned.close()
        await self._discovery.close()
        await self._client.close()

    async def _ask(self) -> tuple[Key, ...]:
        uri = self._jwks_uri or (await self._discovery.metadata()).jwks_uri
        if uri is None:
            raise IntrospectionError(Cannot.MALFORMED, "the metadata name no usable jwks_uri; configure one")
        # Whoever can change the keys on the way can sign: they come by the ways that credentials may go.
        refuse_plaintext(uri, self._provider)
        try:
            return await self._fetch(uri)
        except IntrospectionError:
            self._discovery.doubt()
            raise

    async def _fetch(self, uri: str) -> tuple[Key, ...]:
        answer = await self._client.get(uri)
        if answer.status != OK:
            raise IntrospectionError(Cannot.UNAVAILABLE, f"status {answer.status}", answer.retry_after)
        return read_key_set(answer.body)
