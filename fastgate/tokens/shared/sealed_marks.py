"""How a revocation lies in Redis and travels: sealed under an id that says nothing about it."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from fastgate.model import Mark
from fastgate.tokens.revocation import CLAIMS
from fastgate.tokens.shared.sealing import TAG_SIZE, Keyring, Unopened

PURPOSE: Final = b"mark"
ID: Final = b"mark id"
ID_SIZE: Final = TAG_SIZE
_LENGTH_SIZE: Final = 4
_TOKEN: Final = re.compile(r"[0-9a-f]{64}")
_KINDS: Final = CLAIMS | {"token", "all"}


class Sealed(NamedTuple):
    """A field of the ledger."""

    id: bytes
    octets: bytes


def seal(keyring: Keyring, mark: Mark) -> Sealed:
    """Seal a revocation; everybody seals the same one the same way."""
    name = name_of(keyring, mark)
    return Sealed(name, keyring.seal(PURPOSE, name, orjson.dumps(list(mark))))


def name_of(keyring: Keyring, mark: Mark) -> bytes:
    """The id under which revocations of the same thing lie."""
    return keyring.stamp(ID, mark.claim.encode(), mark.value.encode("utf-8", "surrogatepass"))


def open_(keyring: Keyring, sealed: Sealed) -> Mark:
    """Read a revocation that one of us sealed. Raises Unopened for anything else."""
    plain = keyring.open(PURPOSE, sealed.id, sealed.octets)
    try:
        return _mark(*orjson.loads(plain))
    except (ValueError, TypeError):
        raise Unopened("malformed") from None


def _mark(claim: Any, value: Any, at: Any, until: Any) -> Mark:
    if claim not in _KINDS or not isinstance(value, str) or (claim == "token" and not _TOKEN.fullmatch(value)):
        raise ValueError("revokes nothing")
    if type(at) is not int or type(until) not in {int, float} or not math.isfinite(until):
        raise ValueError("says no time")
    return Mark(claim, value, at, float(until))


def pack(sealed: Iterable[Sealed]) -> bytes:
    """Several of them, for a message."""
    return b"".join(each.id + len(each.octets).to_bytes(_LENGTH_SIZE, "big") + each.octets for each in sealed)


def unpack(octets: bytes) -> Iterator[Sealed]:
    """Take them apart again; ends where it makes no sense."""
    at = 0
    while at + ID_SIZE + _LENGTH_SIZE <= len(octets):
        begins = at + ID_SIZE + _LENGTH_SIZE
        ends = begins + int.from_bytes(octets[at + ID_SIZE : begins], "big")
        if ends > len(octets):
            return
        yield Sealed(octets[at : at + ID_SIZE], octets[begins:ends])
        at = ends
