"""Where the introspection endpoint is: as configured, or learned from the issuer's metadata, on demand."""

import asyncio
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from fastgate.clock import Clock
from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import IdentityProvider
from fastgate.policy import discovery
from fastgate.policy.discovery import Metadata
from fastgate.tokens.client import Answer, Client
from fastgate.tokens.flight import Flights

RETRY_SECONDS: Final = 1.0
"""Between two attempts while nothing was learned yet."""
RETRY_SECONDS_MAX: Final = 60.0
"""However long the server asks us to wait, and between attempts to refresh what was learned."""
REFRESH_SECONDS: Final = 3600.0
DOUBT_SECONDS: Final = 30.0
"""Metadata are read again, at most this often, when the endpoint fails."""
OK: Final = 200


class Discovery:
    """The metadata of one issuer (OpenID Connect Discovery 4, RFC 8414 section 3): one load at a time.

    Learned metadata are used until newer ones have come: refreshing happens in the background, and its
    failure changes nothing.
    """

    __slots__ = (
        "_asked_at",
        "_client",
        "_clock",
        "_failure",
        "_flights",
        "_metadata",
        "_provider",
        "_refresh_at",
        "_retry_at",
    )

    def __init__(self, provider: IdentityProvider, client: Client, clock: Clock) -> None:
        self._provider = provider
        self._client = client
        self._clock = clock
        self._flights: Flights[None, Metadata] = Flights()
        self._metadata: Metadata | None = None
        self._asked_at = 0.0
        self._refresh_at = 0.0
        self._failure: IntrospectionError | None = None
        self._retry_at = 0.0

    @property
    def learned(self) -> bool:
        """Whether the endpoint is known."""
        return self._metadata is not None

    async def metadata(self) -> Metadata:
        """Return what the issuer says of itself. The caller owns the deadline; raises IntrospectionError."""
        now = self._clock.monotonic()
        if self._metadata is not None:
            if now >= self._refresh_at:
                self._refresh_at = now + RETRY_SECONDS_MAX  # should this attempt fail
                self._flights.start(None, self._load)
            return self._metadata
        if self._failure is not None and now < self._retry_at:
            raise IntrospectionError(self._failure.kind, self._failure.detail, self._retry_at - now)
        return await self._flights.join(None, self._load)

    def doubt(self) -> None:
        """Read the metadata again soon: the endpoint failed, and may have moved."""
        self._refresh_at = min(self._refresh_at, self._asked_at + DOUBT_SECONDS)

    async def close(self) -> None:
        """Stop whatever is under way."""
        await self._flights.close()

    async def _load(self) -> Metadata:
        self._asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._provider.timeout):
                metadata = await self._ask()
        except TimeoutError:
            failure = IntrospectionError(Cannot.TIMEOUT, "discovery: no answer in time")
        except IntrospectionError as error:
            failure = IntrospectionError(error.kind, f"discovery: {error.detail}", error.retry_after)
        else:
            self._metadata, self._failure = metadata, None
            self._refresh_at = self._clock.monotonic() + REFRESH_SECONDS
            return metadata
        self._failure = failure
        wait = min(max(failure.retry_after or 0.0, RETRY_SECONDS), RETRY_SECONDS_MAX)
        self._retry_at = self._clock.monotonic() + wait
        raise failure

    async def _ask(self) -> Metadata:
        """Every well-known place in turn; the first document that names this very issuer is the answer."""
        issuer = self._provider.issuer
        if issuer is None:
            raise IntrospectionError(Cannot.UNAVAILABLE, "neither an issuer nor an endpoint is configured")
        failure: IntrospectionError | None = None
        for url in discovery.metadata_urls(issuer):
            try:
                refuse_plaintext(url, self._provider)
                answer = await self._client.get(url)
                if answer.status == OK:
                    metadata = discovery.decode(issuer, answer.body)
                    refuse_plaintext(metadata.introspection_endpoint, self._provider)
                    return metadata
            except IntrospectionError as error:
                if error.kind is not Cannot.MALFORMED:
                    raise  # the next place is on the same server, and out of reach as well
                # A document that is there and wrong tells more than one that is not there.
                failure = error
            else:
                failure = failure or _unusable(answer)
        raise failure or IntrospectionError(Cannot.UNAVAILABLE, "there is no place to ask")


def refuse_plaintext(url: str, provider: IdentityProvider) -> None:
    """Refuse an address to which credentials would go in the clear (RFC 7662 4): http: beyond loopback.

    Also refuses what is no http address or carries credentials of its own.
    Raises IntrospectionError (MALFORMED).
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"} or "@" in parts.netloc or parts.fragment:
        raise IntrospectionError(Cannot.MALFORMED, "the address is not one to send credentials to")
    if parts.scheme == "http" and not provider.allow_http and not _loopback(host):
        raise IntrospectionError(Cannot.MALFORMED, "the address is http:, and allow_http is not set")


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unusable(answer: Answer) -> IntrospectionError:
    return IntrospectionError(Cannot.UNAVAILABLE, f"status {answer.status}", answer.retry_after)
