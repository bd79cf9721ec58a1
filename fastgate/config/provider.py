"""`identity_providers`: authorization servers and how fastgate asks them (RFC 7662, RFC 6749 section 2.3.1)."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from fastgate.config.units import Count, Duration, NotAFlag, PositiveDuration
from fastgate.config.words import FileName, Secret, SecretValue, Section, Text, Token, Url, UrlWithQuery

CLIENT_AUTH: Final = ("client_secret_basic", "client_secret_post", "none")
LATER_CLIENT_AUTH: Final = (
    "client_secret_jwt",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
)
ACCEPT: Final = ("application/json",)
LATER_ACCEPT: Final = ("application/token-introspection+jwt", "application/jwt")
RESERVED_HEADERS: Final = frozenset(
    (
        *("accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "cookie"),
        *("expect", "host", "keep-alive", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
    )
)
RESERVED_ARGS: Final = frozenset(
    ("token", "token_type_hint", "client_id", "client_secret", "client_assertion", "client_assertion_type")
)


def choice(now: tuple[str, ...], later: tuple[str, ...]) -> Any:
    """A word out of `now`; a word of `later` gets a clear refusal. For use in Annotated."""

    def check(value: Any) -> Any:
        if value in later:
            raise ValueError(f"asks for something not supported by this version; write {_or(now)}")
        if value not in now:
            raise ValueError(f"must be {_or(now)}")
        return value

    return BeforeValidator(check)


def _or(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _switch(written: Any) -> Any:
    """`true` is the section with its defaults, `false` is none."""
    if not isinstance(written, bool | dict | Section):
        raise ValueError("must be true, false or a mapping")  # noqa: TRY004 - pydantic collects ValueErrors
    return {} if written is True else None if written is False else written


class BackchannelLogout(Section):
    """Logout tokens (OpenID Connect Back-Channel Logout 1.0); `true` for the defaults."""

    audience: Annotated[
        tuple[Text, ...],
        Field(description="Clients whose logouts count: those that log people in. Left out: `client_id` alone."),
    ] = ()


class SecurityEvents(Section):
    """Security event tokens by push (RFC 8935, Shared Signals); `true` for the defaults."""

    audience: Annotated[
        tuple[Text, ...], Field(description="What `aud` must have one of, as agreed on. Left out: `client_id` alone.")
    ] = ()
    authorization_header: Annotated[
        Secret | None,
        Field(
            description="The whole value of Authorization that must be sent, such as `Bearer ...`, if one was agreed."
        ),
    ] = None
    issuer: Annotated[
        Url | None, Field(description="Who issues the events, where it is not the `issuer` of the tokens.")
    ] = None
    jwks_uri: Annotated[
        UrlWithQuery | None,
        Field(description="Its keys; the transmitter's `/.well-known/ssf-configuration` says where they are."),
    ] = None


class Provider(Section):
    """One authorization server."""

    issuer: Annotated[
        Url | None,
        Field(
            description="Issuer identifier, exactly as the server states it. Its metadata is discovered from here "
            "(OpenID Connect Discovery, RFC 8414) unless `introspection_endpoint` is given. This or that is needed."
        ),
    ] = None
    introspection_endpoint: Annotated[
        UrlWithQuery | None,
        Field(description="Where to ask (RFC 7662), instead of what discovery says; may stand without `issuer`."),
    ] = None
    client_id: Annotated[Text, Field(description="Our own client identifier at the server.")]
    client_secret: Annotated[
        Secret | None, Field(description="Our own client secret. Not with `client_auth: none`.")
    ] = None
    client_auth: Annotated[
        str,
        choice(CLIENT_AUTH, LATER_CLIENT_AUTH),
        WithJsonSchema({"enum": list(CLIENT_AUTH)}),
        Field(description="How we authenticate to the server (RFC 6749 section 2.3.1)."),
    ] = "client_secret_basic"
    introspection_hint: Annotated[
        Token | None, Field(description="`token_type_hint` sent along (RFC 7662 section 2.1); null: none.")
    ] = "access_token"
    introspection_headers: Annotated[
        Mapping[Token, SecretValue], Field(description="More headers on the question, such as `{X-Tenant: a}`.")
    ] = {}
    introspection_post_args: Annotated[
        Mapping[Text, Secret], Field(description="More parameters in the question, such as `{resource: b}`.")
    ] = {}
    introspection_accept: Annotated[
        str,
        choice(ACCEPT, LATER_ACCEPT),
        WithJsonSchema({"enum": list(ACCEPT)}),
        Field(description="The form of answer we ask for."),
    ] = "application/json"
    timeout: Annotated[
        PositiveDuration,
        Field(description="For a whole introspection: waiting, discovery, connecting, retrying, reading."),
    ] = 2.0
    ssl_verify: Annotated[bool, Field(description="Verify the server's certificate and host name.")] = True
    ca_file: Annotated[FileName | None, Field(description="Certificates (PEM) to trust instead of the system's.")] = (
        None
    )
    allow_http: Annotated[
        bool, Field(description="Allow `http:` to a server that is not on this machine. Development only.")
    ] = False
    cache_ttl: Annotated[
        Duration, Field(description="How long to remember an active token whose answer has no `exp`; 0: not at all.")
    ] = 3600.0
    cache_ttl_max: Annotated[
        Duration,
        Field(
            description="The revocation window: an active token is never remembered longer than this, nor past its "
            "`exp`; 0: not at all."
        ),
    ] = 300.0
    cache_ttl_neg: Annotated[
        Duration, Field(description="How long to remember that a token is inactive; 0: not at all.")
    ] = 5.0
    cache_ttl_resurrect: Annotated[
        Duration,
        Field(
            description="How much longer a known-active token goes on while the server cannot be reached; never past "
            "`exp`, never after the server said inactive."
        ),
    ] = 0.0
    cache_ask_ahead: Annotated[
        Duration,
        Field(
            description="How long before its time is over a remembered token that is in use is asked about again, in "
            "the background, so that no request has to wait; a fifth of its time at most, never past `exp`; 0: never."
        ),
    ] = 30.0
    introspection_concurrency: Annotated[Count, Field(description="Questions under way at once, in each worker.")] = 64
    introspection_failures: Annotated[
        Count,
        Field(
            description="Failures in a row (no answer, 5xx, 429, our credentials refused) after which new tokens get "
            "503 at once, and one question of our own a second, by all workers of a host together, finds out when it "
            "answers again. Each worker counts for itself; where another one holds off, one failure is enough."
        ),
    ] = 5
    introspection_inactive_rate: Annotated[
        float,
        NotAFlag,
        Field(
            gt=0,
            le=1_000_000,
            description="Inactive answers per second, shared evenly by the workers, after which unknown tokens are "
            "held off with 503, so that a flood of invented tokens does not become a flood at the server.",
        ),
    ] = 200.0
    jwks_uri: Annotated[
        UrlWithQuery | None,
        Field(
            description="Where the keys are that verify logout tokens and security events, instead of what discovery "
            "says."
        ),
    ] = None
    backchannel_logout: Annotated[
        BackchannelLogout | None,
        BeforeValidator(_switch),
        Field(
            description="Take logout tokens at `/identity-providers/NAME/logout` of the `admin` and `events` listeners "
            "and revoke the session, or the user's tokens."
        ),
    ] = None
    security_events: Annotated[
        SecurityEvents | None,
        BeforeValidator(_switch),
        Field(
            description="Take security events at `/identity-providers/NAME/events`: revoked sessions, changed "
            "credentials, disabled and purged accounts revoke tokens."
        ),
    ] = None
