"""HTTP towards one identity provider: pooled, bounded, and every foreign error mapped at this door."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiohttp import http_exceptions
from multidict import CIMultiDict

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import IdentityProvider
from fastgate.policy.discovery import MAX_METADATA
from fastgate.policy.introspection import MAX_BODY
from fastgate.tokens.quiet_pool import REUSED, QuietConnector

IDLE_SECONDS: Final = 30.0
DNS_SECONDS: Final = 60


class Answer(NamedTuple):
    """A whole answer of the identity provider."""

    status: int
    content_type: str
    retry_after: float | None
    """Seconds, where the answer asks for some (RFC 9110 section 10.2.3; a date is not understood)."""
    body: bytes


class _Question(NamedTuple):
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    max_answer: int
    """Octets."""


class Client:
    """Asks, and returns a whole answer of bounded size. The caller owns the deadline.

    No proxy of the environment, no cookies, no redirects, no decompression. A kept-alive connection that dies
    before the answer's head is replaced once, by a new one; nothing else is asked twice.
    Raises IntrospectionError: UNAVAILABLE (no name, no connection, TLS, connection lost) or MALFORMED (not
    HTTP, cut short, too large, compressed).
    """

    __slots__ = ("_ca_file", "_fresh", "_pooled", "_ssl_verify")

    def __init__(self, provider: IdentityProvider) -> None:
        """Open nothing yet: the first question makes the session, inside the running loop."""
        self._ssl_verify = provider.ssl_verify
        self._ca_file = provider.ca_file
        self._pooled: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def get(self, url: str) -> Answer:
        """GET a metadata document, or a key set, of at most MAX_METADATA octets."""
        headers = {"Accept": "application/json"}
        return await self._send(_Question("GET", url, headers, None, MAX_METADATA))

    async def post(self, url: str, headers: Mapping[str, str], form: bytes) -> Answer:
        """POST a form; `headers` say what it is and who we are. The answer has at most MAX_BODY octets."""
        return await self._send(_Question("POST", url, headers, form, MAX_BODY))

    async def reach(self, url: str) -> None:
        """Connect to the origin of `url` and leave again: somebody listens there, more is not proved."""
        origin = urlsplit(url)
        port = origin.port or (443 if origin.scheme == "https" else 80)
        try:
            _, writer = await asyncio.open_connection(origin.hostname, port)
        except OSError as error:
            raise IntrospectionError(Cannot.UNAVAILABLE, _why(error)) from None
        writer.close()

    async def close(self) -> None:
        """Close every connection. A later question opens new ones."""
        sessions = [session for session in (self._pooled, self._fresh) if session is not None]
        self._pooled = self._fresh = None
        for session in sessions:
            await session.close()

    async def _send(self, question: _Question) -> Answer:
        REUSED.set(False)
        try:
            try:
                return await _exchange(self._session(), question)
            except aiohttp.ClientConnectionError:
                if not REUSED.get():
                    raise
                return await _exchange(self._retry_session(), question)
        # `from None`: these exceptions quote what the peer sent.
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise IntrospectionError(Cannot.UNAVAILABLE, _why(error)) from None
        except (aiohttp.ClientPayloadError, http_exceptions.HttpProcessingError):
            raise IntrospectionError(Cannot.MALFORMED, "the answer's body is broken or cut short") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise IntrospectionError(Cannot.MALFORMED, f"the answer is not HTTP ({type(error).__name__})") from None

    def _session(self) -> aiohttp.ClientSession:
        if self._pooled is None:
            self._pooled = self._open(keepalive_timeout=IDLE_SECONDS)
        return self._pooled

    def _retry_session(self) -> aiohttp.ClientSession:
        """Where no connection is ever old: what killed one kept-alive connection may have killed them all."""
        if self._fresh is None:
            self._fresh = self._open(force_close=True)
        return self._fresh

    def _open(self, **connector: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=QuietConnector(limit=0, ttl_dns_cache=DNS_SECONDS, ssl=self._tls(), **connector),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            trust_env=False,
            auto_decompress=False,
        )

    def _tls(self) -> ssl.SSLContext | bool:
        if not self._ssl_verify:
            return False
        if self._ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except OSError:
            raise IntrospectionError(Cannot.UNAVAILABLE, "its ca_file cannot be loaded") from None


async def _exchange(session: aiohttp.ClientSession, question: _Question) -> Answer:
    headers = CIMultiDict(question.headers)
    headers.setdefault("User-Agent", "fastgate")
    # A compressed answer must be inflated before its size is known: none is asked for, none is taken.
    headers["Accept-Encoding"] = "identity"
    async with session.request(
        question.method,
        question.url,
        headers=headers,
        data=question.body,
        allow_redirects=False,
    ) as response:
        return Answer(
            response.status,
            ", ".join(response.headers.getall("Content-Type", ())),
            _retry_after(response.headers.get("Retry-After", "")),
            await _body(response, question.max_answer),
        )


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    for coding in response.headers.getall("Content-Encoding", ()):
        if coding.strip().lower() not in {"", "identity"}:
            raise IntrospectionError(Cannot.MALFORMED, "the answer is compressed")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise IntrospectionError(Cannot.MALFORMED, f"the answer is longer than {limit} octets")
    return bytes(body)


def _retry_after(value: str) -> float | None:
    # Six digits are eleven days; whatever is longer is no wish that anybody could mean.
    return float(value) if value.isascii() and value.isdigit() and len(value) <= 6 else None  # noqa: PLR2004


def _why(error: Exception) -> str:
    """Say in our own words why a connection failed; nothing of the peer's."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate was refused"
        case aiohttp.ClientSSLError():
            return "the TLS handshake failed"
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorError():
            return "it cannot be connected to"
        case _:
            return "the connection was lost before an answer"
