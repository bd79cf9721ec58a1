"""`services` and their `routes`: which requests are taken and where they lead."""

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from fastgate.config.addresses import host_port, plain_host, url
from fastgate.config.auth import Auth
from fastgate.config.units import Count, NotAFlag, PositiveDuration
from fastgate.config.words import FileName, Method, Name, Section, Token

_PATH_TEXT: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,=:@/-]*")
_GROUP: Final = re.compile(r"\(\?<(?![=!])")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
MAX_PATTERN: Final = 1024


def _normal_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must start with /")
    if not _PATH_TEXT.fullmatch(path):
        raise ValueError(
            "must be plain: no percent-encoding, spaces, backslashes, ';', '?' or '#'; use ~regex for more"
        )
    if "//" in path or {".", ".."} & set(path.split("/")):
        raise ValueError("must be normal: no empty, '.' or '..' segments")
    return path


def pattern(written: str) -> re.Pattern[str]:
    """The expression of a `~regex` path; Kong's `(?<name>` is Python's `(?P<name>`. Raises ValueError."""
    text = written.removeprefix("~")
    if not text or len(text) > MAX_PATTERN:
        raise ValueError(f"must be a regular expression of 1 to {MAX_PATTERN} characters")
    try:
        return re.compile(_GROUP.sub("(?P<", text), re.ASCII)
    except (re.error, RecursionError, OverflowError) as error:
        reason = getattr(error, "msg", None) or type(error).__name__
        raise ValueError(f"is not a valid regular expression: {reason}") from None


def _route_path(path: str) -> str:
    if path.startswith("~"):
        pattern(path)
        return path
    return _normal_path(path)


def _service_url(text: str) -> str:
    parts = url(text)
    if parts.path:
        _normal_path(parts.path)
    return text


def _target(text: str) -> str:
    if host_port(text).port == 0:
        raise ValueError("must not name port 0")
    return text


def _host(text: str) -> str:
    """A host name, with one `*` as its first or last label; or an IPv6 address in brackets. A port may follow."""
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, colon, port = text, "", ""
    if colon:
        host_port(f"host:{port}")
    if name.startswith("["):
        host_port(f"{name}:1")
        return text.lower()
    bare = name.removeprefix("*.") if name.startswith("*.") else name.removesuffix(".*")
    if "*" in bare:
        raise ValueError("must have at most one *, as the first or the last label: *.example.com or example.*")
    plain_host(bare)
    return f"{name.lower().removesuffix('.')}{colon}{port}"


def _forwardable(method: str) -> str:
    if method in {"CONNECT", "TRACE"}:
        raise ValueError("must not be CONNECT or TRACE: fastgate never forwards those")
    return method


def _field_value(value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise ValueError("must be printable ASCII, not empty, without spaces around it")
    return value


def _matchable(name: str) -> str:
    if name.lower() in {"host", "authorization", "connection", "content-length", "transfer-encoding"}:
        raise ValueError("cannot be matched as a header; `hosts` matches Host")
    return name


class ServiceTarget(Section):
    """One address of a service."""

    target: Annotated[str, AfterValidator(_target), Field(description="`host:port` of the address.")]
    weight: Annotated[
        int, NotAFlag, Field(ge=1, le=65_535, description="Its share of the requests, relative to the others.")
    ] = 100


class ServiceTls(Section):
    """TLS towards the service."""

    verify: Annotated[bool, Field(description="Verify the certificate and the host name.")] = True
    ca_file: Annotated[FileName | None, Field(description="Certificates (PEM) to trust instead of the system's.")] = (
        None
    )
    server_name: Annotated[
        str | None,
        AfterValidator(lambda name: None if name is None else plain_host(name)),
        Field(description="Name to ask for and verify; null: the host of `url`."),
    ] = None


class ServiceHealthCheck(Section):
    """How targets are watched."""

    path: Annotated[
        str | None,
        AfterValidator(lambda path: None if path is None else _normal_path(path)),
        Field(description="Asked with GET every `interval`; null: only failures of real requests count."),
    ] = None
    interval: Annotated[PositiveDuration, Field(description="Time between two checks.")] = 5.0
    timeout: Annotated[PositiveDuration, Field(description="For the answer to one check.")] = 1.0
    unhealthy_after: Annotated[Count, Field(description="Failures in a row after which a target is left out.")] = 3
    healthy_after: Annotated[Count, Field(description="Successes in a row after which a target is back.")] = 1


class ConfiguredRoute(Section):
    """Which requests are taken: all kinds that are given must match, within a kind any value does."""

    name: Annotated[
        Name | None,
        Field(description="For metrics, log and `fastgate routes`; left out: the service's name and a number."),
    ] = None
    paths: Annotated[
        tuple[Annotated[str, AfterValidator(_route_path)], ...],
        Field(description="Prefixes, matched on a segment boundary, or `~regex`, anchored at the start."),
    ] = ()
    methods: Annotated[
        tuple[Annotated[Method, AfterValidator(_forwardable)], ...], Field(description="HTTP methods.")
    ] = ()
    hosts: Annotated[
        tuple[Annotated[str, AfterValidator(_host)], ...],
        Field(
            description="Host names; `*.example.com` and `example.*` are allowed. Without a port every port matches."
        ),
    ] = ()
    headers: Annotated[
        Mapping[
            Annotated[Token, AfterValidator(_matchable)],
            Annotated[tuple[Annotated[str, AfterValidator(_field_value)], ...], Field(min_length=1)],
        ],
        Field(description="Header names with the values that match. Not on a public route."),
    ] = {}
    strip_path: Annotated[
        bool, Field(description="Remove the matched prefix (or the regex's match) before forwarding.")
    ] = False
    preserve_host: Annotated[bool, Field(description="Send the client's Host upstream instead of the service's.")] = (
        False
    )
    auth: Annotated[
        Auth,
        Field(
            description="What a token must be and have, or `none` for a public route; its keys replace the service's."
        ),
    ] = Auth()


class ConfiguredService(Section):
    """An upstream: its address or addresses, its timeouts, its routes."""

    name: Annotated[Name, Field(description="Unique name; it appears in metrics and log.")]
    url: Annotated[
        Annotated[str, AfterValidator(_service_url)] | None,
        Field(
            description="`http://` or `https://` address; a path in it goes before every forwarded path. With "
            "`targets` it gives only scheme, path and Host. This or `targets` is needed."
        ),
    ] = None
    targets: Annotated[
        tuple[ServiceTarget, ...], Field(description="Several addresses instead of the one in `url`.")
    ] = ()
    connect_timeout: Annotated[PositiveDuration, Field(description="For a connection to the service.")] = 5.0
    read_timeout: Annotated[PositiveDuration, Field(description="Idle: between two reads from the service.")] = 60.0
    write_timeout: Annotated[PositiveDuration, Field(description="Idle: between two writes to the service.")] = 60.0
    max_connections: Annotated[Count, Field(description="Connections per target.")] = 1024
    idle_timeout: Annotated[
        PositiveDuration,
        Field(description="How long an unused connection is kept; choose it shorter than the service's own."),
    ] = 55.0
    tls: Annotated[ServiceTls, Field(description="TLS towards an `https://` service.")] = ServiceTls()
    health_check: Annotated[ServiceHealthCheck, Field(description="How targets are watched.")] = ServiceHealthCheck()
    auth: Annotated[
        Auth, Field(description="What a token must be and have, for every route of the service; or `none`.")
    ] = Auth()
    routes: Annotated[
        tuple[ConfiguredRoute, ...], Field(min_length=1, description="Which requests lead to this service.")
    ]
