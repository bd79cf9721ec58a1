"""From a checked configuration to the immutable `Snapshot` that requests see."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_network
from ssl import SSLContext
from typing import Final, TypeVar

from fastgate.config.access import compile_access, compile_denials
from fastgate.config.addresses import authority, host_port, url, url_address
from fastgate.config.auth import Auth, effective
from fastgate.config.compile_redis import compile_redis
from fastgate.config.document import Finding, Path
from fastgate.config.load import Config
from fastgate.config.problems import placed
from fastgate.config.provider import Provider
from fastgate.config.schema import Listener
from fastgate.config.service import ConfiguredRoute, ConfiguredService, pattern
from fastgate.config.shadows import shadow_findings
from fastgate.config.tls import TlsTrouble, absolute, client_context, server_context
from fastgate.errors import ConfigError
from fastgate.model import (
    Address,
    Admin,
    ClientAuth,
    Forwarding,
    Freshness,
    HealthCheck,
    IdentityProvider,
    Limits,
    Match,
    Notifier,
    Route,
    Service,
    Settings,
    Snapshot,
    Target,
)
from fastgate.policy.digest import derive_key
from fastgate.policy.routing import build

VIA_DIGITS: Final = 8
T = TypeVar("T")


@dataclass
class _Compiler:
    """What one compilation has at hand and what it finds."""

    config: Config
    findings: list[Finding] = field(default_factory=list)
    contexts: dict[tuple[str | None, bool], SSLContext] = field(default_factory=dict)
    """Towards services: loading the system's certificates takes long, and many services trust the same."""


def compile_snapshot(config: Config) -> Snapshot:
    """Compile everything. Raises ConfigError, for example when a certificate changed since it was checked."""
    compiler = _Compiler(config)
    root = config.root
    providers = {name: _provider(compiler, name, written) for name, written in root.identity_providers.items()}
    services: dict[str, Service] = {}
    routes: list[Route] = []
    places: list[Path] = []
    for index, written in enumerate(root.services):
        service = services[written.name] = _service(compiler, ("services", index), written)
        routes += [
            _route(providers, service, written.auth, route, route.name or f"{written.name}-{number + 1}")
            for number, route in enumerate(written.routes)
        ]
        places += [("services", index, "routes", number) for number in range(len(written.routes))]
    table = build(routes)
    compiler.findings += shadow_findings(table, dict(zip(places, routes, strict=True)))
    settings = _settings(compiler, routes)
    if compiler.findings:
        raise ConfigError(config.file, placed(compiler.findings, config.document))
    return Snapshot(config.version, tuple(routes), table, providers, services, settings)


def _provider(compiler: _Compiler, name: str, written: Provider) -> IdentityProvider:
    secret = "" if written.client_secret is None else written.client_secret.get_secret_value()
    headers = tuple((key, value.get_secret_value()) for key, value in written.introspection_headers.items())
    post_args = tuple((key, value.get_secret_value()) for key, value in written.introspection_post_args.items())
    if written.ca_file is not None:
        _tls(compiler, ("identity_providers", name), partial(_client_context, compiler, written.ca_file, verify=True))
    digest_key = derive_key(
        secret or written.client_id,
        name,
        written.issuer or "",
        written.introspection_endpoint or "",
        written.client_id,
        written.client_auth,
        written.introspection_hint or "",
        written.introspection_accept,
        *(part for pair in (("headers", ""), *headers, ("post_args", ""), *post_args) for part in pair),
    )
    return IdentityProvider(
        name=name,
        issuer=written.issuer,
        introspection_endpoint=written.introspection_endpoint,
        client_id=written.client_id,
        client_secret=secret,
        client_auth=ClientAuth(written.client_auth),
        hint=written.introspection_hint,
        headers=headers,
        post_args=post_args,
        accept=written.introspection_accept,
        timeout=written.timeout,
        ssl_verify=written.ssl_verify,
        ca_file=None if written.ca_file is None else absolute(compiler.config.directory, written.ca_file),
        allow_http=written.allow_http,
        freshness=Freshness(written.cache_ttl, written.cache_ttl_max, written.cache_ttl_neg),
        ttl_resurrect=written.cache_ttl_resurrect,
        ask_ahead=written.cache_ask_ahead,
        concurrency=written.introspection_concurrency,
        inactive_rate=written.introspection_inactive_rate,
        failures=written.introspection_failures,
        digest_key=digest_key,
        logouts=_logouts(written),
        security_events=_security_events(written),
    )


def _logouts(written: Provider) -> Notifier | None:
    logout = written.backchannel_logout
    if logout is None or written.issuer is None:
        return None
    return Notifier(written.issuer, frozenset(logout.audience or (written.client_id,)), written.jwks_uri)


def _security_events(written: Provider) -> Notifier | None:
    events = written.security_events
    issuer = None if events is None else events.issuer or written.issuer
    if events is None or issuer is None:
        return None
    header = events.authorization_header
    return Notifier(
        issuer,
        frozenset(events.audience or (written.client_id,)),
        events.jwks_uri or written.jwks_uri,
        frozenset({issuer if written.issuer is None else written.issuer}),
        None if header is None else header.get_secret_value(),
    )


def _service(compiler: _Compiler, path: Path, written: ConfiguredService) -> Service:
    parts = url(written.url) if written.url is not None else None
    scheme = "http" if parts is None else parts.scheme
    targets = [(host_port(target.target), target.weight) for target in written.targets]
    if parts is not None:
        origin = url_address(parts)
        targets = targets or [(origin, 100)]
    else:
        origin = targets[0][0]
    tls = None
    if scheme == "https":
        load = partial(_client_context, compiler, written.tls.ca_file, verify=written.tls.verify)
        tls = _tls(compiler, (*path, "tls"), load)
    health = written.health_check
    return Service(
        name=written.name,
        scheme=scheme,
        authority=authority(origin.host, origin.port, scheme),
        path="" if parts is None else parts.path.rstrip("/"),
        targets=tuple(Target(address.host, address.port, weight) for address, weight in targets),
        connect_timeout=written.connect_timeout,
        read_timeout=written.read_timeout,
        write_timeout=written.write_timeout,
        max_connections=written.max_connections,
        idle_timeout=written.idle_timeout,
        tls=tls,
        server_name=(written.tls.server_name or origin.host) if scheme == "https" else None,
        health=HealthCheck(health.path, health.interval, health.timeout, health.unhealthy_after, health.healthy_after),
    )


def _route(
    providers: Mapping[str, IdentityProvider],
    service: Service,
    service_auth: Auth,
    written: ConfiguredRoute,
    name: str,
) -> Route:
    auth = effective(service_auth, written.auth if "auth" in written.model_fields_set else None)
    access = compile_access(auth, providers)
    return Route(
        name=name,
        match=_match(written),
        service=service,
        access=access,
        denials={} if access is None else compile_denials(auth, access.provider, name),
        strip_path=written.strip_path,
        preserve_host=written.preserve_host,
    )


def _match(written: ConfiguredRoute) -> Match:
    return Match(
        paths=tuple(path for path in written.paths if not path.startswith("~")),
        patterns=tuple(pattern(path) for path in written.paths if path.startswith("~")),
        methods=frozenset(written.methods),
        hosts=tuple(written.hosts),
        headers=tuple(
            (name.lower().encode("ascii"), frozenset(value.encode("ascii") for value in values))
            for name, values in written.headers.items()
        ),
    )


def _settings(compiler: _Compiler, routes: list[Route]) -> Settings:
    config, root = compiler.config, compiler.config.root
    many = len(root.listen) > 1
    admin = None
    if root.admin is not None:
        token = None if root.admin.token is None else root.admin.token.get_secret_value()
        admin = Admin(_listener(compiler, ("admin", "listen"), root.admin.listen), token)
    identity = {header.name for route in routes if route.access is not None for header in route.access.headers}
    return Settings(
        listen=tuple(
            _listener(compiler, ("listen", index) if many else ("listen",), listener)
            for index, listener in enumerate(root.listen)
        ),
        admin=admin,
        events=None if root.events is None else _listener(compiler, ("events", "listen"), root.events.listen),
        limits=Limits(**root.limits.model_dump()),
        forwarding=Forwarding(
            trusted=tuple(ip_network(network) for network in root.trusted_addresses),
            via=(root.via or f"fastgate-{config.version[:VIA_DIGITS]}").encode("ascii"),
            protected=frozenset(name.lower() for name in identity),
        ),
        max_entries=root.cache.memory.max_entries,
        revocation_ttl=root.cache.revocation_ttl,
        redis=_tls(compiler, ("cache", "redis", "tls"), partial(compile_redis, root, config.directory)),
        log_format=root.log.format,
        access_log=root.log.access,
        express_lane=root.express_lane,
        workers=root.workers,
        worker_timeout=root.worker_timeout,
    )


def _listener(compiler: _Compiler, path: Path, written: Listener) -> Address:
    host, port = host_port(written.address, any_host=True)
    if written.tls is None:
        return Address(host, port)
    load = partial(server_context, written.tls, compiler.config.directory)
    return Address(host, port, _tls(compiler, (*path, "tls"), load))


def _client_context(compiler: _Compiler, ca_file: str | None, *, verify: bool) -> SSLContext:
    key = (ca_file, verify)
    if key not in compiler.contexts:
        compiler.contexts[key] = client_context(compiler.config.directory, ca_file, verify=verify)
    return compiler.contexts[key]


def _tls(compiler: _Compiler, path: Path, load: Callable[[], T]) -> T | None:
    """What needs certificates, or None and a finding: then there will be no snapshot."""
    try:
        return load()
    except TlsTrouble as trouble:
        compiler.findings.append(Finding((*path, trouble.key), trouble.message))
        return None
