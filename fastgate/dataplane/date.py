"""The Date field (RFC 9110 section 6.6.1), formatted once a second."""

from collections.abc import Callable
from email.utils import formatdate


class HttpDate:
    """Call it for the current date as octets."""

    __slots__ = ("_now", "_second", "_text")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._second = -1
        self._text = b""

    def __call__(self) -> bytes:
        """Return the current date."""
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True).encode("ascii")
        return self._text
