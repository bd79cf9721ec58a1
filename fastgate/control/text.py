"""Text that somebody else wrote, made safe to stand in one line of a log."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

_CREDENTIAL: Final = re.compile(
    r"""\b(?:(bearer|basic|dpop)(\s+)"""
    r"""|((?:access_|refresh_|id_)?token|client_secret|password)(=["']?|["']\s*:\s*["']?))[^\s&,;"']+""",
    re.IGNORECASE,
)
"""An Authorization value, a form or query parameter, a key of JSON or of a Python repr."""


def escape(text: str) -> str:
    """`text` itself when every character can be printed, else with escapes instead of the control characters.

    Lone surrogates, line separators and bidirectional marks count as control characters: a log line must read
    the same in a terminal, in a file and in a viewer that renders Unicode.
    """
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def escape_lines(text: str) -> str:
    """Like `escape`, for text that legitimately has lines (a traceback)."""
    return "\n".join(escape(line.replace("\t", "    ")) for line in text.split("\n"))


def redact(text: str) -> str:
    """`text` without what looks like a credential. The last line of defence: no caller should log one."""
    return _CREDENTIAL.sub(_redacted, text)


def _redacted(match: re.Match[str]) -> str:
    scheme, space, name, sign = match.groups(default="")
    return f"{scheme}{space}{name}{sign}[redacted]"


def timestamp(at: float) -> str:
    """Wall time as UTC with milliseconds (RFC 3339 section 5.6)."""
    second = int(at)
    return f"{_second(second)}.{int((at - second) * 1000):03d}Z"


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    """Format the part that changes once a second; many lines share it."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
