"""What concerns several keys at once: references, names used twice, combinations that make no sense.

Each check reads what is valid and is skipped where it would read what is not (see `known.py`), so that all problems
of a file come out together.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fastgate.config.addresses import HostPort, host_port, is_loopback, url
from fastgate.config.auth_checks import protection, upstream_headers
from fastgate.config.document import Finding, Path
from fastgate.config.known import each, items, known, value_of
from fastgate.config.provider import Provider
from fastgate.config.provider_checks import PROVIDER_CHECKS
from fastgate.config.redis import Redis
from fastgate.config.redis_checks import REDIS_CHECKS
from fastgate.config.schema import Admin, Listener, Root, listener, listeners
from fastgate.config.service import ConfiguredRoute, ConfiguredService


def relation_findings(data: Any) -> list[Finding]:
    """Everything that the schema alone cannot see."""
    if not isinstance(data, dict):
        return []
    written = data.get("identity_providers")
    providers = written if isinstance(written, dict) else {}
    found = list(each((_addresses_twice, _admin_token, _listener_for_events), data))
    for name, raw in providers.items():
        if isinstance(raw, dict):
            found += each(PROVIDER_CHECKS, ("identity_providers", name), known(Provider, raw))
    cache = data.get("cache")
    redis = cache.get("redis") if isinstance(cache, dict) else None
    if isinstance(redis, dict):
        found += each(REDIS_CHECKS, providers, known(Redis, redis))
    for index, raw in enumerate(items(data.get("services"))):
        if isinstance(raw, dict):
            found += _service_findings(providers, ("services", index), raw)
    return found + list(_names_twice(data))


def _service_findings(providers: Mapping[str, Any], path: Path, raw: Mapping[str, Any]) -> Iterator[Finding]:
    yield from each((_where_to_forward, _service_tls), path, known(ConfiguredService, raw))
    yield from each((upstream_headers,), path, raw)
    for index, written in enumerate(items(raw.get("routes"))):
        if isinstance(written, dict):
            at = (*path, "routes", index)
            yield from each((_something_to_match, _criteria_twice), at, known(ConfiguredRoute, written))
            yield from each((upstream_headers,), at, written)
            yield from each((protection,), providers, at, raw, written)


def _addresses_twice(data: Mapping[str, Any]) -> Iterator[Finding]:
    seen: set[HostPort] = set()
    many = isinstance(data.get("listen"), list)
    places: list[tuple[Path, Any]] = [
        (("listen", index) if many else ("listen",), item)
        for index, item in enumerate(listeners(data.get("listen", "127.0.0.1:8000")))
    ]
    admin = data.get("admin", {})
    if isinstance(admin, dict):
        # What was written is to blame, not a default.
        at = len(places) if "listen" in admin else 0
        places.insert(at, (("admin", "listen"), admin.get("listen", "127.0.0.1:8001")))
    events = data.get("events")
    if isinstance(events, dict):
        places.append((("events", "listen"), events.get("listen")))
    for path, written in places:
        address = _address(written)
        if address is not None and address.port:
            if address in seen:
                yield Finding(path, "is an address that another listener has already")
            seen.add(address)


def _admin_token(data: Mapping[str, Any]) -> Iterator[Finding]:
    admin = data.get("admin")
    if not isinstance(admin, dict) or "listen" not in admin:
        return
    address = _address(admin["listen"])
    if address is not None and not is_loopback(address.host) and known(Admin, admin).token is None:
        yield Finding(
            ("admin", "token"),
            "is missing; an admin listener that other machines can reach needs one: write `token: ${ADMIN_TOKEN}`, or "
            "listen on 127.0.0.1",
        )


def _listener_for_events(data: Mapping[str, Any]) -> Iterator[Finding]:
    root = known(Root, data)
    providers = data.get("identity_providers")
    senders = [
        ("identity_providers", name, key)
        for name, raw in (providers.items() if isinstance(providers, dict) else ())
        for key in ("backchannel_logout", "security_events")
        if value_of(Provider, raw, key) is not None
    ]
    if root.events is None and root.admin is None:
        for path in senders:
            yield Finding(path, "needs a listener that takes it: write `events: {listen: ...}`")
    if root.events is not None and not senders:
        yield Finding(
            ("events",), "has no use without `backchannel_logout` or `security_events` of an identity provider"
        )


def _address(written: Any) -> HostPort | None:
    mapping = written if isinstance(written, dict) else listener(written) if isinstance(written, str) else None
    address = value_of(Listener, mapping, "address")
    return None if address is None else host_port(address, any_host=True)


def _where_to_forward(path: Path, service: ConfiguredService) -> Iterator[Finding]:
    if service.url is None and not service.targets:
        yield Finding(path, "needs `url` or `targets`")
    seen: set[str] = set()
    for index, target in enumerate(service.targets):
        if target.target in seen:
            yield Finding((*path, "targets", index, "target"), "appears twice; raise its weight instead")
        seen.add(target.target)


def _service_tls(path: Path, service: ConfiguredService) -> Iterator[Finding]:
    if "tls" not in service.model_fields_set:
        return
    if service.url is None or url(service.url).scheme != "https":
        yield Finding((*path, "tls"), "needs a `url` that starts with https://")
    if service.tls.ca_file is not None and not service.tls.verify:
        yield Finding((*path, "tls", "ca_file"), "has no use with `verify: false`; remove one of the two")


def _something_to_match(path: Path, route: ConfiguredRoute) -> Iterator[Finding]:
    if not (route.paths or route.methods or route.hosts or route.headers):
        yield Finding(
            path, "needs at least one of `paths`, `methods`, `hosts`, `headers`; `paths: [/]` takes everything"
        )


def _criteria_twice(path: Path, route: ConfiguredRoute) -> Iterator[Finding]:
    for key in ("paths", "methods", "hosts"):
        values = getattr(route, key)
        for index, value in enumerate(values):
            if value in values[:index]:
                yield Finding((*path, key, index), "appears twice; remove one")
    names: set[str] = set()
    for name in route.headers:
        if name.lower() in names:
            yield Finding((*path, "headers", name), "appears twice, as header names have no case; join the lists")
        names.add(name.lower())


def _names_twice(data: Mapping[str, Any]) -> Iterator[Finding]:
    services: set[str] = set()
    routes: set[str] = set()
    for index, raw in enumerate(items(data.get("services"))):
        service = value_of(ConfiguredService, raw, "name")
        if service is not None and service in services:
            yield Finding(("services", index, "name"), "is the name of another service already")
            continue
        if service is not None:
            services.add(service)
        for number, written in enumerate(items(raw.get("routes") if isinstance(raw, dict) else None)):
            path: Path = ("services", index, "routes", number)
            name = value_of(ConfiguredRoute, written, "name")
            if name is not None and name in routes:
                yield Finding((*path, "name"), "is the name of another route already")
            elif isinstance(written, dict) and "name" not in written and service is not None:
                name = f"{service}-{number + 1}"
                if name in routes:
                    yield Finding(path, f"needs a `name`: without one it is {name}, as another route is already")
            if name is not None:
                routes.add(name)
