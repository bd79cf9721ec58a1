"""The request corpus: `tests/requests` of the gunicorn sdist from PyPI, raw requests with what they mean.

`valid/NAME.http` comes with the parsed request(s) in `NAME.py`; `invalid/NAME.http` with the error gunicorn raises and
the gunicorn settings it needs. The files are data here: the Python ones are evaluated with nothing but the few names
they use.
"""

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support import cache

VERSION = "27.0.1"
SHA256 = "b1514965361c8b7e8107a80aa2a92636878df1ccfac6dd204a676426e04d9e3e"
HOST = b"Host: corpus.test\r\n"


@dataclass(frozen=True)
class Expected:
    """One request as gunicorn understands it."""

    method: str
    target: str
    body: bytes


@dataclass(frozen=True)
class Case:
    """One file of the corpus."""

    name: str
    data: bytes
    expected: tuple[Expected, ...]
    """Empty for an invalid one."""
    settings: Mapping[str, Any]
    """gunicorn settings the expectation depends on."""

    @property
    def to_send(self) -> bytes:
        """The octets, with a Host where an HTTP/1.1 request has none: its absence would hide the case's point."""
        if re.search(rb"(?i)[\r\n]host[ \t]*:", self.data):
            return self.data
        where = rb" HTTP/1\.1\r\n" if len(self.expected) > 1 else rb"\A[^\r\n]* HTTP/1\.1\r\n"
        return re.sub(where, lambda line: line[0] + HOST, self.data)


class _Settings:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def set(self, name: str, value: Any) -> None:
        self.values[name] = value


class _Anything:
    """Stands for gunicorn's exception classes, whatever their names."""

    def __getattr__(self, name: str) -> str:
        return name


def _import(name: str, *_: Any) -> Any:
    if name == "gunicorn.config":
        return SimpleNamespace(Config=_Settings)
    if name == "gunicorn.http.errors":
        return _Anything()
    raise ImportError(name)


def _evaluate(file: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"__builtins__": {"__import__": _import}, "uri": str, "cfg": _Settings()}
    exec(compile(file.read_text(), str(file), "exec"), names)
    return names


def _octets(file: Path) -> bytes:
    """Undo the corpus's notation: real newlines mean nothing, escapes stand for the octets sent."""
    data = file.read_bytes().replace(b"\n", b"")
    escapes = {b"\\r\\n": b"\r\n", b"\\0": b"\0", b"\\n": b"\n", b"\\t": b"\t"}
    for written, octets in escapes.items():
        data = data.replace(written, octets)
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), data)


def _sdist() -> Path:
    def download(folder: Path) -> None:
        cache.run(
            "the request corpus (gunicorn's sdist) cannot be fetched from PyPI",
            *(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"),
            *("--no-binary", "gunicorn", f"gunicorn=={VERSION}", "-d", str(folder)),
        )
        archive = next(folder.glob("gunicorn-*.tar.gz"))
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            raise cache.Missing(f"gunicorn {VERSION} from PyPI is not the file the tests were written against")
        cache.run("the corpus cannot be unpacked", "tar", "xzf", str(archive), "--strip-components=1", cwd=folder)

    return cache.once(cache.root() / f"gunicorn-{VERSION}", download)


class Corpus:
    """Every case, by kind."""

    def __init__(self) -> None:
        folder = _sdist() / "tests" / "requests"
        self.valid = [self._case(file) for file in sorted(folder.glob("valid/*.http"))]
        self.invalid = [self._case(file) for file in sorted(folder.glob("invalid/*.http"))]

    @staticmethod
    def _case(file: Path) -> Case:
        names = _evaluate(file.with_suffix(".py"))
        request = names["request"]
        requests = request if isinstance(request, list) else [request]
        expected = tuple(
            Expected(one["method"], one["uri"], one["body"] or b"") for one in requests if isinstance(one, dict)
        )
        return Case(file.stem, _octets(file), expected, names["cfg"].values)
