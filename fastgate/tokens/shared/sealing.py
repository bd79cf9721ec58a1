"""Sealing what lies in Redis: authenticated encryption bound to its place (RFC 5116), keys by HKDF (RFC 5869)."""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fastgate.policy.digest import derive_key

VERSION: Final = b"f1"
"""Begins every sealed value, in the clear; part of what is authenticated."""
ID_SIZE: Final = 4
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
HEADER_SIZE: Final = len(VERSION) + ID_SIZE
MARK_SIZE: Final = HEADER_SIZE + NONCE_SIZE
"""Octets at the beginning of a sealed value that tell it apart from every other one."""
KEYS_MAX: Final = 8
"""Secrets that are held at once, those of former configurations among them."""


class Unopened(Exception):  # noqa: N818 - it happens to values, it is no fault
    """Not sealed by us, or not for this place. `reason` is version, key or forged."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Key(NamedTuple):
    """What is derived from one secret."""

    id: bytes
    """In the clear, so that the right key is tried."""
    seal: bytes
    stamp: bytes
    fingerprint: bytes


class Keyring:
    """Keys from secrets: the first one seals, all of them open.

    Every place (a purpose and a name) has a key of its own, so that no key ever seals many values, and the nonce is
    a keyed digest of the value: two values never share one, and the same value is sealed the same way by everybody.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[str]) -> None:
        """Raises ValueError without any secret."""
        if not secrets:
            raise ValueError("there is nothing to derive keys from")
        self._keys = [_derived(secret) for secret in secrets]

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._keys)}>"

    @property
    def fingerprint_keys(self) -> tuple[bytes, ...]:
        """Key the fingerprints of revoked tokens; the first is for new ones."""
        return tuple(key.fingerprint for key in self._keys)

    def take(self, secrets: Sequence[str]) -> bool:
        """Put other secrets first; those before still open. Returns whether another one seals now."""
        keys = [_derived(secret) for secret in secrets]
        keys += [key for key in self._keys if key not in keys]
        former, self._keys = self._keys[0], keys[:KEYS_MAX]
        return self._keys[0] != former

    def seal(self, purpose: bytes, name: bytes, plain: bytes) -> bytes:
        """Seal `plain` for one place: version, key id, nonce, ciphertext and tag."""
        key = self._keys[0]
        place = _place(purpose, name)
        cipher_key, nonce_key = _place_keys(key, place)
        nonce = hashlib.blake2b(plain, key=nonce_key, digest_size=NONCE_SIZE).digest()
        header = VERSION + key.id
        return header + nonce + AESGCM(cipher_key).encrypt(nonce, plain, header + place)

    def open(self, purpose: bytes, name: bytes, sealed: bytes) -> bytes:
        """Return what was sealed for this place. Raises Unopened."""
        header = sealed[:HEADER_SIZE]
        if len(sealed) < MARK_SIZE + TAG_SIZE or not header.startswith(VERSION):
            raise Unopened("version")
        place = _place(purpose, name)
        keys = [key for key in self._keys if key.id == header[len(VERSION) :]]
        for key in keys:
            cipher = AESGCM(_place_keys(key, place)[0])
            try:
                return cipher.decrypt(sealed[HEADER_SIZE:MARK_SIZE], sealed[MARK_SIZE:], header + place)
            except InvalidTag:
                continue
        raise Unopened("forged" if keys else "key")

    def stamp(self, purpose: bytes, name: bytes, content: bytes = b"") -> bytes:
        """Authenticate what need not be hidden: TAG_SIZE octets."""
        return _stamp(self._keys[0], purpose, name, content)

    def stamped(self, stamp: bytes, purpose: bytes, name: bytes, content: bytes = b"") -> bool:
        """Whether one of us made this stamp."""
        return any(hmac.compare_digest(stamp, _stamp(key, purpose, name, content)) for key in self._keys)


def _derived(secret: str) -> _Key:
    def key(purpose: str) -> bytes:
        return derive_key(secret, "shared tier", purpose)

    return _Key(key("id")[:ID_SIZE], key("seal"), key("stamp"), key("fingerprint"))


def _place(purpose: bytes, name: bytes) -> bytes:
    return len(purpose).to_bytes(1, "big") + purpose + name


def _place_keys(key: _Key, place: bytes) -> tuple[bytes, bytes]:
    made = hashlib.blake2b(place, key=key.seal, digest_size=64).digest()
    return made[:32], made[32:]


def _stamp(key: _Key, purpose: bytes, name: bytes, content: bytes) -> bytes:
    place = _place(purpose, name)
    return hashlib.blake2b(
        len(place).to_bytes(4, "big") + place + content, key=key.stamp, digest_size=TAG_SIZE
    ).digest()
