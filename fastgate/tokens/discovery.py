"""Where the introspection endpoint is: as configured, or learned from the issuer's metadata, on demand."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from fastgate.clock import Clock
from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import IdentityProvider
from fastgate.policy import discovery
from fastgate.policy.discovery import Metadata
from fastgate.tokens.client import Answer, Client
from fastgate.tokens.learned import Learned

OK: Final = 200


class Discovery:
    """The metadata of one issuer (OpenID Connect Discovery 4, RFC 8414 section 3)."""

    __slots__ = ("_client", "_learned", "_provider")

    def __init__(self, provider: IdentityProvider, client: Client, clock: Clock) -> None:
        self._provider = provider
        self._client = client
        self._learned = Learned("discovery", self._ask, provider.timeout, clock)

    @property
    def learned(self) -> bool:
        """Whether the metadata are known."""
        return self._learned.known is not None

    async def metadata(self) -> Metadata:
        """Return what the issuer says of itself. The caller owns the deadline; raises IntrospectionError."""
        return await self._learned.get()

    def doubt(self) -> None:
        """Read the metadata again soon: the endpoint failed, and may have moved."""
        self._learned.doubt()

    async def close(self) -> None:
        """Stop whatever is under way."""
        await self._learned.close()

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
                    self._refuse_without_endpoint(metadata)
                    return metadata
            except IntrospectionError as error:
                if error.kind is not Cannot.MALFORMED:
                    raise  # the next place is on the same server, and out of reach as well
                # A document that is there and wrong tells more than one that is not there.
                failure = error
            else:
                failure = failure or _unusable(answer)
        raise failure or IntrospectionError(Cannot.UNAVAILABLE, "there is no place to ask")

    def _refuse_without_endpoint(self, metadata: Metadata) -> None:
        """Raise for metadata that lead nowhere; who configured an endpoint needs none of theirs."""
        if self._provider.introspection_endpoint is None:
            if not metadata.introspection_endpoint:
                detail = "the metadata name no introspection_endpoint; configure one"
                raise IntrospectionError(Cannot.MALFORMED, detail)
            refuse_plaintext(metadata.introspection_endpoint, self._provider)


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
