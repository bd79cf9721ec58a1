"""The whole file as a typed schema. What concerns several sections at once is in `checks.py`."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from fastgate.config.addresses import host_port
from fastgate.config.provider import Provider
from fastgate.config.redis import Redis
from fastgate.config.service import ConfiguredService
from fastgate.config.units import Count, Duration, NotAFlag, PositiveDuration, Size
from fastgate.config.words import FileName, Name, SecretValue, Section, Token

MAX_WORKERS: Final = 512
ADDRESS_HINT: Final = "must be host:port, such as 127.0.0.1:8000, or {address: ..., tls: {...}}"


class ListenerTls(Section):
    """TLS towards clients; TLS 1.2 at least."""

    certificate: Annotated[FileName, Field(description="Certificate chain (PEM).")]
    key: Annotated[FileName, Field(description="Private key (PEM), not encrypted.")]
    client_ca: Annotated[
        FileName | None, Field(description="Certificates (PEM); clients must then show one signed by these.")
    ] = None


def _address(text: str) -> str:
    host_port(text, any_host=True)
    return text


class Listener(Section):
    """Where to listen; written as a mapping, or just as its address."""

    address: Annotated[
        str,
        AfterValidator(_address),
        Field(description="`host:port`, `[::1]:port`, or `:port` for every interface."),
    ]
    tls: Annotated[ListenerTls | None, Field(description="Listen with TLS.")] = None


def listener(written: Any) -> Any:
    """A listener as a mapping, however it was written."""
    if isinstance(written, str):
        return {"address": written}
    if not isinstance(written, dict | Listener):
        raise ValueError(ADDRESS_HINT)  # noqa: TRY004 - pydantic collects ValueErrors
    return written


def listeners(written: Any) -> Any:
    """A list of listeners, whether one or several were written."""
    return written if isinstance(written, list) else [written]


OneListener = Annotated[Listener, BeforeValidator(listener)]


class Admin(Section):
    """The operators' listener: health, metrics, status, revocation, reload."""

    listen: Annotated[OneListener, Field(description="Where operators reach it.")] = Listener(address="127.0.0.1:8001")
    token: Annotated[
        SecretValue | None,
        Field(description="Bearer token it asks for; required when `listen` is not a loopback address."),
    ] = None


class Events(Section):
    """A listener for identity providers alone: for what the admin listener takes from them as well."""

    listen: Annotated[OneListener, Field(description="Where identity providers reach it.")]


class Limits(Section):
    """Bounds towards clients."""

    request_line: Annotated[Size, Field(description="Longest request line.")] = 16 * 1024
    header_field: Annotated[Size, Field(description="Longest header line.")] = 16 * 1024
    header_section: Annotated[Size, Field(description="All header lines together.")] = 64 * 1024
    header_count: Annotated[Count, Field(description="Header lines.")] = 128
    connections: Annotated[Count, Field(description="Client connections open at once.")] = 10_000
    header_timeout: Annotated[
        PositiveDuration, Field(description="From the first octet of a request's head to its last.")
    ] = 10.0
    body_timeout: Annotated[
        PositiveDuration, Field(description="How long a request's body may stand still, or drip: see `body_rate`.")
    ] = 60.0
    body_rate: Annotated[
        int,
        NotAFlag,
        Field(
            ge=0,
            le=1_000_000,
            description="Octets a second, on average over each `body_timeout`, below which a "
            "request's body is given up; 0: any that moves is waited for.",
        ),
    ] = 100
    keepalive_timeout: Annotated[
        PositiveDuration, Field(description="How long an unused client connection stays open.")
    ] = 75.0
    drain_timeout: Annotated[
        PositiveDuration, Field(description="How long open requests may take to finish after SIGTERM.")
    ] = 30.0


class MemoryCache(Section):
    """The memory tier."""

    max_entries: Annotated[
        Count, Field(description="Active tokens remembered; inactive ones have a tenth of it to themselves.")
    ] = 100_000


class Cache(Section):
    """What is remembered."""

    memory: Annotated[MemoryCache, Field(description="In this process.")] = MemoryCache()
    redis: Annotated[Redis | None, Field(description="Shared between workers and hosts.")] = None
    revocation_ttl: Annotated[
        Duration,
        Field(description="How long a revocation is remembered when the tokens it covers state no `exp`."),
    ] = 86_400.0


class Log(Section):
    """What is written to standard error and standard output."""

    format: Annotated[Literal["json", "console"], Field(description="For machines or for people.")] = "json"
    access: Annotated[bool, Field(description="One line per request; never with a token or a query.")] = True


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(
            "must be an address or a network, such as 10.0.0.0/8, with no bits set after the prefix"
        ) from None
    return text


def _workers(written: Any) -> Any:
    if isinstance(written, bool) or (isinstance(written, str) and written != "auto" and not written.isdecimal()):
        raise ValueError("must be a number of processes, or auto")
    return None if written == "auto" else written


def _admin(written: Any) -> Any:
    return None if written is False else written


class Root(Section):
    """The file."""

    listen: Annotated[
        tuple[OneListener, ...],
        BeforeValidator(listeners),
        Field(min_length=1, description="Where clients reach the gateway: one address or a list."),
    ] = (Listener(address="127.0.0.1:8000"),)
    admin: Annotated[
        Admin | None,
        BeforeValidator(_admin),
        Field(description="The operators' listener; `false`: none."),
    ] = Admin()
    events: Annotated[
        Events | None,
        Field(description="A listener for what identity providers send, where they do not reach the admin listener."),
    ] = None
    workers: Annotated[
        Annotated[int, Field(ge=1, le=MAX_WORKERS)] | None,
        BeforeValidator(_workers),
        Field(
            description="Processes that serve, or `auto`: one per core that the machine or its container grants. "
            "Limits, sizes of caches, and what is allowed at an identity provider hold for each of them."
        ),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}, {"const": "auto"}]}),
    ] = 1
    worker_timeout: Annotated[
        PositiveDuration,
        Field(description="A process that gives no sign of life for so long (it gives one every second) is replaced."),
    ] = 10.0
    identity_providers: Annotated[Mapping[Name, Provider], Field(description="Authorization servers by name.")] = {}
    cache: Annotated[Cache, Field(description="What is remembered.")] = Cache()
    services: Annotated[tuple[ConfiguredService, ...], Field(min_length=1, description="Where requests lead.")]
    limits: Annotated[Limits, Field(description="Bounds towards clients.")] = Limits()
    express_lane: Annotated[
        bool,
        Field(
            description="Pass usual requests on without detours. Off, all take the general lane: same behaviour, three "
            "times the cost; for comparing and for finding faults."
        ),
    ] = True
    trusted_addresses: Annotated[
        tuple[Annotated[str, AfterValidator(_network)], ...],
        Field(description="Addresses and networks whose X-Forwarded-* headers are kept."),
    ] = ()
    via: Annotated[
        Token | None,
        Field(description="Our pseudonym in Via; null: `fastgate-` and a digest of the configuration."),
    ] = None
    log: Annotated[Log, Field(description="What is logged and how.")] = Log()
