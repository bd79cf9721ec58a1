"""A sink for log lines that never makes its writer wait, whatever becomes of the reader.

Lines are queued in a bounded deque; a daemon thread renders and writes them. It asks whether the sink can take
bytes before it writes, so a pipe that nobody reads stalls nothing: the queue fills, further lines are dropped
and counted, and closing keeps its deadline.
"""

import os
import select
from collections import deque
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import IO, Any, Final, Generic, TypeVar

from fastgate.clock import SystemClock

T = TypeVar("T")

CAPACITY: Final = 8192
"""Lines waiting to be written."""
PIECE: Final = select.PIPE_BUF
"""Octets per write: a pipe that polls as writable takes that many at once, unmixed with others' lines."""
LINGER: Final = 0.05
"""Seconds to let lines gather before writing them together."""
PATIENCE_MS: Final = 100
"""How long one wait for a slow sink takes before deadlines are looked at again."""


class LineSink(Generic[T]):
    """Renders items to lines and writes them to a file descriptor, in a thread of its own.

    `stream` is duplicated, so that closing the original cannot send lines into whatever gets its number next.
    None (the process was started with that stream closed) drops everything.
    """

    def __init__(
        self,
        stream: IO[Any] | int | None,
        render: Callable[[T], bytes],
        dropped: Callable[[int], None],
        *,
        capacity: int = CAPACITY,
    ) -> None:
        self._fd = _duplicate(stream)
        self._render = render
        self._dropped = dropped
        self._lock = Lock()
        self._capacity = capacity if self._fd >= 0 else 0
        self._queue: deque[T] = deque()
        self._idle = False
        self._wake = Event()
        self._closing = Event()
        self._deadline: float | None = None
        self._carried = b""
        """A rendered line that did not fit into the last piece."""
        self._torn = False
        """The last piece ended in the middle of a line."""
        self._thread: Thread | None = None

    def put(self, item: T) -> None:
        """Queue one item, or drop it when the queue is full. Never blocks."""
        queue = self._queue
        if len(queue) >= self._capacity:
            self._drop(1)
            return
        queue.append(item)
        if self._idle:
            self._idle = False
            self._wake.set()

    def start(self) -> None:
        """Start writing; without effect while the thread lives. After a fork, call it in the child."""
        if self._fd < 0 or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = Thread(target=self._write_queue, name="fastgate-lines", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 1.0) -> None:
        """Write what is queued for at most `timeout` seconds, drop and count the rest. Idempotent."""
        self._capacity = 0
        self._deadline = SystemClock.monotonic() + timeout
        self._closing.set()
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout + 2 * PATIENCE_MS / 1000)
        self._drop(len(self._queue))
        self._queue.clear()
        # A thread stuck in a write (a terminal on hold) keeps its descriptor; it dies with the process.
        if self._fd >= 0 and (thread is None or not thread.is_alive()):
            os.close(self._fd)
            self._fd = -1

    def _drop(self, lines: int) -> None:
        if lines:
            with self._lock:
                self._dropped(lines)

    def _write_queue(self) -> None:
        """Wait for lines, let some gather, write them in pieces, until closed."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while True:
            while (self._queue or self._carried) and not self._expired():
                self._write_piece(poll, *self._piece())
            if self._closing.is_set():
                break
            self._wake.clear()
            self._idle = True
            # The order matters: whoever appends after this look at the queue sees `_idle` and wakes us.
            if not self._queue:
                self._wake.wait()
            self._idle = False
            self._closing.wait(LINGER)
        self._drop(1 if self._carried else 0)

    def _expired(self) -> bool:
        return self._deadline is not None and SystemClock.monotonic() > self._deadline

    def _piece(self) -> tuple[bytes, int]:
        """Whole lines of at most PIECE octets together (one longer line alone), and their number."""
        lines: list[bytes] = []
        size = 0
        while line := self._carried or self._next_line():
            if lines and size + len(line) > PIECE:
                self._carried = line
                break
            self._carried = b""
            lines.append(line)
            size += len(line)
        return b"".join(lines), len(lines)

    def _next_line(self) -> bytes:
        """Render the next queued item; b"" when the queue is empty."""
        while True:
            try:
                item = self._queue.popleft()
            except IndexError:
                return b""
            try:
                return self._render(item)
            except Exception:  # noqa: BLE001  # one line that cannot be rendered must not end the log
                self._drop(1)

    def _write_piece(self, poll: select.poll, piece: bytes, lines: int) -> None:
        """Write one piece; on an error or at the deadline its lines count as dropped."""
        rest = memoryview(b"\n" + piece if self._torn else piece)
        whole = len(rest)
        try:
            while rest:
                if poll.poll(PATIENCE_MS):
                    rest = rest[_write(self._fd, rest[:PIECE]) :]
                elif self._expired():
                    break
        except OSError:
            pass
        if rest:
            self._torn = self._torn or len(rest) < whole
            self._drop(lines)
        else:
            self._torn = False


def _write(fd: int, octets: memoryview) -> int:
    """Octets written; 0 when a descriptor in non-blocking mode is full after all."""
    try:
        return os.write(fd, octets)
    except BlockingIOError:
        return 0


def _duplicate(stream: IO[Any] | int | None) -> int:
    """Get a descriptor of our own for `stream`, -1 when there is nothing to write to."""
    if stream is None:
        return -1
    try:
        return os.dup(stream if isinstance(stream, int) else stream.fileno())
    except (OSError, ValueError):
        return -1
