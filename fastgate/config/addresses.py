"""Where things are: URLs, host:port addresses and networks, checked the same way everywhere."""

import re
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_URL_TEXT: Final = re.compile(r"[!-~]+")
_PORT: Final = re.compile(r"[0-9]{1,5}")
MAX_HOST: Final = 253


class HostPort(NamedTuple):
    """A host (IPv6 without brackets) and a port."""

    host: str
    port: int


def host_port(text: str, *, any_host: bool = False) -> HostPort:
    """`host:port` or `[::1]:port`; `:port` (every interface) with `any_host`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535:  # noqa: PLR2004 - the last port there is
        raise ValueError("must be host:port with a port from 0 to 65535, such as 127.0.0.1:8000")
    if host.startswith("[") and host.endswith("]"):
        return HostPort(_ipv6(host[1:-1]), int(port))
    if not host and any_host:
        return HostPort("", int(port))
    return HostPort(plain_host(host), int(port))


def plain_host(host: str) -> str:
    """A host name or IPv4 address in lower case; raises ValueError."""
    if ":" in host:
        raise ValueError("must have an IPv6 address in square brackets, such as [::1]:8000")
    if not host.isascii():
        raise ValueError("must have its host in ASCII; write an international name in its xn-- form")
    if len(host) > MAX_HOST or not all(map(_LABEL.fullmatch, host.removesuffix(".").split("."))):
        raise ValueError("has no valid host name")
    return host.lower()


def _ipv6(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        raise ValueError("has no valid IPv6 address between its brackets") from None


def url(text: str, *, query: bool = False) -> SplitResult:
    """An absolute http or https URL without user name and fragment, and without a query unless it is allowed."""
    if not _URL_TEXT.fullmatch(text):
        raise ValueError("must be a URL of printable ASCII characters without spaces")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL that starts with https:// or http:// and names a host")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password")
    if "#" in text:
        raise ValueError("must not hold a fragment (#)")
    if "?" in text and not query:
        raise ValueError("must not hold a query (?)")
    if port == 0:
        raise ValueError("must not name port 0")
    if "[" in parts.netloc:
        _ipv6(parts.hostname)
    else:
        plain_host(parts.hostname)
    return parts


def url_address(parts: SplitResult) -> HostPort:
    """Host and port that a checked URL leads to."""
    return HostPort(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def authority(host: str, port: int, scheme: str) -> str:
    """The value of Host for an address: the port is left out where the scheme implies it (RFC 9110 section 4.2)."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port == {"http": 80, "https": 443}.get(scheme) else f"{shown}:{port}"


def is_loopback(host: str) -> bool:
    """The host can be reached from this machine only."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
