"""The event log: what happened to the gateway itself, as JSON or for a console, on stderr.

Everything goes through structlog: our own events and what libraries say through `logging` and `warnings`. A
`LineSink` writes the lines, because an event must not make requests wait for a stuck stderr either.
"""

import atexit
import logging
import sys
from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import IO, Any, Final

import orjson
import structlog

from fastgate.clock import SystemClock
from fastgate.control.sink import PIECE, LineSink
from fastgate.control.text import escape, escape_lines, redact, timestamp

SECRET_KEYS: Final = frozenset(
    {
        "access_token",
        "assertion",
        "authorization",
        "body",
        "client_secret",
        "cookie",
        "id_token",
        "password",
        "refresh_token",
        "secret",
        "token",
    }
)
"""Keys whose value is never written, whoever logs it."""

TRACE_HALVES: Final = (1600, 800, 200)
"""Characters that are left of both ends of a traceback that is too long."""

Event = MutableMapping[str, Any]


class EventLog:
    """Where rendered events go; speaks structlog's logger interface (a method per level)."""

    def __init__(self, stream: IO[Any] | int | None) -> None:
        self.dropped = 0
        self._sink: LineSink[bytes] = LineSink(stream, bytes, self._count)

    def msg(self, line: bytes) -> None:
        """Queue one rendered line; starts the writing thread again after a fork."""
        self._sink.start()
        self._sink.put(line)

    debug = info = warning = warn = error = critical = exception = fatal = log = msg

    def close(self, timeout: float = 1.0) -> None:
        """Write what is queued for at most `timeout` seconds. Idempotent."""
        self._sink.close(timeout)

    def _count(self, lines: int) -> None:
        self.dropped += lines


class _Bridge(logging.Handler):
    """Carries the records of `logging` into structlog; libraries keep talking as they do."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            structlog.get_logger().log(
                record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
            )
        except Exception:  # noqa: BLE001  # a record that cannot be formatted is a library's bug, not an outage
            structlog.get_logger().error("log record could not be formatted", logger=record.name)


_current: EventLog | None = None


def configure(
    format_: str,
    stream: IO[Any] | int | None = None,
    *,
    level: int = logging.INFO,
    process: Mapping[str, Any] | None = None,
) -> EventLog:
    """Send every event to `stream` (default: stderr) as "json" or "console" lines; may be called again.

    `process` says in every line which of several processes wrote it.
    """
    global _current  # noqa: PLW0603  # logging is global by nature: the last configuration holds
    close()
    _current = EventLog(sys.__stderr__ if stream is None else stream)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            partial(_stamp, process or {}),
            # Plainly formatted: the renderers that show local variables would show tokens.
            structlog.processors.format_exc_info,
            sanitize,
            partial(_fitting, _json if format_ == "json" else _console()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _current,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Bridge)]
    root.addHandler(_Bridge())
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    return _current


def close(timeout: float = 1.0) -> None:
    """Flush the event log; called at exit."""
    if _current is not None:
        _current.close(timeout)


atexit.register(close)


def sanitize(_logger: Any, _method: str, event: Event) -> Event:
    """Make every value printable and small, without credentials, and of a type that any renderer takes."""
    return {
        escape(key): "[redacted]" if key.lower() in SECRET_KEYS else _safe(value, lines=key == "exception")
        for key, value in event.items()
        if value is not None
    }


def _safe(value: Any, *, lines: bool = False, depth: int = 4) -> Any:
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if depth and isinstance(value, Mapping):
        return {
            escape(str(key)): "[redacted]" if str(key).lower() in SECRET_KEYS else _safe(item, depth=depth - 1)
            for key, item in value.items()
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_safe(item, depth=depth - 1) for item in value]
    text = redact(value if isinstance(value, str) else _described(value))
    return escape_lines(text) if lines else escape(text)


def _described(value: Any) -> str:
    """Describe any object: an exception by its message, anything else by its repr."""
    return str(value) if isinstance(value, BaseException) else repr(value)


def _stamp(process: Mapping[str, Any], _logger: Any, _method: str, event: Event) -> Event:
    level, text = event.pop("level"), event.pop("event")
    return {"time": timestamp(SystemClock.now()), "level": level, "event": text, **process, **event}


def _fitting(render: Any, logger: Any, method: str, event: Event) -> bytes:
    """Render a line that is written in one piece, without the middle of a long traceback if need be.

    Lines of several processes on one pipe must not mix.
    """
    line: bytes = render(logger, method, dict(event))
    trace = event.get("exception", "")
    for half in TRACE_HALVES:
        if len(line) <= PIECE or len(trace) <= 2 * half:
            break
        line = render(logger, method, {**event, "exception": f"{trace[:half]}\n    ...\n{trace[-half:]}"})
    return line


def _json(_logger: Any, _method: str, event: Event) -> bytes:
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)


def _console() -> Any:
    """Make structlog's console renderer, as bytes; colours only where a person is looking."""
    render = structlog.dev.ConsoleRenderer(
        colors=sys.__stderr__ is not None and sys.__stderr__.isatty(),
        exception_formatter=structlog.dev.plain_traceback,
        timestamp_key="time",
    )
    return lambda logger, method, event: render(logger, method, event).encode() + b"\n"
