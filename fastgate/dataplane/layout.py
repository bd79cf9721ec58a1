"""Layouts of request heads: a client sends the same fields in the same order, only their values differ.

A layout is learned from a head that `HeadParser` accepted, and is a strict subset of what that accepts: one regular
expression that tells in one pass whether another head differs in nothing but values that need no look, and that finds
those that do. What does not match is no error: it is read the usual way.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from fastgate.model import Field, Snapshot
from fastgate.policy.field_names import END_TO_END, HOP_BY_HOP, KEPT_FROM_TRUSTED, REWRITTEN, passes

_LINE: Final = rb"([A-Z]+ /[\x21\x22\x24-\x5b\x5d-\x7e]*) HTTP/1\.1\r\n"
_VALUE: Final = rb"[\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*"
_NO_SPACE: Final = rb"(?<![\t ])"
"""At the end of a value, where it would have to be removed."""
_STEERING: Final = frozenset((b"expect", b"max-forwards", b"transfer-encoding", b"upgrade", b"via"))
"""Fields that decide about a request by their values, or change with it: a head that has one has no layout."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The pattern, and which of its groups are what, counted from 0."""

    pattern: "re.Pattern[bytes]"
    gist: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]
    """Takes the request line (without the version), Host and, where there is one, Authorization out of the groups."""
    length: int
    """Content-Length; -1 without one."""
    lines: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]
    """Takes the runs of lines that go on as they came, Authorization and Cookie among them."""
    snapshot: Snapshot
    """It holds no longer than this one is in force, which says what goes on and what a route is chosen by."""
    hides: bool
    """Authorization is for us alone: its line does not go on."""
    said: bool
    """The client speaks of how it came (KEPT_FROM_TRUSTED); those lines are left out."""

    def stated(self, groups: tuple[bytes, ...]) -> int:
        """Return the Content-Length, -1 without one."""
        return int(groups[self.length]) if self.length >= 0 else -1


def learn(
    raw: bytes, fields: tuple[Field, ...], snapshot: Snapshot, wanted: frozenset[bytes], *, hides: bool
) -> Layout | None:
    """Learn the layout of a head from its octets and its fields; None: it has none.

    `wanted` are the names by which the routes of the snapshot are chosen; with `hides`, Authorization stays here.
    """
    names = frozenset(name for name, _, _ in fields)
    if names & _STEERING or names & wanted or raw.partition(b"\r\n")[2] != _lines(fields) + b"\r\n":
        return None
    if any(name == b"connection" and value.lower() != b"keep-alive" for name, _, value in fields):
        return None
    if sum(name == b"authorization" for name, _, _ in fields) > 1:
        return None  # the gist holds one: where a token is asked for, the other would go unseen
    writer, configured = _Writer(), snapshot.settings.forwarding.protected
    for name, spelled, value in fields:
        writer.add(name, spelled, value, keeps=_passes(name, configured, hides=hides))
    return writer.layout(snapshot, hides=hides, said=bool(names & KEPT_FROM_TRUSTED))


def _lines(fields: Iterable[Field]) -> bytes:
    return b"".join(b"%b: %b\r\n" % (spelled, value) for _, spelled, value in fields)


def _passes(name: bytes, configured: frozenset[bytes], *, hides: bool) -> bool:
    """Tell whether a line goes on as it came, as `forwarding` does for a token that stands in Authorization."""
    if name in HOP_BY_HOP or name in KEPT_FROM_TRUSTED or name in configured:
        return False
    if name in REWRITTEN:
        return name == b"cookie" or (name == b"authorization" and not hides)
    return name in END_TO_END or passes(name, configured)


class _Writer:
    """Writes the pattern of a layout line by line."""

    def __init__(self) -> None:
        self._pattern = [_LINE]
        self._groups = 1
        self._kept: list[int] = []
        self._in_run = False
        self._found: dict[bytes, int] = {}

    def add(self, name: bytes, spelled: bytes, value: bytes, *, keeps: bool) -> None:
        """Add one field line."""
        if keeps != self._in_run:
            self._pattern.append(b"(" if keeps else b")")
            self._in_run = keeps
            if keeps:
                self._kept.append(self._group())
        self._pattern.append(re.escape(spelled) + b": " + self._value(name, value) + b"\r\n")

    def _value(self, name: bytes, value: bytes) -> bytes:
        if name == b"connection":
            return re.escape(value)
        if name == b"content-length":
            self._found[name] = self._group()
            return rb"([0-9]{1,18})"
        if name in {b"host", b"authorization"}:
            self._found[name] = self._group()
            return b"(" + _VALUE + b")" + _NO_SPACE
        return _VALUE + _NO_SPACE

    def _group(self) -> int:
        self._groups += 1
        return self._groups - 1

    def layout(self, snapshot: Snapshot, *, hides: bool, said: bool) -> Layout:
        """Compile it."""
        end = (b")" if self._in_run else b"") + b"\r\n"
        gist = [0, *(self._found[name] for name in (b"host", b"authorization") if name in self._found)]
        return Layout(
            re.compile(b"".join(self._pattern) + end),
            itemgetter(*gist),
            self._found.get(b"content-length", -1),
            _several(self._kept),
            snapshot,
            hides,
            said,
        )


def _several(numbers: list[int]) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
    """Make a function that takes these groups; of one alone, or none, it makes a tuple too."""
    if len(numbers) > 1:
        return itemgetter(*numbers)
    return itemgetter(slice(numbers[0], numbers[0] + 1) if numbers else slice(0))
