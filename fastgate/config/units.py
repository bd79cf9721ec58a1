"""Durations and sizes as people write them: `500ms`, `5s`, `1m`, `1h`; `64KiB`, `10MiB`; or plain numbers."""

import math
import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_OCTETS: Final = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "B": 1, "": 1}
_DURATION: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h|)")
_SIZE: Final = re.compile(r"([0-9]{1,15})(KiB|MiB|GiB|B|)")

LONGEST: Final = 366 * 24 * 3600.0
"""Seconds. Longer than this is a slip of the pen, and timers would overflow."""
LARGEST: Final = 1024**4
"""Octets."""

DURATION_PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h)?|.*\$\{.*)$"
SIZE_PATTERN: Final = r"^([0-9]+(KiB|MiB|GiB|B)?|.*\$\{.*)$"


def duration(value: Any) -> float:
    """Seconds of a duration as written; raises ValueError that says how to write one."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = float(match[1]) * _SECONDS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = _finite(value)
    else:
        raise ValueError("must be a duration: write 500ms, 5s, 1m, 1h or a number of seconds")
    if not 0 <= seconds <= LONGEST:
        raise ValueError("must be a duration between 0 and 8784h (366 days)")
    return seconds


def _finite(value: float) -> float:
    """A number as a float; one too large for a float counts as infinite, so that the bound refuses it."""
    try:
        seconds = float(value)
    except OverflowError:
        return math.inf
    return math.inf if math.isnan(seconds) else seconds


def positive_duration(value: Any) -> float:
    """As `duration`, and more than nothing."""
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError("must be longer than 0")
    return seconds


def size(value: Any) -> int:
    """Octets of a size as written; raises ValueError that says how to write one."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        octets = int(match[1]) * _OCTETS[match[2]]
    elif isinstance(value, int) and not isinstance(value, bool):
        octets = value
    else:
        raise ValueError("must be a size: write 64KiB, 10MiB or a number of bytes")
    if not 0 < octets <= LARGEST:
        raise ValueError("must be a size between 1 byte and 1024GiB")
    return octets


def show_duration(seconds: float) -> str:
    """A duration the way the file would say it."""
    for unit, factor in (("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= factor and seconds % factor == 0:
            return f"{int(seconds // factor)}{unit}"
    return f"{round(seconds * 1000)}ms" if 0 < seconds < 1 else f"{seconds:g}s"


def show_size(octets: int) -> str:
    """A size the way the file would say it."""
    for unit in ("GiB", "MiB", "KiB"):
        if octets % _OCTETS[unit] == 0:
            return f"{octets // _OCTETS[unit]}{unit}"
    return str(octets)


def _not_a_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def _schema(kind: str, pattern: str) -> WithJsonSchema:
    # `x-kind` is for the reference page; JSON Schema's own "duration" format is ISO 8601 and would mislead editors.
    return WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": pattern}], "x-kind": kind}
    )


Duration = Annotated[float, BeforeValidator(duration), _schema("duration", DURATION_PATTERN)]
"""Seconds, 0 allowed."""
PositiveDuration = Annotated[float, BeforeValidator(positive_duration), _schema("duration", DURATION_PATTERN)]
"""Seconds, more than 0."""
Size = Annotated[int, BeforeValidator(size), _schema("size", SIZE_PATTERN)]
"""Octets, at least 1."""
NotAFlag: Final = BeforeValidator(_not_a_flag)
"""For numbers: pydantic alone would take `true` for 1."""
Count = Annotated[int, NotAFlag, Field(ge=1, le=10_000_000)]
"""How many of something."""
