"""Who may talk to the development authorization server, and how they prove who they are (RFC 6749 section 2.3.1)."""

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus


@dataclass(frozen=True, slots=True)
class Client:
    """A client of the authorization server."""

    secret: str = field(repr=False)
    scopes: frozenset[str] = frozenset()
    """What its tokens may carry."""
    introspects: bool = False
    """A resource server: may ask about tokens (RFC 7662 section 4), and its name is their audience."""


class OAuthError(Exception):
    """An error answer (RFC 6749 section 5.2)."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status


def authenticate(
    clients: Mapping[str, Client], authorization: str | None, form: Mapping[str, str]
) -> tuple[str, Client]:
    """Find the client that a request comes from; by HTTP Basic or in the form, never both. Raises OAuthError."""
    if authorization is not None:
        if "client_secret" in form:
            raise OAuthError("invalid_request", "one way of authenticating, not two")
        name, secret = _basic(authorization)
    else:
        name, secret = form.get("client_id", ""), form.get("client_secret", "")
    client = clients.get(name)
    if client is None or not hmac.compare_digest(secret.encode(), client.secret.encode()):
        raise OAuthError("invalid_client", "unknown client or wrong secret", status=401)
    return name, client


def _basic(authorization: str) -> tuple[str, str]:
    """Name and secret, each form-encoded before they were joined."""
    scheme, _, credentials = authorization.partition(" ")
    try:
        name, colon, secret = base64.b64decode(credentials.strip(), validate=True).decode("ascii").partition(":")
    except ValueError:  # no base64, no ASCII
        colon = name = secret = ""
    if scheme.lower() != "basic" or not colon:
        raise OAuthError("invalid_client", "Authorization must be Basic", status=401)
    return unquote_plus(name), unquote_plus(secret)
