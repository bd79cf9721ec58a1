"""What stands for an access token wherever it is remembered: a keyed digest (RFC 5869, RFC 7693)."""

import hashlib
import hmac
from typing import Final

from fastgate.model import IdentityProvider

KEY_SIZE: Final = 64
"""Octets: the longest key BLAKE2b takes."""

_SALT: Final = b"fastgate token digest v1"


def derive_key(secret: str, *parts: str) -> bytes:
    """Derive a key of KEY_SIZE octets from a secret and everything it shall be bound to (RFC 5869 section 2).

    `parts` are encoded with their lengths: no two different lists give the same key.
    """
    info = b"".join(len(part).to_bytes(8, "big") + part for part in map(_octets, parts))
    extracted = hmac.digest(_SALT, _octets(secret), hashlib.sha512)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha512)


def token_key(provider: IdentityProvider, token: str) -> bytes:
    """Digest a token into the 32 octets under which its state is remembered (keyed BLAKE2b, RFC 7693).

    The provider's `digest_key` is part of it: the same token at another provider is another key.
    """
    return hashlib.blake2b(_octets(token), digest_size=32, key=provider.digest_key).digest()


def fingerprint(token: str, key: bytes) -> bytes:
    """Digest a token alone into 32 octets, the same whoever issued it (keyed BLAKE2b, RFC 7693): it names revocations.

    `key` is shared by all workers that share revocations, and by nobody else.
    """
    return hashlib.blake2b(_octets(token), digest_size=32, key=key).digest()


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
