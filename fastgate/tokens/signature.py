"""Signatures: the one place that verifies any (RFC 7515 section 5.2), with joserfc."""

from collections.abc import Iterable
from typing import Final

from joserfc import jwk, jws
from joserfc.errors import JoseError
from joserfc.jwa import JWSAlgModel

from fastgate.policy.signed import ALGORITHMS, MAX_HEADER, Key


class _Registry(jws.JWSRegistry):
    """joserfc's registry with our bounds, and with `EdDSA`, which RFC 9864 renames but servers go on to use."""

    max_header_length = MAX_HEADER

    def get_alg(self, name: str) -> JWSAlgModel:
        """Return an algorithm that `policy.signed` allows; without joserfc's warning about the older name."""
        if name not in ALGORITHMS:
            raise JoseError
        return self.algorithms[name]


_REGISTRY: Final = _Registry(algorithms=tuple(ALGORITHMS), strict_check_header=False)


def payload(compact: str, keys: Iterable[Key]) -> bytes | None:
    """Return the payload of a token that one of these keys signed; None: none of them did.

    `keys` are those that `policy.signed.candidates` allows for the token's own `alg`.
    """
    for key in keys:
        try:
            signed = jws.extract_compact(compact.encode("ascii"), registry=_REGISTRY)
            if jws.validate_compact(signed, jwk.import_key(dict(key)), registry=_REGISTRY):
                return signed.payload
        # A key that cannot be used, or a token that joserfc reads more strictly than we do.
        except (JoseError, ValueError, TypeError):
            continue
    return None
