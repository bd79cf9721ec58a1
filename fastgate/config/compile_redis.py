"""From `cache.redis` as written to what the shared tier is opened with."""

from pydantic import SecretStr

from fastgate.config.redis_url import redis_url
from fastgate.config.schema import Root
from fastgate.config.tls import redis_context
from fastgate.model import Redis


def compile_redis(root: Root, directory: str) -> Redis | None:
    """The shared tier of a checked configuration, None without one. Raises TlsTrouble."""
    written = root.cache.redis
    if written is None:
        return None
    url = redis_url(written.url.get_secret_value())
    return Redis(
        kind=url.kind,
        addresses=url.addresses,
        path=url.path,
        master=url.master,
        database=url.database,
        username=_said(written.username) or url.username,
        password=_said(written.password) or url.password,
        sentinel_username=_said(written.sentinel_username),
        sentinel_password=_said(written.sentinel_password),
        tls=redis_context(directory, written.tls) if url.tls else None,
        tls_from=(url.tls, *written.tls.model_dump().values()),
        prefix=written.prefix,
        timeout=written.timeout,
        secrets=tuple(secret.get_secret_value() for secret in written.secrets) or _derived(root),
    )


def _derived(root: Root) -> tuple[str, ...]:
    """The client secrets, in the order of the providers' names: the first one writes, on every host."""
    providers = sorted(root.identity_providers.items())
    return tuple(
        f"{name}\0{provider.client_secret.get_secret_value()}"
        for name, provider in providers
        if provider.client_secret is not None
    )


def _said(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
