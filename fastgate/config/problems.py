"""From pydantic's errors to sentences that say what to do. No sentence repeats what was written: it may be secret."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import ValidationError

from fastgate.config.auth import Auth
from fastgate.config.document import Document, Finding, Path, line_of, standing
from fastgate.config.schema import Root
from fastgate.config.words import Section
from fastgate.errors import Problem

_BOUNDS: Final = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
    "literal_error": "must be one of {expected}",
}
_KINDS: Final = {
    "tuple": "must be a list: write [a] or lines that start with `- `",
    "mapping": "must be a mapping of keys to values",
    "model": "must be a mapping of keys to values",
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "string": "must be text; put numbers, true and false in quotes",
    "secret": "must be text; put numbers, true and false in quotes",
}


def schema_findings(data: Any) -> list[Finding]:
    """What the schema says about the data; empty when it is in order."""
    try:
        Root.model_validate(data)
    except ValidationError as error:
        items = error.errors(include_url=False)
        # pydantic counts only the valid items of a list: one that is short for that reason has enough problems.
        around = {item["loc"][:end] for item in items for end in range(len(item["loc"]))}
        return [_finding(item) for item in items if item["type"] != "too_short" or item["loc"] not in around]
    return []


def _finding(item: Mapping[str, Any]) -> Finding:
    path: Path = tuple(part for part in item["loc"] if part != "[key]")
    return Finding(path, _sentence(item["type"], path, item))


def _sentence(kind: str, path: Path, item: Mapping[str, Any]) -> str:
    context = item.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "is missing" + _purpose(path)
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context)
    if item["input"] is None:
        return "has no value"
    return _KINDS.get(kind.partition("_")[0], "is not valid here")


def section_at(path: Path) -> type[Section]:
    """The section of the schema that stands at `path`, or the innermost around it."""
    section: type[Section] = Root
    for part in path:
        if isinstance(part, str) and part in section.model_fields:
            section = next(_sections(section.model_fields[part].annotation), section)
    return section


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _purpose(path: Path) -> str:
    name = path[-1]
    field = section_at(path[:-1]).model_fields.get(name) if isinstance(name, str) else None
    return f" ({field.description.rstrip('.')})" if field is not None and field.description else ""


def _unknown_key(path: Path) -> str:
    section = section_at(path[:-1])
    known = list(section.model_fields)
    key = str(path[-1])
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"is not a known key; did you mean `{near[0]}`?"
    if "auth" in known and key in Auth.model_fields:
        return "is not a known key here; it belongs under `auth`"
    return f"is not a known key; known here are {', '.join(known)}"


def dotted(path: Path) -> str:
    """A path the way people write it: `services[0].routes[1].paths[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def placed(findings: list[Finding], document: Document) -> list[Problem]:
    """Problems with their lines, in the order of the file, each said once."""
    problems: dict[tuple[str, str], Problem] = {}
    for path, message, line in findings:
        # A shorthand such as `listen: host:port` has no key of its own for its parts; a missing key has none at all.
        whole = not document.lines or message.startswith("is missing")
        shown = dotted(path if whole else standing(document.lines, path))
        where = line if line is not None else line_of(document.lines, path)
        problems.setdefault((shown, message), Problem(shown, message, where))
    return sorted(problems.values(), key=lambda problem: (problem.line or 0, problem.path))
