"""`auth` of a service or a route: what a token must be and have, where it stands, and what a refusal says."""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from fastgate.config.units import Duration, NotAFlag
from fastgate.config.words import ClaimPathOf, HeaderName, Name, Realm, Redirect, Scopes, Section, Text, Token, Words

NONE: Final = "none"
"""What is written for a public route."""


class UpstreamHeader(Section):
    """A claim written upstream as a header."""

    header: Annotated[HeaderName, Field(description="Name of the header.")]
    path: Annotated[ClaimPathOf, Field(description="Where the claim stands, such as `[realm_access, roles]`.")]


class Auth(Section):
    """What a protected route requires; `auth: none` instead of the mapping makes a route public."""

    _public: bool = PrivateAttr(default=False)

    identity_provider: Annotated[
        Name | None,
        Field(description="Which of `identity_providers` knows the tokens; may be left out when there is only one."),
    ] = None
    bearer_token_param_type: Annotated[
        tuple[Literal["header", "query", "body", "cookie"], ...],
        Field(
            min_length=1,
            description="Where the token may stand. A cookie is sent by browsers without asking: use it only with a "
            "defence against cross-site request forgery (RFC 6750 section 5.2).",
        ),
    ] = ("header",)
    bearer_token_cookie_name: Annotated[Token, Field(description="Name of that cookie.")] = "access_token"  # noqa: S105 - a name
    max_token_length: Annotated[
        int, NotAFlag, Field(ge=1, le=65_536, description="Octets; longer tokens are refused before anything is done.")
    ] = 8192
    scopes_required: Annotated[
        tuple[Scopes, ...],
        Field(description="One entry must be met, and with it all of its words: `[a b, c]` is (a AND b) OR c."),
    ] = ()
    scopes_claim: Annotated[ClaimPathOf, Field(description="Where the scopes stand in the answer.")] = ("scope",)
    audience_required: Annotated[tuple[Words, ...], Field(description="Audiences, likewise.")] = ()
    audience_claim: Annotated[ClaimPathOf, Field(description="Where the audience stands.")] = ("aud",)
    roles_required: Annotated[tuple[Words, ...], Field(description="Roles, likewise.")] = ()
    roles_claim: Annotated[ClaimPathOf, Field(description="Where the roles stand.")] = ("roles",)
    groups_required: Annotated[tuple[Words, ...], Field(description="Groups, likewise.")] = ()
    groups_claim: Annotated[ClaimPathOf, Field(description="Where the groups stand.")] = ("groups",)
    claims_forbidden: Annotated[
        tuple[Text, ...], Field(description="Claims whose mere presence refuses the token (403).")
    ] = ()
    issuers_allowed: Annotated[
        tuple[Text, ...],
        Field(description="Accepted `iss`, instead of the provider's `issuer`; `iss` is then required in the answer."),
    ] = ()
    leeway: Annotated[Duration, Field(description="Clock skew tolerated on `exp`, `nbf` and `iat`.")] = 0.0
    hide_credentials: Annotated[
        bool, Field(description="Remove the token before forwarding instead of passing it on as it came.")
    ] = False
    upstream_headers: Annotated[
        tuple[UpstreamHeader, ...],
        Field(description="Claims written upstream as headers; a client's own header of that name never passes."),
    ] = ()
    realm: Annotated[
        Realm | None,
        Field(description="`realm` of the challenge; null: the host of the provider's issuer or endpoint."),
    ] = None
    unauthorized_error_message: Annotated[Text, Field(description="`message` in the body of a 401.")] = "Unauthorized"
    forbidden_error_message: Annotated[Text, Field(description="`message` in the body of a 403.")] = "Forbidden"
    unauthorized_redirect_uri: Annotated[
        Redirect | None, Field(description="Redirect (302) there instead of answering 401.")
    ] = None
    forbidden_redirect_uri: Annotated[
        Redirect | None, Field(description="Redirect (302) there instead of answering 403.")
    ] = None
    expose_error_code: Annotated[
        bool, Field(description="Say `error=...` in the challenge (RFC 6750 section 3.1).")
    ] = True
    cache_ttl_max: Annotated[
        Duration | None, Field(description="The provider's `cache_ttl_max`, made shorter here; null: as there.")
    ] = None
    cache_ttl_neg: Annotated[
        Duration | None, Field(description="The provider's `cache_ttl_neg`, made shorter here; null: as there.")
    ] = None

    @property
    def public(self) -> bool:
        """The file says `auth: none`."""
        return self._public

    @model_validator(mode="wrap")
    @classmethod
    def _or_none(cls, value: Any, handler: ModelWrapValidatorHandler["Auth"]) -> "Auth":
        if value == NONE:
            return public_auth()
        if not isinstance(value, dict | Auth):
            raise ValueError("must be a mapping of requirements, or `none` for a public route")  # noqa: TRY004
        return handler(value)

    @model_serializer(mode="wrap")
    def _written(self, serialize: SerializerFunctionWrapHandler) -> Any:
        return NONE if self.public else serialize(self)


def effective(service: Auth, route: Auth | None) -> Auth:
    """What holds for a route: its own auth (None: it has none) with the keys it leaves out from its service's."""
    if route is None or route.public:
        return service if route is None else route
    base = Auth() if service.public else service
    return base.model_copy(update={key: getattr(route, key) for key in route.model_fields_set})


def public_auth() -> Auth:
    """What `auth: none` means."""
    auth = Auth.model_construct()
    auth._public = True  # noqa: SLF001 - our own, set once, here
    return auth
