"""The question about a token and the reading of the answer (RFC 7662 section 2)."""

from base64 import b64encode
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus, urlencode

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE, ActiveToken, ClientAuth, IdentityProvider, TokenState
from fastgate.policy.strict_json import MAX_DEPTH, malformed, read_object

__all__ = ["MAX_BODY", "MAX_DEPTH", "Asking", "asking", "decode", "token_state"]

MAX_BODY: Final = 64 * 1024
"""Octets of an answer; a longer one is not read."""

_OK: Final = 200
_REFUSED: Final = frozenset((401, 403))
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


class Asking(NamedTuple):
    """What is the same in every question to one provider. Its repr is safe; the values hold our credentials."""

    headers: dict[str, str]
    rest: bytes
    """The form behind the token."""

    def form(self, token: str) -> bytes:
        """Write the form about one token."""
        return b"token=%b%b" % (quote_plus(token).encode("ascii"), self.rest)

    def __repr__(self) -> str:
        return "Asking(...)"


def asking(provider: IdentityProvider) -> Asking:
    """Write the fields and the form of an introspection request (RFC 7662 section 2.1), but for the token.

    The client authenticates by exactly one method (RFC 6749 section 2.3.1); an Authorization field among the
    provider's own headers is that method. Arguments of the provider never replace what we say.
    """
    own = {name.lower() for name, _ in provider.headers}
    form = {}
    if provider.hint is not None:
        form["token_type_hint"] = provider.hint
    fields = {"Accept": provider.accept, "Content-Type": "application/x-www-form-urlencoded"}
    if "authorization" not in own:
        if provider.client_auth is ClientAuth.BASIC:
            fields["Authorization"] = _basic(provider.client_id, provider.client_secret)
        elif provider.client_id:
            form["client_id"] = provider.client_id
            if provider.client_auth is ClientAuth.POST:
                form["client_secret"] = provider.client_secret
    fields = {name: value for name, value in fields.items() if name.lower() not in own}
    rest = [*form.items(), *((name, value) for name, value in provider.post_args if name not in {"token", *form})]
    return Asking({**fields, **dict(provider.headers)}, b"".join(b"&" + urlencode([each]).encode() for each in rest))


def decode(status: int, content_type: str, body: bytes) -> TokenState:
    """Read the answer of an introspection endpoint (RFC 7662 section 2.2).

    Raises IntrospectionError: REJECTED when the endpoint refuses our credentials (section 2.3), UNAVAILABLE when it
    is overloaded or broken, MALFORMED for everything that is not a JSON object whose `active` is true or false.
    """
    if status in _REFUSED:
        raise IntrospectionError(Cannot.REJECTED, f"status {status}: our client credentials were refused")
    if status == _TOO_MANY or status >= _SERVER_ERROR:
        raise IntrospectionError(Cannot.UNAVAILABLE, f"status {status}")
    if status != _OK:
        raise malformed(f"status {status}")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise malformed("the answer is not application/json")
    return token_state(read_object(body, MAX_BODY))


def token_state(claims: dict[str, Any]) -> TokenState:
    """Read the members of an answer (RFC 7662 section 2.2), just received or remembered.

    Raises IntrospectionError (MALFORMED).
    """
    active = claims.get("active")
    if active is False:
        return INACTIVE
    if active is not True:
        raise malformed("active is neither true nor false")
    kind = claims.get("token_type")
    return ActiveToken(
        claims=claims,
        exp=_time(claims, "exp"),
        nbf=_time(claims, "nbf"),
        iat=_time(claims, "iat"),
        iss=_issuer(claims),
        bound="cnf" in claims or (isinstance(kind, str) and kind.lower() == "dpop"),
    )


def _basic(client_id: str, secret: str) -> str:
    """Form-encode both, then base64 (RFC 6749 section 2.3.1): a ":" or "é" in a secret survives."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + b64encode(pair.encode("ascii")).decode("ascii")


def _time(claims: dict[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    # bool is an int; 1e3 and numbers beyond 64 bits arrive as floats.
    if type(value) is not int or value < 0:
        raise malformed(f"{name} is not a number of seconds")
    return value


def _issuer(claims: dict[str, Any]) -> str | None:
    if "iss" not in claims:
        return None
    value = claims["iss"]
    if not isinstance(value, str):
        raise malformed("iss is not a string")
    return value
