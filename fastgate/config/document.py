"""A YAML document as plain data that remembers the line of every key and item.

PyYAML's events are composed here rather than by PyYAML, because its composer forgets duplicate keys, recurses
without bound, and reads `no`, `12:30:00` and `2024-01-01` as things nobody meant. Scalars follow the core schema of
YAML 1.2 (section 10.3.2).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import yaml

Path = tuple[str | int, ...]
"""Where a value stands: ("services", 0, "url")."""

MAX_NODES: Final = 250_000
"""Nodes of one document after aliases are followed."""
MAX_DEPTH: Final = 32

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_REFERENCE: Final = re.compile(r"\$\{([^{}\n]*)\}")
_HIDE: Final = str.maketrans("{}", "\uf8f1\uf8f2")
_SHOW: Final = str.maketrans("\uf8f1\uf8f2", "{}")
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}")
_OCTAL_OR_HEX: Final = re.compile(r"0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TEXT: Final = "tag:yaml.org,2002:str"


class Finding(NamedTuple):
    """Something wrong at a path, before its line is looked up."""

    path: Path
    message: str
    line: int | None = None
    """Set where the path alone does not tell the line."""


class Unreadable(Exception):  # noqa: N818 - carries a finding; it never leaves this module
    """The rest of the document cannot be read."""

    def __init__(self, path: Path, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.finding = Finding(path, message, line)


@dataclass
class Document:
    """Data, the line of every node in it, and what was wrong with it."""

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass
class _Kept:
    """What an anchor names: the events to read again, so that every alias has lines of its own."""

    events: list[Any]
    complete: bool = False


class _Composer:
    """Turns one document's events into data. One instance per document."""

    def __init__(self, events: Iterator[Any]) -> None:
        self.document = Document()
        self._events = events
        self._anchors: dict[str, _Kept] = {}
        self._open: list[_Kept] = []
        self._replay: list[Iterator[Any]] = []
        self._nodes = 0

    def _next(self) -> Any:
        if self._replay:
            return next(self._replay[-1])
        event = next(self._events)
        for kept in self._open:
            kept.events.append(event)
        return event

    def compose(self, event: Any, path: Path, line: int) -> Any:
        """The data that starts with `event`; its lines are remembered under `path`."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Unreadable((), f"the file comes to more than {MAX_NODES} values once its aliases are followed", line)
        if len(path) > MAX_DEPTH:
            raise Unreadable(path[:3], f"is nested more than {MAX_DEPTH} levels deep", line)
        self.document.lines.setdefault(path, line)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, line)
        kept = None
        if event.anchor is not None and not self._replay:
            kept = self._anchors[event.anchor] = _Kept([event])
            self._open.append(kept)
        if isinstance(event, yaml.MappingStartEvent):
            data: Any = self._mapping(path)
        elif isinstance(event, yaml.SequenceStartEvent):
            data = self._sequence(path)
        else:
            data = self._scalar(event, path, line)
        if kept is not None:
            kept.complete = True
            self._open.pop()
        if not isinstance(event, yaml.ScalarEvent) and event.tag is not None:
            self.document.findings.append(Finding(path, "has a YAML tag; tags are not used here", line))
        return data

    def _alias(self, event: Any, path: Path, line: int) -> Any:
        kept = self._anchors.get(event.anchor)
        if kept is None or not kept.complete:
            raise Unreadable(path, "refers to an anchor that is not defined before it", line)
        # Events are read again, aliases among them included: the bound on nodes holds for what comes of it all.
        self._replay.append(iter(kept.events[1:]))
        data = self.compose(kept.events[0], path, line)
        self._replay.pop()
        return data

    def _mapping(self, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, int] = {}
        while not isinstance(key := self._next(), yaml.MappingEndEvent):
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarEvent):
                raise Unreadable(path, "has a key that is not plain text", line)
            name = key.value.translate(_SHOW)
            at = (*path, name)
            if name in data:
                message = f"appears twice in the same mapping (first on line {first[name]}); remove one"
                self.document.findings.append(Finding(at, message, line))
                # Composed for its own problems only; the first value stays.
                self.compose(self._next(), at, line)
                continue
            first[name] = line
            data[name] = None
            data[name] = self.compose(self._next(), at, line)
        return data

    def _sequence(self, path: Path) -> list[Any]:
        data: list[Any] = []
        while not isinstance(item := self._next(), yaml.SequenceEndEvent):
            data.append(self.compose(item, (*path, len(data)), item.start_mark.line + 1))
        return data

    def _scalar(self, event: Any, path: Path, line: int) -> Any:
        text = event.value.translate(_SHOW)
        if event.tag not in {None, "!", _TEXT}:
            self.document.findings.append(Finding(path, "has a YAML tag; tags are not used here", line))
        plain = event.tag is None and event.implicit[0] and event.style in {None, ""}
        return plain_scalar(text) if plain else text


def plain_scalar(text: str) -> Any:
    """What an unquoted scalar means (YAML 1.2 section 10.3.2)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL_OR_HEX.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def parse(text: str) -> Document:
    """The document in `text`. Never raises: what is wrong is among the findings, and then the data may be partial."""
    # `${A}` is no plain scalar inside [...] or {...}: its braces are hidden from YAML and put back in the scalars.
    hidden = _REFERENCE.sub(lambda match: match[0].translate(_HIDE), text)
    composer = _Composer(iter(()))
    try:
        events = yaml.parse(hidden, Loader=_LOADER)
        composer = _Composer(iter(events))
        _compose_document(composer)
    except Unreadable as unreadable:
        composer.document.data = None
        composer.document.findings.append(unreadable.finding)
    except yaml.YAMLError as error:
        composer.document.data = None
        composer.document.findings.append(_syntax_finding(error, hidden))
    return composer.document


def _compose_document(composer: _Composer) -> None:
    while isinstance(event := composer._next(), yaml.StreamStartEvent | yaml.DocumentStartEvent):  # noqa: SLF001
        pass
    if isinstance(event, yaml.StreamEndEvent):
        raise Unreadable((), "the file is empty: it needs at least `identity_providers` and `services`")
    document = composer.document
    document.data = composer.compose(event, (), event.start_mark.line + 1)
    composer._next()  # noqa: SLF001 - the document's end
    if not isinstance(event := composer._next(), yaml.StreamEndEvent):  # noqa: SLF001
        document.findings.append(
            Finding((), "holds a second YAML document; only one is read", event.start_mark.line + 1)
        )


def _syntax_finding(error: yaml.YAMLError, text: str) -> Finding:
    """Where YAML gave up and why, without a snippet: the line may hold a secret."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        return Finding((), "is not YAML: it holds a character that YAML forbids", line)
    line = mark.line + 1
    lines = text.splitlines()
    around = lines[max(mark.line - 1, 0) : line]
    if any("\t" in row[: len(row) - len(row.lstrip())] for row in around):
        return Finding((), "is indented with a tab; YAML wants spaces", line)
    problem = str(getattr(error, "problem", None) or "syntax error")
    return Finding((), f"is not YAML: {problem}", line)


def line_of(lines: Mapping[Path, int], path: Path) -> int | None:
    """The line of the longest part of `path` that stands in the document."""
    for end in range(len(path), -1, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return None


def standing(lines: Mapping[Path, int], path: Path) -> Path:
    """The longest part of `path` that stands in the document."""
    for end in range(len(path), -1, -1):
        if path[:end] in lines:
            return path[:end]
    return ()
