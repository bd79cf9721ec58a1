"""What concerns several keys of `cache.redis`, and what it takes from the identity providers."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastgate.config.document import Finding, Path
from fastgate.config.known import value_of
from fastgate.config.provider import Provider
from fastgate.config.redis import Redis
from fastgate.config.redis_url import redis_url

PATH: Final[Path] = ("cache", "redis")


def said_twice(_: Mapping[str, Any], redis: Redis) -> Iterator[Finding]:
    """Credentials stand in the URL or beside it."""
    url = redis_url(redis.url.get_secret_value())
    if redis.username is not None and url.username is not None:
        yield Finding((*PATH, "username"), "is in `url` already; remove one of the two")
    if redis.password is not None and url.password is not None:
        yield Finding((*PATH, "password"), "is in `url` already; remove one of the two")
    if redis.username is not None and redis.password is None and url.password is None:
        yield Finding((*PATH, "password"), "is missing; a user name alone says nothing")


def sentinels_only(_: Mapping[str, Any], redis: Redis) -> Iterator[Finding]:
    """Credentials for Sentinels need Sentinels."""
    kind = redis_url(redis.url.get_secret_value()).kind
    for key in ("sentinel_username", "sentinel_password"):
        if getattr(redis, key) is not None and kind != "sentinel":
            yield Finding((*PATH, key), "has no use without a `url` that starts with redis+sentinel://")


def tls(_: Mapping[str, Any], redis: Redis) -> Iterator[Finding]:
    """TLS settings that say something, and together make sense."""
    if "tls" not in redis.model_fields_set:
        return
    at = (*PATH, "tls")
    if not redis_url(redis.url.get_secret_value()).tls:
        yield Finding(at, "needs a `url` that starts with rediss")
    if redis.tls.ca_file is not None and not redis.tls.verify:
        yield Finding((*at, "ca_file"), "has no use with `verify: false`; remove one of the two")
    if (redis.tls.certificate is None) != (redis.tls.key is None):
        missing = "key" if redis.tls.key is None else "certificate"
        yield Finding((*at, missing), "is missing; a certificate and its key go together")


def something_to_derive_from(providers: Mapping[str, Any], redis: Redis) -> Iterator[Finding]:
    """Without `secrets`, the client secrets have to do."""
    if not redis.secrets and all(value_of(Provider, raw, "client_secret") is None for raw in providers.values()):
        yield Finding(
            (*PATH, "secrets"),
            "is missing, and no identity provider has a `client_secret` to derive keys from; write "
            "`secrets: [${CACHE_SECRET}]`",
        )


REDIS_CHECKS: Final = (said_twice, sentinels_only, tls, something_to_derive_from)
