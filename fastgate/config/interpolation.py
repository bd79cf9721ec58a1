"""`${NAME}`, `${NAME:-default}` and `${file:/path}` inside the text values of a document; `$${` is a literal `${`.

Pure: the environment is an argument and files are read by a function that is given. Values are put into text that is
already parsed, so none of them can change the structure of the document, and no message repeats one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastgate.config.document import Finding, Path

_PLACE: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

ReadFile = Callable[[str], str]
"""The content of a small text file without its last line end; raises OSError or ValueError with a reason."""


@dataclass
class Interpolated:
    """The data with everything put in, what could not be, and which values are therefore unknown."""

    data: Any = None
    findings: list[Finding] = field(default_factory=list)
    unknown: set[Path] = field(default_factory=set)


def interpolate(data: Any, environ: Mapping[str, str], read_file: ReadFile) -> Interpolated:
    """Put the environment and files into every text value of `data`; every failure is a finding."""
    result = Interpolated()

    def walk(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        failures: list[str] = []
        text = _PLACE.sub(lambda match: _value(match, environ, read_file, failures), value)
        if failures:
            result.unknown.add(path)
            result.findings += [Finding(path, failure) for failure in failures]
        return text

    result.data = walk(data, ())
    return result


def _value(match: re.Match[str], environ: Mapping[str, str], read_file: ReadFile, failures: list[str]) -> str:
    if match[0] == "$${":
        return "${"
    inside = match[1]
    if inside is None:
        failures.append("has a ${ that is not a whole ${NAME}; write $${ for a literal ${")
        return ""
    if inside.startswith("file:"):
        return _file(inside.removeprefix("file:"), read_file, failures)
    return _variable(inside, environ, failures)


def _variable(inside: str, environ: Mapping[str, str], failures: list[str]) -> str:
    name, has_default, default = inside.partition(":-")
    if not _NAME.fullmatch(name):
        failures.append("has a ${...} that is none of ${NAME}, ${NAME:-default} and ${file:/path}")
    elif has_default:
        # As in a shell: an empty variable counts as unset here.
        return environ.get(name) or default
    elif name in environ:
        return environ[name]
    else:
        hint = f"set it or write ${{{name}:-default}}"
        failures.append(f"needs the environment variable {name}, which is not set; {hint}")
    return ""


def _file(path: str, read_file: ReadFile, failures: list[str]) -> str:
    try:
        return read_file(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValueError as error:
        reason = str(error)
    failures.append(f"needs the file {path or '(no path given)'}, which cannot be read: {reason}")
    return ""
