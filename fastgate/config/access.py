"""From the `auth` of a route to what the gate decides with: `Access`, and the answer to every denial."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from fastgate.config.auth import Auth
from fastgate.model import (
    Access,
    AccessPolicy,
    ClaimHeader,
    DenialReason,
    Extraction,
    Freshness,
    IdentityProvider,
    Reply,
    Requirement,
    TokenSource,
)
from fastgate.policy.replies import denials

REALM: Final = "fastgate"
"""When neither the file nor the identity provider suggests one."""


def compile_access(auth: Auth, providers: Mapping[str, IdentityProvider]) -> Access | None:
    """What a route requires; None when it is public. The auth is complete: service and route in one."""
    if auth.public:
        return None
    provider = providers[auth.identity_provider or next(iter(providers))]
    return Access(
        provider=provider,
        policy=AccessPolicy(
            issuers=_issuers(auth, provider),
            issuer_required=bool(auth.issuers_allowed),
            leeway=auth.leeway,
            requirements=_requirements(auth),
            claims_forbidden=tuple((name,) for name in auth.claims_forbidden),
        ),
        extraction=Extraction(
            frozenset(TokenSource(source) for source in auth.bearer_token_param_type),
            auth.bearer_token_cookie_name,
            auth.max_token_length,
        ),
        freshness=_freshness(auth, provider.freshness),
        hide_credentials=auth.hide_credentials,
        headers=tuple(
            ClaimHeader(wanted.header.encode("ascii"), tuple(wanted.path)) for wanted in auth.upstream_headers
        ),
    )


def compile_denials(auth: Auth, provider: IdentityProvider, route: str) -> Mapping[DenialReason, Reply]:
    """The answer to every denial of a protected route."""
    return denials(
        auth.realm or _realm(provider),
        # Any one alternative would do; the first is the one the file's author thought of first.
        required_scope=auth.scopes_required[0] if auth.scopes_required else None,
        unauthorized_message=auth.unauthorized_error_message,
        forbidden_message=auth.forbidden_error_message,
        unauthorized_redirect=auth.unauthorized_redirect_uri,
        forbidden_redirect=auth.forbidden_redirect_uri,
        expose_error_code=auth.expose_error_code,
        route=route,
    )


def _issuers(auth: Auth, provider: IdentityProvider) -> frozenset[str]:
    if auth.issuers_allowed:
        return frozenset(auth.issuers_allowed)
    return frozenset() if provider.issuer is None else frozenset({provider.issuer})


def _requirements(auth: Auth) -> tuple[Requirement, ...]:
    """Audience first: a token that is not meant for us is refused as such whatever else it lacks."""
    written = (
        (DenialReason.AUDIENCE, auth.audience_claim, auth.audience_required),
        (DenialReason.SCOPE, auth.scopes_claim, auth.scopes_required),
        (DenialReason.ROLE, auth.roles_claim, auth.roles_required),
        (DenialReason.GROUP, auth.groups_claim, auth.groups_required),
    )
    return tuple(
        Requirement(reason, tuple(claim), tuple(frozenset(entry.split(" ")) for entry in entries))
        for reason, claim, entries in written
        if entries
    )


def _freshness(auth: Auth, shared: Freshness) -> Freshness:
    return Freshness(
        ttl=shared.ttl,
        ttl_max=shared.ttl_max if auth.cache_ttl_max is None else min(auth.cache_ttl_max, shared.ttl_max),
        ttl_neg=shared.ttl_neg if auth.cache_ttl_neg is None else min(auth.cache_ttl_neg, shared.ttl_neg),
    )


def _realm(provider: IdentityProvider) -> str:
    return urlsplit(provider.issuer or provider.introspection_endpoint or "").hostname or REALM
