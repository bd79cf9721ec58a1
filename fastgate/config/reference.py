"""The JSON Schema for editors and the reference page, both generated from the typed schema.

`python -m fastgate.config.reference > deploy/configuration.md` writes the page anew.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

from fastgate.config.schema import Root
from fastgate.config.units import show_duration, show_size

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE: Final = {"type": "string", "pattern": r"\$\{"}
_LISTENER: Final = ({"type": "string"}, {"$ref": "#/$defs/Listener"})
_WORDS: Final = {
    "string": "text",
    "boolean": "`true` or `false`",
    "integer": "whole number",
    "number": "number",
}
_INTRO: Final = """\
# Configuration

Generated from the typed schema by `python -m fastgate.config.reference > deploy/configuration.md`; do not edit.

Durations are `500ms`, `5s`, `1m`, `1h` or a number of seconds. Sizes are `64KiB`, `10MiB` or a number of bytes.
In every text value `${NAME}` and `${NAME:-default}` read the environment, `${file:/run/secrets/x}` reads a file
(without its last line end), and `$${` is a literal `${`. Relative paths of files start in the directory of the
configuration file. Unknown keys are errors. YAML is read as YAML 1.2: only `true` and `false` are flags, and a key may
not appear twice. `fastgate check -c FILE` reports every problem at once; `fastgate schema` prints a JSON Schema for
editors.
"""


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file as people write it: `500ms`, shorthands, and `${...}` for numbers and flags."""
    schema = Root.model_json_schema()
    sections = schema["$defs"]
    for section in (schema, *sections.values()):
        del section["title"]
        for key, value in section["properties"].items():
            section["properties"][key] = _as_written(value)
    root, admin = schema["properties"], sections["Admin"]["properties"]
    several = {"type": "array", "items": {"anyOf": list(_LISTENER)}, "minItems": 1}
    root["listen"] |= _forms(*_LISTENER, several, default="127.0.0.1:8000")
    root["admin"] |= _forms({"$ref": "#/$defs/Admin"}, {"const": False}, default={"listen": "127.0.0.1:8001"})
    admin["listen"] |= _forms(*_LISTENER, default="127.0.0.1:8001")
    events = sections["Events"]["properties"]["listen"]
    events |= _forms(*_LISTENER)
    for key, section in (("backchannel_logout", "BackchannelLogout"), ("security_events", "SecurityEvents")):
        switch = sections["Provider"]["properties"][key]
        switch |= _forms({"type": "boolean"}, {"$ref": f"#/$defs/{section}"}, default=False)
    for section in ("ConfiguredService", "ConfiguredRoute"):
        auth = sections[section]["properties"]["auth"]
        del auth["$ref"]
        auth |= _forms({"const": "none"}, {"$ref": "#/$defs/Auth"})
    del root["listen"]["type"], root["listen"]["items"], root["listen"]["minLength"]
    del admin["listen"]["$ref"], events["$ref"]
    schema["description"] = "What stands at the top of the file."
    return {"$schema": DIALECT, "title": "fastgate.yaml", **schema}


def _forms(*forms: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"anyOf": list(forms), **more}


def _as_written(value: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that may come out of `${...}`, its default as people would write it."""
    value = {key: item for key, item in value.items() if key != "title"}
    if "$ref" in value:
        value.pop("default", None)
        value.setdefault("description", _description(value["$ref"]))
        return value
    if value.get("default", 0) is None:
        del value["default"]
    elif value.get("x-kind") == "duration" and "default" in value:
        value["default"] = show_duration(value["default"])
    elif value.get("x-kind") == "size":
        value["default"] = show_size(value["default"])
    if value.get("type") in {"integer", "number", "boolean"}:
        outside: dict[str, Any] = {key: value.pop(key) for key in ("default", "description") if key in value}
        return {**outside, "anyOf": [value, _REFERENCE]}
    return value


def _description(reference: str) -> str:
    return str(Root.model_json_schema()["$defs"][_name(reference)]["description"])


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def reference_markdown() -> str:
    """The reference page: a table for every section, in the order of the file."""
    schema = json_schema()
    parts = [_INTRO]
    shown: set[str] = set()
    queue: list[tuple[str, dict[str, Any]]] = [("", schema)]
    while queue:
        path, section = queue.pop(0)
        heading = f"## `{path}`" if path else "## The file"
        parts.append(f"{heading}\n\n{section['description']}\n\n{''.join(_table(section))}")
        inner = []
        for key, value in section["properties"].items():
            for name, suffix in _sections(value):
                if name not in shown:
                    shown.add(name)
                    inner.append((f"{path}.{key}{suffix}".lstrip("."), schema["$defs"][name]))
        queue = inner + queue
    return "\n".join(parts)


def _table(section: dict[str, Any]) -> Iterator[str]:
    required = section.get("required", ())
    yield "| key | type | default | meaning |\n|---|---|---|---|\n"
    for key, value in section["properties"].items():
        default = "*required*" if key in required else _cell(value.get("default"))
        cells = (f"`{key}`", _label(value), default, value["description"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _cell(value: Any) -> str:
    """A default in the words of YAML."""
    if value is None or value in ([], {}):
        return ""
    words = json.dumps(value)
    return f"`{words if isinstance(value, bool) else words.replace(chr(34), '')}`"


def _label(value: dict[str, Any]) -> str:
    """What may be written, in words."""
    if "x-kind" in value:
        return str(value["x-kind"])
    if "anyOf" in value:
        forms = [form for form in value["anyOf"] if form not in (_REFERENCE, {"type": "null"})]
        return " or ".join(_label(form) for form in forms)
    if "enum" in value or "const" in value:
        return " or ".join(f"`{json.dumps(word).strip(chr(34))}`" for word in value.get("enum") or [value["const"]])
    if value.get("type") == "array":
        return f"list of {_label(value['items'])}"
    if "additionalProperties" in value:
        return f"mapping of name to {_label(value['additionalProperties'])}"
    return _WORDS.get(value.get("type", ""), "mapping")


def _sections(value: dict[str, Any], suffix: str = "") -> Iterator[tuple[str, str]]:
    """The sections that a value leads to, with what the path gets for a list or a mapping of them."""
    if "$ref" in value:
        yield _name(value["$ref"]), suffix
    for form in value.get("anyOf", ()):
        yield from _sections(form, suffix)
    if "items" in value:
        yield from _sections(value["items"], "[]")
    if "additionalProperties" in value:
        yield from _sections(value["additionalProperties"], ".NAME")


if __name__ == "__main__":
    sys.stdout.write(reference_markdown())
