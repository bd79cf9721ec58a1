"""The nouns: frozen values that every room speaks of. No behaviour; imports no other room.

Values made once per configuration are frozen dataclasses; values made once per request are named tuples, which are
as immutable and several times cheaper to make.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from re import Pattern
from ssl import SSLContext
from typing import Any, Final, NamedTuple

Field = tuple[bytes, bytes, bytes]
"""One header line: (name in lower case, name as received, value without surrounding white space)."""

ClaimPath = tuple[str, ...]
"""Where a claim stands: ("realm_access", "roles") is `roles` inside `realm_access`."""


# --- a request, as the data plane hands it to the gate ---------------------------------------------------------


class BodyKind(Enum):
    """How the length of a message body is known (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until-close"
    """Answers only."""


class Framing(NamedTuple):
    """The framing of one body."""

    kind: BodyKind
    length: int = 0
    """Octets; only for BodyKind.LENGTH."""


NO_BODY: Final = Framing(BodyKind.NONE)


class RequestHead(NamedTuple):
    """A request head that passed every framing and syntax check (RFC 9112 sections 3 and 5)."""

    method: str
    target: bytes
    """Origin-form as the client sent it (an absolute-form target is reduced to it), or b"*"."""
    path: str
    """The part of `target` before "?": ASCII, percent-encoding untouched."""
    query: str | None
    """The part after the first "?"; None without one, "" when it is empty."""
    http_1_0: bool
    host: str
    """Authority in lower case, of the target when absolute-form, else of Host; "" only for HTTP/1.0 without."""
    fields: tuple[Field, ...]
    framing: Framing
    keep_alive: bool
    """The client wants the connection kept (RFC 9112 section 9.3)."""
    upgrade: bytes | None
    """The value of Upgrade in lower case when `Connection: upgrade` asks for it on HTTP/1.1, else None."""
    expects_continue: bool
    scheme: str
    """How the client reached us: http or https."""
    peer: str
    """Address of the TCP peer, without port."""
    port: int
    """Local port the client reached."""


# --- what the authorization server said -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class ActiveToken:
    """The authorization server said `active: true` (RFC 7662 section 2.2). Times are seconds since the epoch."""

    claims: Mapping[str, Any] = field(repr=False)
    exp: int | None = None
    nbf: int | None = None
    iat: int | None = None
    iss: str | None = None
    bound: bool = False
    """Sender-constrained: carries `cnf` or a DPoP token type (RFC 8705 section 3, RFC 9449 section 6)."""


class Inactive(Enum):
    """The type of INACTIVE."""

    INACTIVE = "inactive"


INACTIVE: Final = Inactive.INACTIVE
"""The authorization server said `active: false`."""

TokenState = ActiveToken | Inactive


class Remembered(NamedTuple):
    """A token state and when it was fetched."""

    state: TokenState
    fetched_at: float
    """Monotonic seconds, taken when the question was *sent*: the answer is at most this fresh."""


class Mark(NamedTuple):
    """A revocation, as it is told to other workers and hosts and kept for those that start later. Holds no token."""

    claim: str
    """What `value` is: "token" (a fingerprint of one, in hexadecimal), "sub", "sid", "client_id", or "all";
    "sub_without_sid" is the subject of tokens that name no session."""
    value: str
    """"" for "all"."""
    at: int
    """Whole wall seconds: tokens issued up to and including then are covered."""
    until: float
    """Wall seconds after which no token can be covered any more."""


# --- what an identity provider tells us of its own accord ------------------------------------------------------


class NoticeKind(StrEnum):
    """What a notice is about. The value is the metric label."""

    LOGOUT = "logout"
    SECURITY_EVENT = "security_event"
    """One that was refused, or that we do not know."""
    SESSION_REVOKED = "session_revoked"
    CREDENTIAL_CHANGE = "credential_change"
    ACCOUNT_DISABLED = "account_disabled"
    ACCOUNT_PURGED = "account_purged"
    VERIFICATION = "verification"
    STREAM_UPDATED = "stream_updated"


class Notice(NamedTuple):
    """A logout or a security event, verified and understood."""

    kind: NoticeKind
    jti: str
    keep: float
    """Seconds for which a second one with this `jti` must be recognised."""
    at: int
    """Whole seconds of the issuer's clock: tokens issued up to and including then are concerned."""
    revocations: tuple[tuple[str, str], ...]
    """Pairs of a claim and its value, as `Mark` has them; none: there is nothing to do."""


class Refused(StrEnum):
    """Why a notice was refused. The value is the metric label."""

    MALFORMED = "malformed"
    FORGED = "forged"
    """Not signed by a key of the issuer, or not signed at all."""
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    STALE = "stale"
    """Expired, too old, or from the future."""
    REPLAYED = "replayed"
    UNKNOWN_SUBJECT = "unknown_subject"
    """It names nobody by what tokens name them by."""
    UNAUTHORIZED = "unauthorized"
    """Sent without the Authorization that was agreed on."""


class Refusal(NamedTuple):
    """A notice that changes nothing."""

    reason: Refused
    detail: str
    """In our own words; repeats nothing of the notice."""


# --- what a route requires ------------------------------------------------------------------------------------


class DenialReason(StrEnum):
    """Why a request was refused by policy. The value is the metric label and the word in the access log."""

    NO_CREDENTIALS = "no_credentials"
    MALFORMED_CREDENTIALS = "malformed_credentials"
    INACTIVE = "inactive"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    BINDING = "binding"
    SCOPE = "scope"
    ROLE = "role"
    GROUP = "group"
    FORBIDDEN_CLAIM = "forbidden_claim"


class TokenSource(StrEnum):
    """Where the access token may stand (RFC 6750 section 2; cookie is ours)."""

    HEADER = "header"
    QUERY = "query"
    BODY = "body"
    COOKIE = "cookie"


@dataclass(frozen=True, slots=True)
class Extraction:
    """How a route takes the access token out of a request."""

    sources: frozenset[TokenSource]
    cookie_name: str = "access_token"
    max_length: int = 8192
    """Octets; a longer token is refused before anything is computed from it."""


class AccessToken(NamedTuple):
    """An access token found in a request. Its repr is safe; the value is not."""

    value: str
    source: TokenSource

    def __repr__(self) -> str:
        return f"AccessToken({self.source})"


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long an answer may be remembered. Seconds; 0 means not at all."""

    ttl: float = 3600.0
    """Without `exp`."""
    ttl_max: float = 300.0
    ttl_neg: float = 5.0
    """For inactive tokens."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Kong's AND/OR: satisfied when the claim holds every word of at least one alternative."""

    reason: DenialReason
    claim: ClaimPath
    alternatives: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """What a token must be and have. Verified on every request, remembered token or not."""

    issuers: frozenset[str] = frozenset()
    """Accepted `iss`; empty: any."""
    issuer_required: bool = False
    leeway: float = 0.0
    """Seconds of clock skew tolerated on `exp`, `nbf` and `iat`."""
    requirements: tuple[Requirement, ...] = ()
    claims_forbidden: tuple[ClaimPath, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimHeader:
    """A claim written upstream as a header."""

    name: bytes
    """As written upstream."""
    claim: ClaimPath


class ClientAuth(StrEnum):
    """How we authenticate to the authorization server (RFC 6749 section 2.3.1)."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Notifier:
    """Who signs what an identity provider tells us of its own accord, and for whom it has to be meant."""

    issuer: str
    audiences: frozenset[str]
    jwks_uri: str | None = None
    """Where the keys are; None: the metadata of the identity provider's issuer say it."""
    subject_issuers: frozenset[str] = frozenset()
    """Whose subjects our tokens name."""
    authorization: str | None = field(repr=False, default=None)
    """The value of Authorization that it must send, where one was agreed on."""


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """An authorization server and how we talk to it."""

    name: str
    issuer: str | None
    introspection_endpoint: str | None
    """None: taken from discovery at `issuer`."""
    client_id: str
    client_secret: str = field(repr=False)
    client_auth: ClientAuth = ClientAuth.BASIC
    hint: str | None = "access_token"
    """`token_type_hint` (RFC 7662 section 2.1)."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    post_args: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    accept: str = "application/json"
    timeout: float = 2.0
    """Seconds for the whole introspection: waiting, discovery, connecting, retrying, reading."""
    ssl_verify: bool = True
    ca_file: str | None = None
    allow_http: bool = False
    freshness: Freshness = Freshness()
    ttl_resurrect: float = 0.0
    ask_ahead: float = 0.0
    """Seconds before its end that a remembered token in use is asked about again; 0: never."""
    concurrency: int = 64
    """Introspections under way at once."""
    inactive_rate: float = 200.0
    """Inactive answers per second after which unknown tokens are held off; remembered and stale ones are not."""
    failures: int = 5
    """Failures in a row after which it is held off from."""
    digest_key: bytes = field(default=b"", repr=False)
    """Keys the digests of tokens; derived from everything static that can change this server's answer."""
    logouts: Notifier | None = None
    """Of logout tokens (OpenID Connect Back-Channel Logout 1.0); None: it sends none."""
    security_events: Notifier | None = None
    """Of security event tokens (RFC 8935); None: it sends none."""


@dataclass(frozen=True, slots=True)
class Access:
    """Everything a protected route needs to decide about a token."""

    provider: IdentityProvider
    policy: AccessPolicy
    extraction: Extraction
    freshness: Freshness
    """The provider's, or shorter."""
    hide_credentials: bool = False
    headers: tuple[ClaimHeader, ...] = ()


# --- where a route leads --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """One address of a service."""

    host: str
    port: int
    weight: int = 100


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How targets are watched."""

    path: str | None = None
    """Asked every `interval` with GET; None: only failures of real requests count."""
    interval: float = 5.0
    timeout: float = 1.0
    unhealthy_after: int = 3
    """Failures in a row."""
    healthy_after: int = 1
    """Successes in a row; also, without `path`, one `interval` of rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """An upstream: its origin, addresses, timeouts (seconds) and limits. Compared by identity: it keys its pools."""

    name: str
    scheme: str
    authority: str
    """Value of Host sent upstream unless the route preserves the client's."""
    path: str
    """Path prefix without a trailing slash: "" or "/base"."""
    targets: tuple[Target, ...]
    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    write_timeout: float = 60.0
    max_connections: int = 1024
    """Per target."""
    idle_timeout: float = 55.0
    """Seconds a kept-alive connection may rest."""
    tls: SSLContext | None = None
    server_name: str | None = None
    health: HealthCheck = HealthCheck()


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a route takes: all kinds that are present must match, within a kind any value does."""

    paths: tuple[str, ...] = ()
    """Plain prefixes, matched on a segment boundary."""
    patterns: tuple[Pattern[str], ...] = ()
    """Regular expressions, anchored at the start."""
    methods: frozenset[str] = frozenset()
    hosts: tuple[str, ...] = ()
    """Lower case; one `*` as the leftmost or rightmost label."""
    headers: tuple[tuple[bytes, frozenset[bytes]], ...] = ()
    """(name in lower case, accepted values)."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A match, what it requires, and what it leads to."""

    name: str
    match: Match
    service: Service
    access: Access | None
    """None: public, said so in the configuration."""
    denials: Mapping[DenialReason, "Reply"] = field(repr=False, default_factory=dict)
    """Rendered when the snapshot was built; complete for a protected route."""
    strip_path: bool = False
    preserve_host: bool = False


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What is said to upstreams about the way a request came."""

    trusted: tuple[Any, ...] = ()
    """`ipaddress` networks whose X-Forwarded-* are kept."""
    via: bytes = b"fastgate"
    """Our pseudonym in Via (RFC 9110 section 7.6.3); seeing it again is a loop."""
    protected: frozenset[bytes] = frozenset()
    """Canonical names (lower case, "-" for "_" and ".") of every header that `upstream_headers` of any route sets."""


# --- decisions and outcomes -----------------------------------------------------------------------------------


class Permit(NamedTuple):
    """Evidence that a token satisfied a route. Nothing protected is forwarded without one."""

    token: AccessToken
    state: ActiveToken
    fields: tuple[tuple[bytes, bytes], ...]
    """Identity headers for the upstream."""


class Denial(NamedTuple):
    """A token state against an access policy, now: refused."""

    reason: DenialReason


Decision = Permit | Denial


class Reply(NamedTuple):
    """An answer of our own, ready but for Date, Connection and Content-Length."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    reason: str
    """For the access log and the counters, never for the client."""
    route: str = ""
    """Name of the route, "" before one matched."""


class AnswerHead(NamedTuple):
    """The head of an upstream's answer that passed every framing and syntax check (RFC 9112 sections 4 to 6)."""

    status: int
    reason: bytes
    """Reason phrase as received; may be empty."""
    fields: tuple[Field, ...]
    framing: Framing
    """Already what RFC 9112 section 6.3 makes of method and status: NO_BODY for HEAD, 1xx, 204 and 304."""
    keep_alive: bool
    upgrade: bytes | None
    """The value of Upgrade in lower case on a 101, else None."""


class Completion(NamedTuple):
    """What became of one request: one line of the access log. Holds no token and no query."""

    at: float
    """Wall time when the head was complete."""
    seconds: float
    peer: str
    method: str
    host: str
    path: str
    status: int
    """0: the client was gone before an answer could be sent."""
    outcome: str
    """One of forwarded, refused, failed, tunnel, client_gone."""
    reason: str
    """DenialReason, Cannot or Stage behind a refusal or failure; "" otherwise."""
    route: str
    service: str
    target: str
    """host:port that answered, "" when nothing was forwarded."""
    upstream_seconds: float | None
    """From the forwarded head to the answer's head."""
    received: int
    """Octets of the request's body."""
    sent: int
    """Octets of the answer's body."""


class Forward(NamedTuple):
    """Send the request to the route's service."""

    route: Route
    permit: Permit | None
    """None only on a public route."""
    forwarding: Forwarding = Forwarding()
    """Of the same snapshot as the route."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Everything compiled from one version of the configuration. A request sees exactly one."""

    version: str
    """Digest of the configuration, to tell versions apart."""
    routes: tuple[Route, ...]
    table: Any = field(repr=False)
    """`policy.routing.RouteTable` over `routes`."""
    providers: Mapping[str, IdentityProvider]
    services: Mapping[str, Service]
    settings: "Settings"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int
    tls: SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds towards clients. Sizes in octets, times in seconds."""

    request_line: int = 16 * 1024
    header_field: int = 16 * 1024
    header_section: int = 64 * 1024
    header_count: int = 128
    connections: int = 10_000
    header_timeout: float = 10.0
    """From the first octet of a head to its last."""
    body_timeout: float = 60.0
    """For so much of a request body as `body_rate` asks for."""
    body_rate: int = 100
    """Octets a second that a body must have on average over each `body_timeout`; 0: one octet will do."""
    keepalive_timeout: float = 75.0
    drain_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Admin:
    """The operators' listener."""

    address: Address
    token: str | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class Redis:
    """The shared tier's Redis: where it is, and what makes what lies there ours."""

    kind: str
    """server, unix, sentinel or cluster."""
    addresses: tuple[tuple[str, int], ...] = ()
    """Of the server, the Sentinels, or some nodes of the Cluster."""
    path: str = ""
    """Of a unix socket."""
    master: str = ""
    """The name that Sentinels know the servers by."""
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: SSLContext | None = field(default=None, compare=False)
    """Made anew with every reload: what it was made from is compared."""
    tls_from: tuple[str | bool | None, ...] = ()
    prefix: str = "fastgate"
    timeout: float = 0.05
    """Seconds for one operation."""
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """What sealing keys are derived from: the first writes, the others still read. A reload may change them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What concerns the whole process."""

    listen: tuple[Address, ...]
    admin: Admin | None
    limits: Limits = Limits()
    forwarding: Forwarding = Forwarding()
    max_entries: int = 100_000
    """Of the memory tier, active tokens; inactive ones have a tenth of it to themselves."""
    revocation_ttl: float = 86_400.0
    """Seconds a revocation is remembered when the tokens it covers state no `exp`."""
    redis: Redis | None = None
    """None: nothing is shared."""
    log_format: str = "json"
    access_log: bool = True
    express_lane: bool = True
    """Whether usual requests may take the express lane."""
    workers: int | None = 1
    """None: one for each core that is available."""
    worker_timeout: float = 10.0
    """Seconds without a sign of life after which a worker is replaced."""
    events: Address | None = None
    """The listener for identity providers alone."""
