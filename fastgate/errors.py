"""The exception tree: a broken world is an exception, an expected answer is a value (see `model`).

No message holds a token, a secret or text that a peer sent.
"""

from dataclasses import dataclass
from enum import StrEnum


class FastgateError(Exception):
    """Root of everything fastgate raises on purpose."""


class StartError(FastgateError):
    """The gateway cannot start; the message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration file: where it is and what to do about it."""

    path: str
    """Dotted key path such as `services[0].routes[1].paths[0]`; empty for the file as a whole."""
    message: str
    line: int | None = None
    """Counted from 1; of the mapping when a key is missing from it; None when the file has no lines to name."""


class ConfigError(FastgateError):
    """The configuration is unusable; holds every problem, not the first."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        super().__init__(f"{file}: {len(problems)} problem(s)")
        self.file = file
        self.problems = problems


class Cannot(StrEnum):
    """Why we cannot know what a token is. The value is the metric label."""

    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    """Connection refused or lost, TLS failure, discovery failed, 5xx or 429."""
    MALFORMED = "malformed"
    """The answer does not follow RFC 7662 section 2.2."""
    REJECTED = "rejected"
    """The authorization server refused *our* credentials (401 or 403)."""
    OVERLOADED = "overloaded"
    """Our own limit on introspections was reached; nothing was sent."""


class IntrospectionError(FastgateError):
    """The authorization server could not be asked, or what it said cannot be trusted: we do not know."""

    def __init__(self, kind: Cannot, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        """Seconds the authorization server asked us to wait, where it did."""


class Side(StrEnum):
    """Which peer a forwarding failure belongs to."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"


class Stage(StrEnum):
    """How far forwarding had come. The value is the metric label."""

    SELECT = "select"
    """No healthy target, or the pool is full: nothing was sent."""
    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect_timeout"
    SEND = "send"
    """The connection died before the first byte of an answer."""
    HEAD_TIMEOUT = "head_timeout"
    HEAD = "head"
    """The answer's head breaks RFC 9112."""
    BODY = "body"
    """The answer ended early or its framing broke."""
    BODY_TIMEOUT = "body_timeout"
    REQUEST_BODY = "request_body"
    """The client's body ended early, stalled or broke its framing."""


class ForwardError(FastgateError):
    """Forwarding failed: on which side, at which stage, why."""

    def __init__(self, side: Side, stage: Stage, detail: str) -> None:
        super().__init__(f"{side} {stage}: {detail}")
        self.side = side
        self.stage = stage
        self.detail = detail


class HeadError(FastgateError):
    """A request head that is refused; carries the status it deserves (RFC 9112, RFC 9110 section 15.5)."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
