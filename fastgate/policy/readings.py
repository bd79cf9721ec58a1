"""The ways in which a path may be read by whoever comes after us (RFC 3986 sections 5.2.4 and 6.2.2)."""

import re
from itertools import product
from typing import Final
from urllib.parse import unquote

MAX_ROUNDS: Final = 3
"""Times a path may be percent-decoded before it must have become stable."""

_SUSPICIOUS: Final = re.compile(r"[%;\\]|//|/\.{1,2}(?:/|$)")
_DISPUTED: Final = re.compile(r"[;?#\\]|//|/\.{1,2}(?:/|$)")
_UNSAFE: Final = re.compile(r"\\|%(?:2[ef]|5c|25[0-9a-f]{2})", re.IGNORECASE)
_DOTTED: Final = re.compile(r"[/\\]\.{1,2}(?:[;/\\]|$)")
_SLASHES: Final = re.compile("/{2,}")
_PARAMETERS: Final = re.compile(r";[^/]*|[?#].*", re.DOTALL)


def is_plain(path: str) -> bool:
    """Tell whether everybody reads `path` alike: no escape, parameter, backslash, empty or dot segment."""
    return _SUSPICIOUS.search(path) is None


def is_unsafe(texts: tuple[str, ...]) -> bool:
    """Tell whether a path, given with its decodings, holds what a protected route does not take.

    These are dot segments in any encoding, an encoded slash, dot or backslash, a backslash, and an escape
    hidden in an escape: servers differ in how they read them.
    """
    return _UNSAFE.search(texts[0]) is not None or any(_DOTTED.search(text) for text in texts)


def decodings(path: str) -> tuple[str, ...]:
    """Percent-decode `path` until it is stable: itself, decoded once, and so on.

    Empty when MAX_ROUNDS are not enough, and for a NUL, at which some readers stop (RFC 3986 section 7.3).
    """
    texts = [path]
    for _ in range(MAX_ROUNDS):
        text = unquote(texts[-1], errors="surrogateescape")
        if text == texts[-1]:
            return () if "\0" in text else tuple(texts)
        texts.append(text)
    return ()


def normalise(text: str, *, backslashes: bool, merge: bool, parameters: bool) -> str:
    """Read `text` as some server would: backslash as slash, "//" as "/", no `;parameters`, dots resolved."""
    if backslashes:
        text = text.replace("\\", "/")
    if parameters:
        text = _PARAMETERS.sub("", text)
    if merge:
        text = _SLASHES.sub("/", text)
    return _resolve_dots(text) if _DOTTED.search(text) else text


def decoded(path: str) -> str:
    """Decode the path of a route, so that it can be compared with a decoded request path."""
    return (decodings(path) or (path,))[-1]


def variants(text: str) -> frozenset[str]:
    """Every combination of the ways to read `text`, percent-decoding aside."""
    if _DISPUTED.search(text) is None:
        return frozenset((text,))
    return frozenset(
        normalise(text, backslashes=backslashes, merge=merge, parameters=parameters)
        for backslashes, merge, parameters in product((True, False), repeat=3)
    )


def _resolve_dots(text: str) -> str:
    """Remove "." and ".." segments (RFC 3986 section 5.2.4)."""
    segments: list[str] = []
    parts = text.split("/")[1:]
    for part in parts:
        if part == "..":
            del segments[-1:]
        elif part != ".":
            segments.append(part)
    if parts[-1] in {".", ".."}:
        segments.append("")
    return "/" + "/".join(segments)
