"""HTTP towards one identity provider: pooled, bounded, and every foreign error mapped at this door.

On aiohttp's connections and its parser, below its session: what that makes of every question anew (URL, fields, a task
that writes) is made once, and a question costs half as much.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiohttp import http_exceptions
from aiohttp.connector import Connection
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import IdentityProvider
from fastgate.policy.discovery import MAX_METADATA
from fastgate.policy.introspection import MAX_BODY
from fastgate.tokens.quiet_pool import REUSED, QuietConnector

IDLE_SECONDS: Final = 30.0
DNS_SECONDS: Final = 60
_JSON: Final = {"Accept": "application/json"}
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=None)
"""The caller has one."""
_FINAL: Final = 200
_SWITCHING: Final = 101


class Answer(NamedTuple):
    """A whole answer of the identity provider."""

    status: int
    content_type: str
    retry_after: float | None
    """Seconds, where the answer asks for some (RFC 9110 section 10.2.3; a date is not understood)."""
    body: bytes


class _Prepared(NamedTuple):
    """What is the same in every question of a kind."""

    headers: Mapping[str, str]
    """From which it was made."""
    request: aiohttp.ClientRequest
    """Says where to connect to."""
    start: bytes
    """Of its head: all but the last field, Content-Length."""
    max_answer: int
    """Octets."""


class Client:
    """Asks, and returns a whole answer of bounded size. The caller owns the deadline.

    No proxy of the environment, no cookies, no redirects, no decompression. A kept-alive connection that dies
    before the answer's head is replaced once, by a new one; nothing else is asked twice.
    Raises IntrospectionError: UNAVAILABLE (no name, no connection, TLS, connection lost) or MALFORMED (not
    HTTP, cut short, too large, compressed).
    """

    __slots__ = ("_ca_file", "_fresh", "_pooled", "_prepared", "_ssl_verify")

    def __init__(self, provider: IdentityProvider) -> None:
        """Open nothing yet: the first question makes the pool, inside the running loop."""
        self._ssl_verify = provider.ssl_verify
        self._ca_file = provider.ca_file
        self._pooled: QuietConnector | None = None
        self._fresh: QuietConnector | None = None
        self._prepared: dict[tuple[str, str], _Prepared] = {}

    async def get(self, url: str) -> Answer:
        """GET a metadata document, or a key set, of at most MAX_METADATA octets."""
        return await self._send("GET", url, _JSON, b"", MAX_METADATA)

    async def post(self, url: str, headers: Mapping[str, str], form: bytes) -> Answer:
        """POST a form; `headers` say what it is and who we are. The answer has at most MAX_BODY octets."""
        return await self._send("POST", url, headers, form, MAX_BODY)

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
        pools = [pool for pool in (self._pooled, self._fresh) if pool is not None]
        self._pooled = self._fresh = None
        for pool in pools:
            await pool.close()

    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes, max_answer: int) -> Answer:
        REUSED.set(False)
        try:
            prepared = self._prepared.get((method, url))
            if prepared is None or prepared.headers is not headers:
                prepared = self._prepared[method, url] = _prepare(method, url, headers, max_answer)
            message = prepared.start + (b"Content-Length: %d\r\n\r\n%b" % (len(body), body) if body else b"\r\n")
            try:
                return await _exchange(self._pool(), prepared, message)
            except aiohttp.ClientConnectionError:
                if not REUSED.get():
                    raise
                return await _exchange(self._retry_pool(), prepared, message)
        # `from None`: these exceptions quote what the peer sent.
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise IntrospectionError(Cannot.UNAVAILABLE, _why(error)) from None
        except (aiohttp.ClientPayloadError, http_exceptions.HttpProcessingError):
            raise IntrospectionError(Cannot.MALFORMED, "the answer's body is broken or cut short") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise IntrospectionError(Cannot.MALFORMED, f"the answer is not HTTP ({type(error).__name__})") from None

    def _pool(self) -> QuietConnector:
        if self._pooled is None:
            self._pooled = self._open(keepalive_timeout=IDLE_SECONDS)
        return self._pooled

    def _retry_pool(self) -> QuietConnector:
        """Where no connection is ever old: what killed one kept-alive connection may have killed them all."""
        if self._fresh is None:
            self._fresh = self._open(force_close=True)
        return self._fresh

    def _open(self, **options: Any) -> QuietConnector:
        return QuietConnector(limit=0, ttl_dns_cache=DNS_SECONDS, ssl=self._tls(), **options)

    def _tls(self) -> ssl.SSLContext | bool:
        if not self._ssl_verify:
            return False
        if self._ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except OSError:
            raise IntrospectionError(Cannot.UNAVAILABLE, "its ca_file cannot be loaded") from None


def _prepare(method: str, url: str, headers: Mapping[str, str], max_answer: int) -> _Prepared:
    """Prepare questions of a kind. Raises what aiohttp raises for a URL or a field that cannot be sent."""
    fields = CIMultiDict(headers)
    fields.setdefault("User-Agent", "fastgate")
    # A compressed answer must be inflated before its size is known: none is asked for, none is taken.
    fields["Accept-Encoding"] = "identity"
    request = aiohttp.ClientRequest(method, URL(url), headers=fields, loop=asyncio.get_running_loop())
    request.headers.popall("Content-Length", None)
    lines = (f"{method} {request.url.raw_path_qs} HTTP/1.1", *(": ".join(each) for each in request.headers.items()))
    if any(forbidden in line for line in lines for forbidden in "\r\n\0"):
        raise ValueError("a field that is none")
    return _Prepared(headers, request, "".join(f"{line}\r\n" for line in lines).encode(), max_answer)


async def _exchange(pool: QuietConnector, prepared: _Prepared, message: bytes) -> Answer:
    connection = await pool.connect(prepared.request, [], _NO_TIMEOUT)
    try:
        answer = await _ask(connection, prepared, message)
    except BaseException:
        connection.close()
        raise
    connection.release()
    return answer


async def _ask(connection: Connection, prepared: _Prepared, message: bytes) -> Answer:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise aiohttp.ClientConnectionResetError("closed before it was used")
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)
    transport.write(message)
    status = 0
    while not (status >= _FINAL or status == _SWITCHING):
        try:
            head, payload = await protocol.read()
        except http_exceptions.HttpProcessingError:
            raise IntrospectionError(Cannot.MALFORMED, "the answer is not HTTP") from None
        status = head.code
    return Answer(
        status,
        ", ".join(head.headers.getall("Content-Type", ())),
        _retry_after(head.headers.get("Retry-After", "")),
        await _body(head.headers, payload, prepared.max_answer),
    )


async def _body(headers: "CIMultiDictProxy[str]", payload: aiohttp.StreamReader, limit: int) -> bytes:
    for coding in headers.getall("Content-Encoding", ()):
        if coding.strip().lower() not in {"", "identity"}:
            raise IntrospectionError(Cannot.MALFORMED, "the answer is compressed")
    body = bytearray()
    async for chunk in payload.iter_any():
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
