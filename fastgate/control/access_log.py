"""The access log: one line per answered request, written by a thread, never waited for."""

from collections.abc import Callable
from typing import IO, Any, Final

import orjson

from fastgate.control.sink import CAPACITY, LineSink
from fastgate.control.text import escape, timestamp
from fastgate.model import Completion
from fastgate.stats import Stats

PEER_TEXT: Final = 2048
"""Characters of method, host and path together: bounds a line, and the memory of a queue that is stuck."""


class AccessLog:
    """Takes completions and writes them as lines to `stream` (None: closed at start; drops everything)."""

    def __init__(self, format_: str, stream: IO[Any] | int | None, stats: Stats, *, capacity: int = CAPACITY) -> None:
        """`format_` is json or console; lines that cannot be written count as `stats.access_log_dropped`."""
        self._sink: LineSink[Completion] = LineSink(
            stream,
            RENDERERS[format_],
            lambda lines: stats.access_log_dropped.add(amount=lines),
            capacity=capacity,
        )
        self._put = self._sink.put

    def record(self, completion: Completion) -> None:
        """Queue one line; called once per request, so it only looks at lengths."""
        if len(completion.path) + len(completion.host) + len(completion.method) > PEER_TEXT:
            completion = _shortened(completion)
        self._put(completion)

    def start(self) -> None:
        """Start the writing thread (once per process: threads do not survive a fork)."""
        self._sink.start()

    def close(self, timeout: float = 1.0) -> None:
        """Write what is queued for at most `timeout` seconds, then count the rest as dropped. Idempotent."""
        self._sink.close(timeout)


def json_line(completion: Completion) -> bytes:
    """One JSON object; a field that has nothing to say is left out."""
    c = completion
    line: dict[str, Any] = {"time": timestamp(c.at), "peer": c.peer, "method": escape(c.method)}
    if c.host:
        line["host"] = escape(c.host)
    line["path"] = escape(c.path)
    if c.status:
        line["status"] = c.status
    line["outcome"] = c.outcome
    if c.reason:
        line["reason"] = c.reason
    if c.route:
        line["route"] = c.route
    if c.service:
        line["service"] = c.service
    if c.target:
        line["target"] = c.target
    line["seconds"] = round(c.seconds, 6)
    if c.upstream_seconds is not None:
        line["upstream_seconds"] = round(c.upstream_seconds, 6)
    if c.received:
        line["received"] = c.received
    if c.sent:
        line["sent"] = c.sent
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def console_line(completion: Completion) -> bytes:
    """One line for a person: when, what, the answer, then `key=value` for whatever else there is to say."""
    c = completion
    extra = {
        "reason": c.reason,
        "route": c.route,
        "service": c.service,
        "target": c.target,
        "upstream": "" if c.upstream_seconds is None else _milliseconds(c.upstream_seconds),
        "received": c.received or "",
        "sent": c.sent or "",
        "peer": c.peer,
    }
    said = " ".join(f"{key}={value}" for key, value in extra.items() if value)
    status = c.status or "---"
    head = f"{timestamp(c.at)} {status} {c.method} {c.host}{c.path} {c.outcome} {_milliseconds(c.seconds)}"
    return (escape(f"{head} {said}" if said else head) + "\n").encode()


RENDERERS: Final[dict[str, Callable[[Completion], bytes]]] = {"json": json_line, "console": console_line}


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}ms"


def _shortened(completion: Completion) -> Completion:
    """Bound method, host and path, and mark what was cut."""

    def cut(text: str, length: int) -> str:
        return text if len(text) <= length else text[: length - 3] + "..."

    return completion._replace(
        method=cut(completion.method, 32),
        host=cut(completion.host, 256),
        path=cut(completion.path, PEER_TEXT - 32 - 256),
    )
