"""T12: no secret is in a message, a repr or a digest of the configuration, whatever is wrong with the file."""

import json

import pytest

from fastgate.config.compile import compile_snapshot
from fastgate.errors import ConfigError

from .conftest import SERVICE, VALID

SECRET = "hunter2-very-secret"
ENVIRON = {"SECRET": SECRET}


def everything_said(error: ConfigError) -> str:
    return f"{error} {error.args} {error.problems!r} {error.__cause__!r} {error.__context__!r}"


PLACES = [
    "identity_providers: {idp: {issuer: '${SECRET}', client_id: a, client_secret: b}}",
    "identity_providers: {idp: {issuer: 'https://a:${SECRET}@h', client_id: a, client_secret: b}}",
    "identity_providers: {idp: {issuer: 'https://h', client_id: [a], client_secret: ['${SECRET}']}}",
    "identity_providers: {idp: {issuer: 'https://h', client_id: a, client_secret: {x: '${SECRET}'}}}",
    "identity_providers: {idp: {issuer: 'https://h', client_id: a, client_secret: b, timeout: '${SECRET}'}}",
    "identity_providers: {idp: {issuer: 'https://h', client_id: a, client_secret: b, client_auth: '${SECRET}'}}",
    "identity_providers: {idp: {issuer: 'https://h', client_id: a, client_secret: b, ca_file: '${SECRET}'}}",
    "identity_providers: {idp: {issuer: 'https://h', client_id: a, client_secret: b, ssl_verify: '${SECRET}'}}",
    "identity_providers: {idp: {issuer: 'https://h', client_id: a, client_secret: b, zzz: '${SECRET}'}}",
    'identity_providers: {idp: {issuer: "https://h", client_id: a, introspection_headers: {X-A: "${SECRET}\\n"}}}',
    "identity_providers: {idp: '${SECRET}'}",
    "identity_providers: '${SECRET}'",
    "admin: {listen: ':1', token: \"${SECRET}\\n\"}",
    "admin: '${SECRET}'",
    "listen: '${SECRET}'",
    "workers: '${SECRET}'",
    "log: {format: '${SECRET}'}",
    "trusted_addresses: ['${SECRET}']",
    "cache: {redis: {url: 'redis://:${SECRET}@h'}}",
    "limits: {connections: '${SECRET}'}",
]


@pytest.mark.parametrize("text", PLACES)
def test_a_secret_in_any_wrong_place(load_text, text):
    """Messages tell keys and lines, never what was written: a secret may have got into the wrong key."""
    with pytest.raises(ConfigError) as caught:
        load_text(f"{text}\n{SERVICE}", ENVIRON)
    assert caught.value.problems
    assert SECRET not in everything_said(caught.value)


ROUTES = ["paths: ['${SECRET}']", "paths: ['~(${SECRET}']", "methods: ['${SECRET}']", "hosts: ['${SECRET}!']"]
ROUTES += ["auth: '${SECRET}'", "auth: {identity_provider: '${SECRET}'}", "auth: {scopes_required: '${SECRET}'}"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_secret_in_any_wrong_place_of_a_route(load_text, route):
    """As above."""
    with pytest.raises(ConfigError) as caught:
        load_text(VALID.replace("paths: [/]", route), ENVIRON)
    assert SECRET not in everything_said(caught.value)


def test_a_secret_written_into_the_file_itself(load_text):
    """A syntax error does not quote its line."""
    with pytest.raises(ConfigError) as caught:
        load_text(f"identity_providers:\n  idp: {{client_secret: {SECRET}]\n", {})
    assert SECRET not in everything_said(caught.value)


def test_reprs_of_what_was_loaded(load_text):
    """The configuration, the snapshot and the dump that the version is made of hold no secret."""
    text = VALID.replace("client_id: gate", "client_id: gate, introspection_headers: {X-Key: '${SECRET}'}")
    config = load_text(text + "admin: {token: '${SECRET}'}\n", ENVIRON)
    snapshot = compile_snapshot(config)
    assert snapshot.settings.admin.token == SECRET
    assert snapshot.providers["idp"].client_secret == SECRET
    said = f"{config!r} {snapshot!r} {snapshot.providers!r} {snapshot.settings!r} {snapshot.routes!r}"
    assert SECRET not in said
    assert SECRET not in json.dumps(config.root.model_dump(mode="json"))
