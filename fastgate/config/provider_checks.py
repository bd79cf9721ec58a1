"""What concerns several keys of one identity provider."""

from collections.abc import Iterator
from typing import Final

from fastgate.config.addresses import is_loopback, url
from fastgate.config.document import Finding, Path
from fastgate.config.provider import RESERVED_ARGS, RESERVED_HEADERS, Provider


def _where_to_ask(path: Path, provider: Provider) -> Iterator[Finding]:
    if provider.issuer is None and provider.introspection_endpoint is None:
        yield Finding(path, "needs `issuer` (to discover where to ask) or `introspection_endpoint`")


def _issuer_is_safe(path: Path, provider: Provider) -> Iterator[Finding]:
    yield from _no_plain_http((*path, "issuer"), provider.issuer, allowed=provider.allow_http)


def _endpoint_is_safe(path: Path, provider: Provider) -> Iterator[Finding]:
    endpoint = provider.introspection_endpoint
    yield from _no_plain_http((*path, "introspection_endpoint"), endpoint, allowed=provider.allow_http)


def _keys_are_safe(path: Path, provider: Provider) -> Iterator[Finding]:
    yield from _no_plain_http((*path, "jwks_uri"), provider.jwks_uri, allowed=provider.allow_http)
    if provider.jwks_uri is not None and provider.backchannel_logout is None and provider.security_events is None:
        yield Finding((*path, "jwks_uri"), "has no use without `backchannel_logout` or `security_events`; remove it")


def _who_logs_out(path: Path, provider: Provider) -> Iterator[Finding]:
    if provider.backchannel_logout is not None and provider.issuer is None:
        yield Finding((*path, "backchannel_logout"), "needs `issuer`: who signs logout tokens")


def _who_sends_events(path: Path, provider: Provider) -> Iterator[Finding]:
    events, at = provider.security_events, (*path, "security_events")
    if events is None:
        return
    yield from _no_plain_http((*at, "jwks_uri"), events.jwks_uri, allowed=provider.allow_http)
    if events.issuer is None and provider.issuer is None:
        yield Finding(at, "needs an `issuer`, its own or the identity provider's: who signs the events")
    if events.issuer not in {None, provider.issuer} and events.jwks_uri is None:
        yield Finding(
            (*at, "jwks_uri"), "is missing: the keys of another issuer are not those of the identity provider"
        )


def _no_plain_http(path: Path, text: str | None, *, allowed: bool) -> Iterator[Finding]:
    if text is None or allowed:
        return
    parts = url(text, query=True)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield Finding(path, "must be https: plain http is for this machine only, or with `allow_http: true`")


def _client_secret(path: Path, provider: Provider) -> Iterator[Finding]:
    if provider.client_auth == "none" and provider.client_secret is not None:
        yield Finding((*path, "client_secret"), "has no use with `client_auth: none`; remove one of the two")
    if provider.client_auth != "none" and provider.client_secret is None:
        yield Finding((*path, "client_secret"), "is missing; only `client_auth: none` goes without")


def _tls(path: Path, provider: Provider) -> Iterator[Finding]:
    if provider.ca_file is not None and not provider.ssl_verify:
        yield Finding((*path, "ca_file"), "has no use with `ssl_verify: false`; remove one of the two")


def _question_headers(path: Path, provider: Provider) -> Iterator[Finding]:
    for name in provider.introspection_headers:
        if name.lower() in RESERVED_HEADERS:
            yield Finding((*path, "introspection_headers", name), "is set by fastgate itself; remove it")


def _question_arguments(path: Path, provider: Provider) -> Iterator[Finding]:
    for name in provider.introspection_post_args:
        if name in RESERVED_ARGS:
            yield Finding((*path, "introspection_post_args", name), "is set by fastgate itself; remove it")


PROVIDER_CHECKS: Final = (
    _where_to_ask,
    _issuer_is_safe,
    _endpoint_is_safe,
    _client_secret,
    _tls,
    _question_headers,
    _question_arguments,
    _keys_are_safe,
    _who_logs_out,
    _who_sends_events,
)
