"""A signed token before its signature is verified, and which keys may verify it (RFC 7515, RFC 7517, RFC 7518)."""

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from fastgate.errors import IntrospectionError
from fastgate.model import Refusal, Refused
from fastgate.policy.strict_json import malformed, read_object

MAX_HEADER: Final = 16 * 1024
"""Octets: a header may carry certificates, which are not looked at."""
MAX_KEY_SET: Final = 256 * 1024
"""Octets."""
MIN_MODULUS: Final = 2048
"""Bits of an RSA key (RFC 7518 section 3.3)."""

ALGORITHMS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    **{f"{scheme}{bits}": ("RSA", ()) for scheme in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ("EC", ("P-256",)),
    "ES384": ("EC", ("P-384",)),
    "ES512": ("EC", ("P-521",)),
    "EdDSA": ("OKP", ("Ed25519", "Ed448")),
    "Ed25519": ("OKP", ("Ed25519",)),
    "Ed448": ("OKP", ("Ed448",)),
}
"""Signatures that only the holder of a private key can make, with the kind of key and its curves.

Neither `none` nor a MAC: what a public key verifies must not be what a public key can make.
"""

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")

Key = Mapping[str, Any]
"""A JWK (RFC 7517 section 4)."""


class Signed(NamedTuple):
    """What the header of a token claims. Nothing is verified yet."""

    alg: str
    """One of ALGORITHMS."""
    kid: str | None
    typ: str | None
    """In lower case, without "application/" (RFC 7515 section 4.1.9)."""


def read_header(compact: str) -> Signed | Refusal:
    """Read the header of a token in the compact serialization (RFC 7515 section 4 and 7.1).

    Keys and addresses of keys in it (`jwk`, `jku`, `x5c`, `x5u`) are nothing to believe, and are not looked at.
    """
    form = _COMPACT.fullmatch(compact)
    if form is None:
        return Refusal(Refused.MALFORMED, "it is not a signed token of three parts; encrypted ones are not understood")
    try:
        header = read_object(urlsafe_b64decode(form[1] + "=="), MAX_HEADER)
    except (ValueError, IntrospectionError):
        return Refusal(Refused.MALFORMED, "its header is not a JSON object")
    alg, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(alg, str) or not isinstance(kid, str | None) or not isinstance(typ, str | None):
        return Refusal(Refused.MALFORMED, "its header has no alg, or a kid or typ that is no text")
    if "crit" in header:
        return Refusal(Refused.MALFORMED, "its header demands an extension that is not understood")
    if alg not in ALGORITHMS:
        return Refusal(Refused.FORGED, "it is signed in a way that anybody could sign, or that is not understood")
    return Signed(alg, kid, None if typ is None else typ.lower().removeprefix("application/"))


def read_key_set(body: bytes) -> tuple[Key, ...]:
    """Read a key set and keep what can verify a signature (RFC 7517 section 5).

    Raises IntrospectionError (MALFORMED) when it is no key set, or holds no such key.
    """
    keys = read_object(body, MAX_KEY_SET).get("keys")
    if not isinstance(keys, list):
        raise malformed("it is not a key set")
    usable = tuple(key for key in keys if isinstance(key, dict) and _verifies(key))
    if not usable:
        raise malformed("the key set holds no key that verifies signatures")
    return usable


def candidates(keys: Iterable[Key], signed: Signed) -> list[Key]:
    """List the keys that may have made this signature (RFC 7515 appendix D): those it names, else all that fit."""
    kind, curves = ALGORITHMS[signed.alg]
    return [
        key
        for key in keys
        if key["kty"] == kind
        and (not curves or key.get("crv") in curves)
        and key.get("alg", signed.alg) == signed.alg
        and (signed.kid is None or key.get("kid", signed.kid) == signed.kid)
    ]


def names_one_of(keys: Iterable[Key], signed: Signed) -> bool:
    """Whether it names a key of this set: if that did not sign it, no newer set will tell (RFC 7515 section 4.1.4)."""
    return signed.kid is not None and any(key.get("kid") == signed.kid for key in keys)


def _verifies(key: Key) -> bool:
    """Whether a key is public, strong and meant for signatures (RFC 7517 sections 4.1 to 4.3)."""
    operations = key.get("key_ops", ["verify"])
    if key.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return False
    kind = key.get("kty")
    return kind in ("EC", "OKP") or (kind == "RSA" and _bits(key.get("n")) >= MIN_MODULUS)


def _bits(number: Any) -> int:
    """Length of a number as RFC 7518 section 2 writes it (Base64urlUInt)."""
    try:
        return int.from_bytes(urlsafe_b64decode(number + "==")).bit_length()
    except (TypeError, ValueError):
        return 0
