"""Keys of an identity provider, and what it signs with them: logout tokens and security events.

    signer = Signer("RS256", "k1")
    idp.keys = [signer.public]
    token = signer.logout(idp.issuer, sub="alex", sid="s1")
    event = signer.event(idp.issuer, "session-revoked", {"format": "opaque", "id": "s1"})

`...` leaves a claim or a member of the header out.
"""

import base64
import hashlib
import hmac
import time
import uuid
import warnings
from functools import cache
from typing import Any

import orjson
from joserfc import jwk, jws

LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
EVENTS = {
    "session-revoked": "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
    "credential-change": "https://schemas.openid.net/secevent/caep/event-type/credential-change",
    "verification": "https://schemas.openid.net/secevent/ssf/event-type/verification",
    "stream-updated": "https://schemas.openid.net/secevent/ssf/event-type/stream-updated",
}
_KINDS: dict[str, tuple[Any, Any]] = {
    **{f"{scheme}{bits}": ("RSA", 2048) for scheme in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
    "Ed448": ("OKP", "Ed448"),
}


@cache
def _key(alg: str, kid: str) -> jwk.Key:
    return jwk.generate_key(*_KINDS[alg], {"kid": kid})


def sign(key: Any, payload: bytes, **header: Any) -> str:
    """Sign anything in any way, also one that nobody should take."""
    with warnings.catch_warnings(action="ignore"):
        registry = jws.JWSRegistry(algorithms=[str(header["alg"])], strict_check_header=False)
        return jws.serialize_compact(header, payload, key, registry=registry)


def mac(signer: "Signer", payload: bytes, **header: Any) -> str:
    """Make what joserfc refuses to: an HMAC whose secret is the public key, as everybody can read it."""
    secret = signer.key.as_pem(private=False)
    parts = [orjson.dumps({"alg": "HS256", "kid": signer.kid, **header}), payload]
    signing = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    digest = base64.urlsafe_b64encode(hmac.digest(secret, signing, hashlib.sha256)).rstrip(b"=")
    return (signing + b"." + digest).decode()


class Signer:
    """One key; the same `alg` and `kid` are the same key in every test."""

    def __init__(self, alg: str = "RS256", kid: str = "k1") -> None:
        self.alg = alg
        self.kid = kid
        self.key = _key(alg, kid)

    @property
    def public(self) -> dict[str, Any]:
        """The key as a key set holds it."""
        return {**self.key.as_dict(private=False), "use": "sig", "alg": self.alg}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """Sign claims; `header` adds to alg and kid, or replaces them."""
        said = {"alg": self.alg, "kid": self.kid, **header}
        payload = orjson.dumps({name: value for name, value in claims.items() if value is not ...})
        return sign(self.key, payload, **{name: value for name, value in said.items() if value is not ...})

    def logout(self, issuer: str, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Make a logout token, as Keycloak makes them."""
        now = int(time.time())
        usual = {"iss": issuer, "aud": "gateway", "iat": now, "exp": now + 120, "jti": str(uuid.uuid4())}
        return self.sign(
            {**usual, "events": {LOGOUT: {}, "revoke_offline_access": True}, **claims},
            **{"typ": "logout+jwt", **(header or {})},
        )

    def event(
        self,
        issuer: str,
        name: str = "session-revoked",
        sub_id: Any = ...,
        *,
        body: Any = None,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Make a security event token about one event."""
        usual = {"iss": issuer, "aud": "gateway", "iat": int(time.time()), "jti": str(uuid.uuid4())}
        return self.sign(
            {**usual, "sub_id": sub_id, "events": {EVENTS.get(name, name): body or {}}, **claims},
            **{"typ": "secevent+jwt", **(header or {})},
        )
