"""What is allowed but should be a decision, not an accident: said by `fastgate check` and `fastgate run`."""

from collections.abc import Iterator

from fastgate.config.addresses import is_loopback, url
from fastgate.config.auth import Auth
from fastgate.config.document import Finding, Path
from fastgate.config.load import Config
from fastgate.config.problems import placed
from fastgate.config.provider import Provider
from fastgate.config.redis import Redis
from fastgate.config.redis_url import redis_url
from fastgate.errors import Problem


def advice(config: Config) -> list[Problem]:
    """What an operator should know about a configuration that is in order, in the order of the file."""
    return placed(list(_findings(config)), config.document)


def _findings(config: Config) -> Iterator[Finding]:
    for name, provider in config.root.identity_providers.items():
        yield from _provider(("identity_providers", name), provider)
    if config.root.cache.redis is not None:
        yield from _redis(("cache", "redis"), config.root.cache.redis)
    for index, service in enumerate(config.root.services):
        path: Path = ("services", index)
        if not service.tls.verify:
            yield Finding((*path, "tls", "verify"), "anybody on the way can pose as this service")
        yield from _sources(path, service.auth)
        for number, route in enumerate(service.routes):
            yield from _sources((*path, "routes", number), route.auth)


def _provider(path: Path, provider: Provider) -> Iterator[Finding]:
    if not provider.ssl_verify:
        yield Finding((*path, "ssl_verify"), "anybody on the way can pose as the identity provider")
    for key in ("issuer", "introspection_endpoint"):
        text = getattr(provider, key)
        parts = url(text, query=True) if text is not None else None
        if parts is not None and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield Finding((*path, key), "tokens and the client secret travel in plain text")
    if provider.jwks_uri is not None:
        parts = url(provider.jwks_uri, query=True)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield Finding((*path, "jwks_uri"), "anybody on the way can put keys there, and then log people out")


def _redis(path: Path, redis: Redis) -> Iterator[Finding]:
    url = redis_url(redis.url.get_secret_value())
    remote = any(not is_loopback(address.host) for address in url.addresses)
    if remote and not url.tls and (url.password or redis.password) is not None:
        yield Finding((*path, "url"), "the password of Redis travels in plain text")
    if url.tls and not redis.tls.verify:
        yield Finding((*path, "tls", "verify"), "anybody on the way can pose as Redis and take its password")
    if not redis.secrets:
        message = (
            "keys are derived from the client secrets: when one of those changes, gateways that start later do not "
            "know the older revocations of single tokens; set `secrets`"
        )
        yield Finding((*path, "secrets"), message)


def _sources(path: Path, auth: Auth) -> Iterator[Finding]:
    at = (*path, "auth", "bearer_token_param_type")
    if "cookie" in auth.bearer_token_param_type:
        message = "browsers send cookies without being asked; the service needs a defence against cross-site requests"
        yield Finding(at, message)
    if "query" in auth.bearer_token_param_type:
        yield Finding(at, "tokens in URLs end up in the logs and histories of others (RFC 9700 section 4.3.2)")
