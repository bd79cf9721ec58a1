"""`python -m tests.support.prepare PART ...`: fetch real parts before the tests, or say why they cannot be had.

Exit status: 0 all there, 3 at least one cannot be had (one sentence each on standard error).
"""

import sys
from collections.abc import Callable

from tests.support.cache import Missing
from tests.support.corpus import Corpus
from tests.support.keycloak import distribution
from tests.support.oidc_provider import modules
from tests.support.programs import checkers
from tests.support.redis import server

PARTS: dict[str, Callable[[], object]] = {
    "oidc-provider": modules,
    "corpus": Corpus,
    "checkers": checkers,
    "redis": server,
    "keycloak": distribution,
}


def main(names: list[str]) -> int:
    """Fetch the parts of these names."""
    status = 0
    for name in names:
        try:
            PARTS[name]()
        except Missing as missing:
            sys.stderr.write(f"{name}: {missing}\n")
            status = 3
        else:
            sys.stdout.write(f"== {name}: ready\n")
        sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
