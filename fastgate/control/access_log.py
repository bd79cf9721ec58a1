"""The access log: one line per answered request, written by a thread, never waited for."""

from collections.abc import Callable
from functools import partial
from typing import IO, Any, Final

import orjson

from fastgate.control.sink import CAPACITY, PIECE, LineSink
from fastgate.control.text import escape, timestamp
from fastgate.model import Completion
from fastgate.stats import Stats

PEER_TEXT: Final = 2048
"""Characters of method, host and path together: bounds a line, and the memory of a queue that is stuck."""


class AccessLog:
    """Takes completions and writes them as lines to `stream` (None: closed at start; drops everything)."""

    def __init__(
        self,
        format_: str,
        stream: IO[Any] | int | None,
        stats: Stats,
        *,
        capacity: int = CAPACITY,
        worker: int | None = None,
    ) -> None:
        """`format_` is json or console; `worker` stands in every line of one of several.

        Lines that cannot be written count as `stats.access_log_dropped`.
        """
        self._sink: LineSink[Completion] = LineSink(
            stream,
            partial(_fitting, partial(RENDERERS[format_], worker=worker)),
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


def json_line(completion: Completion, worker: int | None = None) -> bytes:
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
    last = (("received", c.received), ("sent", c.sent), ("worker", worker))
    line.update((name, value) for name, value in last if value)
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def console_line(completion: Completion, worker: int | None = None) -> bytes:
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
        "worker": worker or "",
    }
    said = " ".join(f"{key}={value}" for key, value in extra.items() if value)
    status = c.status or "---"
    head = f"{timestamp(c.at)} {status} {c.method} {c.host}{c.path} {c.outcome} {_milliseconds(c.seconds)}"
    return (escape(f"{head} {said}" if said else head) + "\n").encode()


RENDERERS: Final[dict[str, Callable[..., bytes]]] = {"json": json_line, "console": console_line}


def _fitting(render: Callable[[Completion], bytes], completion: Completion) -> bytes:
    """Render a line that is written in one piece: lines of several processes on one pipe must not mix."""
    line = render(completion)
    # What a peer wrote grows twelvefold at worst when it is escaped.
    return line if len(line) <= PIECE else render(_shortened(completion, method=16, host=64, path=160))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}ms"


def _shortened(
    completion: Completion, *, method: int = 32, host: int = 256, path: int = PEER_TEXT - 32 - 256
) -> Completion:
    """Bound method, host and path to so many characters, and mark what was cut."""

    def cut(text: str, length: int) -> str:
        return text if len(text) <= length else text[: length - 3] + "..."

    return completion._replace(
        method=cut(completion.method, method),
        host=cut(completion.host, host),
        path=cut(completion.path, path),
    )
