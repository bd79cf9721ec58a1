"""The generated page, the JSON Schema and the example file."""

from pathlib import Path

from fastgate.config.compile import compile_snapshot
from fastgate.config.load import load
from fastgate.config.reference import json_schema, reference_markdown

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_all_settings_is_what_the_schema_says_today():
    """A changed schema needs `python -m fastgate.config.reference > deploy/configuration.md`."""
    assert (ROOT / "deploy" / "configuration.md").read_text(encoding="utf-8") == reference_markdown()


def test_every_key_of_the_schema_says_what_it_means():
    """No row of the page without a type and a meaning."""
    rows = [line for line in reference_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) > 90
    for row in rows:
        _, key, kind, _, meaning, _ = row.replace("\\|", "/").split("|")
        assert kind.strip(), key
        assert len(meaning.strip()) > 5, key


def test_the_json_schema_knows_keys_as_people_write_them():
    """Durations are text or numbers, flags and numbers may come from `${...}`, unknown keys are refused."""
    schema = json_schema()
    provider = schema["$defs"]["Provider"]
    assert provider["additionalProperties"] is False
    assert provider["required"] == ["client_id"]
    assert {form["type"] for form in provider["properties"]["timeout"]["anyOf"]} == {"number", "string"}
    assert provider["properties"]["timeout"]["default"] == "2s"
    assert {"type": "string", "pattern": r"\$\{"} in provider["properties"]["ssl_verify"]["anyOf"]
    assert {"const": "none"} in schema["$defs"]["ConfiguredRoute"]["properties"]["auth"]["anyOf"]
    assert {"type": "string"} in schema["properties"]["listen"]["anyOf"]
    names = set(schema["$defs"])
    for reference in _references(schema):
        assert reference.removeprefix("#/$defs/") in names


def _references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _references(item)


def test_the_example_file_loads():
    """deploy/fastgate.yaml is a configuration without problems."""
    environ = {"ISSUER": "https://idp.example.com/realms/a", "CLIENT_ID": "gate", "CLIENT_SECRET": "s"}
    snapshot = compile_snapshot(load(str(ROOT / "deploy" / "fastgate.yaml"), environ))
    assert [(route.name, route.access is None) for route in snapshot.routes] == [
        ("read-orders", False),
        ("change-orders", False),
        ("status", True),
    ]
