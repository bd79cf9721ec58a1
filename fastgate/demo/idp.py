"""A development authorization server: opaque tokens in memory, gone with the process. Not for production.

It speaks what the gateway and a person with curl need: metadata (OpenID Connect Discovery, RFC 8414), two grants
(RFC 6749 sections 4.3 and 4.4), introspection (RFC 7662) and revocation (RFC 7009).
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from fastgate.clock import Clock, SystemClock
from fastgate.demo.clients import Client, OAuthError, authenticate

MAX_TOKENS: Final = 10_000
AUTH_METHODS: Final = ["client_secret_basic", "client_secret_post"]


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who can log in."""

    password: str = field(repr=False)
    subject: str


@dataclass(frozen=True, slots=True)
class Issued:
    """What the server remembers of a token."""

    client_id: str
    scope: str
    subject: str
    username: str | None
    sid: str | None
    iat: int
    exp: int


class AuthorizationServer:
    """The server's state and its endpoints; `issuer` must be set before it is asked."""

    def __init__(
        self,
        clients: Mapping[str, Client],
        users: Mapping[str, User],
        *,
        lifetime: int = 3600,
        clock: Clock | None = None,
    ) -> None:
        """`lifetime` of a token, in seconds."""
        self.issuer = ""
        self.introspections = 0
        """Questions about tokens that were answered."""
        self._clients = clients
        self._users = users
        self._lifetime = lifetime
        self._clock = clock or SystemClock()
        self._tokens: dict[str, Issued] = {}
        self._audience = sorted(name for name, client in clients.items() if client.introspects)

    def application(self) -> web.Application:
        """Build what serves the endpoints."""
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._metadata)
        app.router.add_get("/.well-known/oauth-authorization-server", self._metadata)
        app.router.add_post("/token", _form(self._token))
        app.router.add_post("/introspect", _form(self._introspect))
        app.router.add_post("/revoke", _form(self._revoke))
        return app

    def issue(self, client_id: str, scope: str, username: str | None = None) -> str:
        """Issue a token without asking any questions."""
        now = int(self._clock.now())
        if len(self._tokens) >= MAX_TOKENS:
            self._forget(now)
        token = secrets.token_urlsafe(32)
        self._tokens[token] = Issued(
            client_id=client_id,
            scope=scope,
            subject=client_id if username is None else self._users[username].subject,
            username=username,
            sid=None if username is None else secrets.token_urlsafe(8),
            iat=now,
            exp=now + self._lifetime,
        )
        return token

    def _forget(self, now: int) -> None:
        """Make room: expired tokens go, and if that is not enough, the older half."""
        live = [(token, issued) for token, issued in self._tokens.items() if issued.exp > now]
        self._tokens = dict(live if len(live) < MAX_TOKENS else live[MAX_TOKENS // 2 :])

    # --- endpoints ---------------------------------------------------------------------------------------------

    async def _metadata(self, _request: web.Request) -> web.Response:
        return _json(
            200,
            {
                "issuer": self.issuer,
                "token_endpoint": f"{self.issuer}/token",
                "introspection_endpoint": f"{self.issuer}/introspect",
                "revocation_endpoint": f"{self.issuer}/revoke",
                "grant_types_supported": ["client_credentials", "password"],
                "response_types_supported": [],
                "scopes_supported": sorted(set[str]().union(*(c.scopes for c in self._clients.values()))),
                "token_endpoint_auth_methods_supported": AUTH_METHODS,
                "introspection_endpoint_auth_methods_supported": AUTH_METHODS,
                "revocation_endpoint_auth_methods_supported": AUTH_METHODS,
            },
        )

    def _token(self, authorization: str | None, form: Mapping[str, str]) -> dict[str, Any]:
        """Issue a token for a client or for a user (RFC 6749 sections 4.3.2, 4.4.2 and 5.1)."""
        name, client = authenticate(self._clients, authorization, form)
        username = self._granted_to(form)
        asked = form.get("scope", "").split()
        if not client.scopes.issuperset(asked):
            raise OAuthError("invalid_scope", f"may ask for: {' '.join(sorted(client.scopes)) or 'nothing'}")
        scope = " ".join(asked or sorted(client.scopes))
        token = self.issue(name, scope, username)
        return {"access_token": token, "token_type": "Bearer", "expires_in": self._lifetime, "scope": scope}

    def _granted_to(self, form: Mapping[str, str]) -> str | None:
        """Name the user that the grant is about, None for the client itself."""
        match form.get("grant_type"):
            case "client_credentials":
                return None
            case "password":
                username = form.get("username", "")
                user = self._users.get(username)
                if user is None or not secrets.compare_digest(
                    user.password.encode(), form.get("password", "").encode()
                ):
                    raise OAuthError("invalid_grant", "unknown user or wrong password")
                return username
            case None:
                raise OAuthError("invalid_request", "grant_type is missing")
            case _:
                raise OAuthError("unsupported_grant_type", "client_credentials or password")

    def _introspect(self, authorization: str | None, form: Mapping[str, str]) -> dict[str, Any]:
        """Say what a token is good for, to those who may ask (RFC 7662 section 2.2)."""
        _, client = authenticate(self._clients, authorization, form)
        if not client.introspects:
            raise OAuthError("unauthorized_client", "may not ask about tokens", status=403)
        token = _required(form, "token")
        self.introspections += 1
        issued = self._tokens.get(token)
        if issued is None or issued.exp <= self._clock.now():
            return {"active": False}
        said = {
            "active": True,
            "scope": issued.scope,
            "client_id": issued.client_id,
            "username": issued.username,
            "token_type": "Bearer",
            "exp": issued.exp,
            "iat": issued.iat,
            "nbf": issued.iat,
            "sub": issued.subject,
            "aud": self._audience,
            "iss": self.issuer,
            "sid": issued.sid,
        }
        return {name: value for name, value in said.items() if value is not None}

    def _revoke(self, authorization: str | None, form: Mapping[str, str]) -> dict[str, Any]:
        """Revoke a token of the asking client; an unknown one is as good as revoked (RFC 7009 section 2.2)."""
        name, _ = authenticate(self._clients, authorization, form)
        token = _required(form, "token")
        issued = self._tokens.get(token)
        if issued is not None and issued.client_id != name:
            raise OAuthError("invalid_request", "the token was issued to another client")
        self._tokens.pop(token, None)
        return {}


Endpoint = Callable[[str | None, Mapping[str, str]], dict[str, Any]]


def _form(endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Read the form, ask the endpoint, write its answer or its error."""

    async def answer(request: web.Request) -> web.Response:
        try:
            form = await _read_form(request)
            return _json(200, endpoint(request.headers.get(hdrs.AUTHORIZATION), form))
        except OAuthError as error:
            response = _json(error.status, {"error": error.error, "error_description": error.description})
            if error.error == "invalid_client":
                response.headers[hdrs.WWW_AUTHENTICATE] = 'Basic realm="demo"'
            return response

    return answer


async def _read_form(request: web.Request) -> dict[str, str]:
    """Read parameters, each at most once (RFC 6749 section 3.2)."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "a form is needed")
    try:
        fields = await request.post()
    except (ValueError, LookupError):  # octets that are no text, or of a charset nobody knows
        raise OAuthError("invalid_request", "the form cannot be read") from None
    if len(set(fields)) != len(fields):
        raise OAuthError("invalid_request", "a parameter is repeated")
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def _required(form: Mapping[str, str], name: str) -> str:
    if not form.get(name):
        raise OAuthError("invalid_request", f"{name} is missing")
    return form[name]


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )
