"""What is known about the way to one identity provider, and the few log lines about it."""

from typing import Any, Final

import structlog

from fastgate.clock import Clock
from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import IdentityProvider
from fastgate.tokens.quiet import Quiet

log: Final = structlog.get_logger("fastgate.tokens")

OUT_OF_REACH: Final = frozenset({Cannot.TIMEOUT, Cannot.UNAVAILABLE})
"""The failures during which a known-active token may go on, where the provider allows it."""

ANSWERS_AGAIN: Final = "identity_provider_answers_again"
HELD_OFF: Final = "identity_provider_held_off"
ADVICE: Final = {
    Cannot.TIMEOUT: "is it slow, or is a firewall dropping packets?",
    Cannot.UNAVAILABLE: "is it running, and is it reachable from here?",
    Cannot.MALFORMED: "is this the introspection endpoint, and does it answer with JSON (RFC 7662)?",
    Cannot.REJECTED: "it refuses our credentials: check client_id, client_secret and client_auth",
    Cannot.OVERLOADED: "more unknown tokens than may be asked about: a flood, or limits that are too low",
}


class Health:
    """The outcome of the last question; a warning per kind of failure, now and then."""

    __slots__ = ("_provider", "_quiet", "_told", "out_of_reach", "problem", "reachable")

    def __init__(self, provider: IdentityProvider, clock: Clock) -> None:
        self._provider = provider
        self._quiet = Quiet(clock)
        self._told = False
        """Whether the last line said that something is wrong."""
        self.reachable: bool | None = None
        """None: not asked yet."""
        self.out_of_reach = False
        """Whether the last question failed without any answer."""
        self.problem: str | None = None
        """Why the last question failed, in our own words; None when it did not."""

    def succeeded(self) -> None:
        """Take note of an answer that could be understood."""
        # One that fails and answers by turns is not told about each time; later successes make up for it.
        if self._told and self._quiet.suppressed(ANSWERS_AGAIN) is not None:
            self._told = False
            log.info(ANSWERS_AGAIN, **self._labels())
            self._quiet.over(ANSWERS_AGAIN)
        self.reachable = True
        self.out_of_reach = False
        self.problem = None

    def failed(self, error: IntrospectionError) -> None:
        """Take note of a failure. Our own limits (OVERLOADED) say nothing about the peer."""
        if error.kind is not Cannot.OVERLOADED:
            self.reachable = False
            self.out_of_reach = error.kind in OUT_OF_REACH
            self.problem = str(error)
        suppressed = self._quiet.suppressed(error.kind)
        if suppressed is None:
            return
        self._told = self._told or error.kind is not Cannot.OVERLOADED
        log.warning(
            "identity_provider_failed",
            kind=str(error.kind),
            detail=error.detail,
            advice=ADVICE[error.kind],
            suppressed=suppressed,
            **self._labels(),
        )

    def held_off(self, error: IntrospectionError, failures: int) -> None:
        """Warn that nothing more is asked for now."""
        suppressed = self._quiet.suppressed(HELD_OFF)
        if suppressed is None:
            return
        self._told = True
        log.warning(
            HELD_OFF,
            failures=failures,
            kind=str(error.kind),
            advice="asked once a second until it answers; new tokens get 503 meanwhile",
            suppressed=suppressed,
            **self._labels(),
        )

    def other_auth_method(self, method: str) -> None:
        """Warn that the metadata do not offer the client authentication that is configured."""
        log.warning(
            "identity_provider_auth_method",
            configured=str(self._provider.client_auth),
            used=method,
            advice="the issuer's metadata do not list the configured client_auth",
            **self._labels(),
        )

    def _labels(self) -> dict[str, Any]:
        provider = self._provider
        return {
            "identity_provider": provider.name,
            "asked": provider.introspection_endpoint or provider.issuer,
            "client_id": provider.client_id,
        }
