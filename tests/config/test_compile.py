"""From the file to the snapshot that requests see."""

import ssl
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme

from fastgate.config.compile import compile_snapshot
from fastgate.config.load import from_environment
from fastgate.errors import ConfigError
from fastgate.model import ClientAuth, DenialReason, Freshness, HealthCheck, Match, Notifier, Target, TokenSource

from .conftest import PROVIDER, SERVICE, VALID

INTERFACE = """\
listen: 127.0.0.1:8000
admin: {listen: 127.0.0.1:8001}
workers: 1

identity_providers:
  keycloak:
    issuer: ${ISSUER}
    client_id: ${CLIENT_ID}
    client_secret: ${CLIENT_SECRET}
    client_auth: client_secret_basic
    introspection_endpoint: https://idp.example.com/introspect
    introspection_hint: access_token
    introspection_headers: {X-Tenant: a}
    introspection_post_args: {resource: b}
    introspection_accept: application/json
    timeout: 2s
    ssl_verify: true
    cache_ttl: 1h
    cache_ttl_max: 5m
    cache_ttl_neg: 5s
    cache_ttl_resurrect: 0s

cache:
  memory: {max_entries: 100000}

services:
  - name: httpbin
    url: http://127.0.0.1:8080/
    connect_timeout: 5s
    read_timeout: 60s
    write_timeout: 60s
    auth: {scopes_required: ["profile email", admin]}
    routes:
      - paths: [/anything]
        methods: [GET, POST]
        strip_path: false
        auth:
          identity_provider: keycloak
          bearer_token_param_type: [header]
          audience_required: [api]
          upstream_headers: [{header: X-Auth-Subject, path: [sub]}]
      - paths: [/status]
        auth: none
"""
ENVIRON = {"ISSUER": "https://idp.example.com/realms/a", "CLIENT_ID": "gate", "CLIENT_SECRET": "s3cret"}


def test_the_file_of_the_interface_document(snapshot):
    """Every key of the interface document means what it says there."""
    compiled = snapshot(INTERFACE, ENVIRON)
    provider = compiled.providers["keycloak"]
    assert (provider.issuer, provider.client_id, provider.client_secret) == (
        "https://idp.example.com/realms/a",
        "gate",
        "s3cret",
    )
    assert provider.introspection_endpoint == "https://idp.example.com/introspect"
    assert provider.headers == (("X-Tenant", "a"),)
    assert provider.post_args == (("resource", "b"),)
    assert provider.client_auth is ClientAuth.BASIC
    assert provider.freshness == Freshness(3600.0, 300.0, 5.0)
    protected, public = compiled.routes
    assert (protected.name, public.name) == ("httpbin-1", "httpbin-2")
    assert protected.match == Match(paths=("/anything",), methods=frozenset({"GET", "POST"}))
    assert protected.access is not None
    assert protected.access.provider is provider
    assert [(r.reason, r.claim, r.alternatives) for r in protected.access.policy.requirements] == [
        (DenialReason.AUDIENCE, ("aud",), (frozenset({"api"}),)),
        (DenialReason.SCOPE, ("scope",), (frozenset({"profile", "email"}), frozenset({"admin"}))),
    ]
    assert protected.access.policy.issuers == {"https://idp.example.com/realms/a"}
    assert not protected.access.policy.issuer_required
    assert protected.access.extraction.sources == {TokenSource.HEADER}
    assert [(h.name, h.claim) for h in protected.access.headers] == [(b"X-Auth-Subject", ("sub",))]
    assert set(protected.denials) == set(DenialReason)
    assert public.access is None
    service = compiled.services["httpbin"]
    assert (service.scheme, service.authority, service.path) == ("http", "127.0.0.1:8080", "")
    assert service.targets == (Target("127.0.0.1", 8080, 100),)
    assert service.tls is None
    [address] = compiled.settings.listen
    assert (address.host, address.port, address.tls) == ("127.0.0.1", 8000, None)
    assert compiled.settings.forwarding.protected == {b"x-auth-subject"}


def test_what_a_short_file_means(snapshot):
    """The defaults of the interface document, for listeners, admin and a protected route."""
    compiled = snapshot(VALID)
    [address] = compiled.settings.listen
    assert (address.host, address.port) == ("127.0.0.1", 8000)
    assert compiled.settings.admin is not None
    assert (compiled.settings.admin.address.host, compiled.settings.admin.address.port) == ("127.0.0.1", 8001)
    [route] = compiled.routes
    assert route.access is not None
    assert (route.strip_path, route.preserve_host, route.access.hide_credentials) == (False, False, False)
    assert route.access.policy.leeway == 0
    assert compiled.settings.forwarding.via == f"fastgate-{compiled.version[:8]}".encode()


def test_listeners_in_every_form(snapshot, tmp_path: Path):
    """A string, a mapping, a list of both, IPv6, every interface; `admin: false` is none."""
    cert = trustme.CA().issue_cert("gate.example")
    cert.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = "{certificate: both.pem, key: both.pem, client_ca: ca.pem}"
    text = f"listen: ['[::1]:8000', ':8001', {{address: 'localhost:8443', tls: {tls}}}]\n"
    compiled = snapshot(VALID + text + "admin: false\n")
    assert [(a.host, a.port, a.tls is not None) for a in compiled.settings.listen] == [
        ("::1", 8000, False),
        ("", 8001, False),
        ("localhost", 8443, True),
    ]
    context = compiled.settings.listen[2].tls
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert compiled.settings.admin is None
    one = snapshot(VALID + "listen: {address: ':8443', tls: {certificate: both.pem, key: both.pem}}\n")
    assert one.settings.listen[0].tls.verify_mode is ssl.CERT_NONE


def sending(written: str) -> str:
    """A file whose identity provider may send something."""
    provider = "issuer: https://h/a, client_id: gate, client_secret: s"
    return f"identity_providers:\n  idp: {{{provider}, {written}}}\n{SERVICE}"


def test_nobody_may_send_anything_that_was_not_asked_for(snapshot):
    """Left out, and `false`, are none; there is no listener for it either."""
    for text in (VALID, sending("backchannel_logout: false, security_events: false")):
        compiled = snapshot(text)
        provider = compiled.providers["idp"]
        assert (provider.logouts, provider.security_events, compiled.settings.events) == (None, None, None)


def test_who_may_send_what(snapshot):
    """`true` is our own client as the audience, and the issuer's own keys."""
    compiled = snapshot(sending("backchannel_logout: true, security_events: true") + "events: {listen: ':8002'}\n")
    provider = compiled.providers["idp"]
    assert provider.logouts == Notifier("https://h/a", frozenset({"gate"}))
    assert provider.security_events == Notifier("https://h/a", frozenset({"gate"}), None, frozenset({"https://h/a"}))
    assert (compiled.settings.events.host, compiled.settings.events.port) == ("", 8002)


def test_who_may_send_what_in_detail(snapshot):
    """Other audiences, other keys, another transmitter; the agreed secret stays out of every repr."""
    logout = "jwks_uri: https://h/keys, backchannel_logout: {audience: [app, web]}"
    provider = snapshot(sending(f"{logout}, security_events: {{}}")).providers["idp"]
    assert provider.logouts == Notifier("https://h/a", frozenset({"app", "web"}), "https://h/keys")
    assert provider.security_events.jwks_uri == "https://h/keys"
    events = (
        "security_events: {issuer: https://tr, jwks_uri: https://tr/keys, audience: ['urn:us'], "
        "authorization_header: Bearer hunter2}"
    )
    provider = snapshot(sending(f"{logout}, {events}")).providers["idp"]
    assert provider.security_events == Notifier(
        "https://tr", frozenset({"urn:us"}), "https://tr/keys", frozenset({"https://h/a"}), "Bearer hunter2"
    )
    assert "hunter2" not in repr(provider)
    nameless = "introspection_endpoint: https://h/i, client_id: gate, client_secret: s"
    text = f"identity_providers:\n  idp: {{{nameless}, {events}}}\n{SERVICE}"
    assert snapshot(text).providers["idp"].security_events.subject_issuers == {"https://tr"}


def test_targets_take_scheme_path_and_host_from_the_url(snapshot, tmp_path: Path):
    """N70, T21: Host and TLS name are those of `url`; TLS is verified unless the file says otherwise."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    text = f"""{PROVIDER}services:
  - name: a
    url: https://api.example.com/base/
    targets: [{{target: "10.0.0.1:8443", weight: 3}}, {{target: "[::1]:8443"}}]
    health_check: {{path: /up, interval: 1s, timeout: 500ms, unhealthy_after: 2, healthy_after: 4}}
    tls: {{ca_file: ca.pem}}
    routes: [{{paths: [/a]}}]
  - name: b
    url: https://127.0.0.1/
    tls: {{verify: false, server_name: b.example}}
    routes: [{{paths: [/b]}}]
  - name: c
    targets: [{{target: "10.0.0.3:81"}}]
    routes: [{{paths: [/c]}}]
"""
    compiled = snapshot(text)
    a, b, c = (compiled.services[name] for name in "abc")
    assert (a.scheme, a.authority, a.path, a.server_name) == ("https", "api.example.com", "/base", "api.example.com")
    assert a.targets == (Target("10.0.0.1", 8443, 3), Target("::1", 8443, 100))
    assert a.health == HealthCheck("/up", 1.0, 0.5, 2, 4)
    assert a.tls is not None
    assert a.tls.verify_mode is ssl.CERT_REQUIRED
    assert a.tls.check_hostname
    assert a.tls.minimum_version is ssl.TLSVersion.TLSv1_2
    assert (b.authority, b.server_name, b.targets) == ("127.0.0.1", "b.example", (Target("127.0.0.1", 443, 100),))
    assert b.tls is not None
    assert (b.tls.verify_mode, b.tls.check_hostname) == (ssl.CERT_NONE, False)
    assert (c.scheme, c.authority, c.path, c.tls, c.server_name) == ("http", "10.0.0.3:81", "", None, None)


AUTHS = [
    # (auth of the service, auth of the route, public, scopes, audience)
    ("{scopes_required: [a]}", None, False, "a", None),
    ("{scopes_required: [a]}", "{audience_required: [x]}", False, "a", "x"),
    ("{scopes_required: [a], audience_required: [x]}", "{scopes_required: [b]}", False, "b", "x"),
    ("{scopes_required: [a]}", "{scopes_required: []}", False, None, None),
    ("{scopes_required: [a]}", "none", True, None, None),
    ("{scopes_required: [a]}", "{}", False, "a", None),
    ("none", None, True, None, None),
    ("none", "{}", False, None, None),
    ("none", "{scopes_required: [b]}", False, "b", None),
    (None, "none", True, None, None),
    (None, None, False, None, None),
]


@pytest.mark.parametrize(("service", "route", "public", "scope", "audience"), AUTHS)
def test_the_auth_of_a_route_replaces_single_keys_of_its_services(snapshot, service, route, public, scope, audience):
    """Only the word `none` makes a route public; a mapping, even an empty one, protects it."""
    text = PROVIDER + SERVICE
    text += f"        auth: {route}\n" if route else ""
    text += f"    auth: {service}\n" if service else ""
    [compiled] = snapshot(text).routes
    assert (compiled.access is None) == public
    if compiled.access is not None:
        found = {r.reason: r.alternatives for r in compiled.access.policy.requirements}
        assert found.get(DenialReason.SCOPE) == ((frozenset({scope}),) if scope else None)
        assert found.get(DenialReason.AUDIENCE) == ((frozenset({audience}),) if audience else None)


def test_issuers_realm_and_freshness_of_a_route(snapshot):
    """`issuers_allowed` replaces the issuer and makes `iss` required; freshness can only become shorter."""
    text = """\
identity_providers:
  a: {issuer: "https://one.example/x", client_id: c, client_secret: s, cache_ttl_max: 1m}
  b: {introspection_endpoint: "https://two.example/i", client_id: c, client_auth: none}
services:
  - name: s
    url: http://h
    routes:
      - {paths: [/1], auth: {identity_provider: a}}
      - paths: [/2]
        auth: {identity_provider: a, issuers_allowed: ["https://o"], cache_ttl_max: 5s, cache_ttl_neg: 0}
      - {paths: [/3], auth: {identity_provider: b, realm: "my api", claims_forbidden: [act]}}
      - {paths: [/4], auth: {identity_provider: b}}
"""
    accesses = [route.access for route in snapshot(text).routes]
    assert [access.policy.issuers for access in accesses] == [{"https://one.example/x"}, {"https://o"}, set(), set()]
    assert [access.policy.issuer_required for access in accesses] == [False, True, False, False]
    assert accesses[1].freshness == Freshness(3600.0, 5.0, 0.0)
    assert accesses[0].freshness == Freshness(3600.0, 60.0, 5.0)
    assert accesses[2].policy.claims_forbidden == (("act",),)
    challenges = [
        dict(route.denials[DenialReason.INACTIVE].fields)[b"WWW-Authenticate"] for route in snapshot(text).routes
    ]
    assert [challenge.split(b'"')[1] for challenge in challenges] == [
        b"one.example", b"one.example", b"my api", b"two.example"
    ]  # fmt: skip


def test_what_a_refusal_says_is_up_to_the_file(snapshot):
    """Messages, redirects, the scope of the challenge and `expose_error_code` reach the rendered denials."""
    auth = "{scopes_required: ['a b', c], unauthorized_error_message: Nope, forbidden_redirect_uri: 'https://x/login'}"
    [route] = snapshot(PROVIDER + SERVICE + f"        auth: {auth}\n").routes
    assert route.denials[DenialReason.INACTIVE].body == b'{"message":"Nope"}'
    assert dict(route.denials[DenialReason.SCOPE].fields)[b"Location"] == b"https://x/login"
    [route] = snapshot(PROVIDER + SERVICE + "        auth: {scopes_required: ['a b', c]}\n").routes
    assert b'scope="a b"' in dict(route.denials[DenialReason.SCOPE].fields)[b"WWW-Authenticate"]
    [route] = snapshot(PROVIDER + SERVICE + "        auth: {expose_error_code: false}\n").routes
    assert b"error=" not in dict(route.denials[DenialReason.INACTIVE].fields)[b"WWW-Authenticate"]


def test_words_of_roles_and_groups_may_be_in_any_language(snapshot):
    """Only scopes are bound to the characters of RFC 6749; a redirect may lead into a single-page application."""
    auth = "{roles_required: ['gesch\u00e4ftsf\u00fchrer \u7ba1\u7406'], unauthorized_redirect_uri: 'https://x/#/in'}"
    [route] = snapshot(PROVIDER + SERVICE + f"        auth: {auth}\n").routes
    assert route.access is not None
    assert route.access.policy.requirements[0].alternatives == (
        frozenset({"gesch\u00e4ftsf\u00fchrer", "\u7ba1\u7406"}),
    )
    assert dict(route.denials[DenialReason.INACTIVE].fields)[b"Location"] == b"https://x/#/in"


def test_matches(snapshot):
    """Regular expressions in Kong's spelling, hosts and header names in lower case."""
    route = """\
        name: all
        methods: [GET]
        hosts: [API.example.com, "*.Example.org", "[::1]", "h:8080"]
        headers: {X-Version: ["2", "3"]}
        strip_path: true
        preserve_host: true
"""
    text = VALID.replace("[/]", "['/plain', '~/u/(?<id>[0-9]+)$']") + route
    [compiled] = snapshot(text).routes
    assert compiled.name == "all"
    assert compiled.match.paths == ("/plain",)
    [expression] = compiled.match.patterns
    assert expression.match("/u/15")["id"] == "15"
    assert expression.match("/v/u/15") is None
    assert compiled.match.hosts == ("api.example.com", "*.example.org", "[::1]", "h:8080")
    assert compiled.match.headers == ((b"x-version", frozenset({b"2", b"3"})),)
    assert (compiled.strip_path, compiled.preserve_host) == (True, True)


def test_the_key_of_digests_depends_on_everything_that_can_change_the_answer(snapshot):
    """N25, T2, T6: name, endpoint, client, hint, headers, arguments: each gives another key; times do not."""
    base = {
        "issuer": "https://h",
        "introspection_endpoint": "https://h/i",
        "client_id": "c",
        "client_secret": "s",
        "introspection_hint": "access_token",
        "introspection_headers": {"X-A": "1"},
        "introspection_post_args": {"resource": "1"},
        "client_auth": "client_secret_basic",
    }

    def key(name: str = "idp", **changes) -> bytes:
        import json  # noqa: PLC0415

        text = "identity_providers: " + json.dumps({name: base | changes}) + "\n" + SERVICE
        return snapshot(text).providers[name].digest_key

    keys = [
        key(),
        key("other"),
        key(issuer="https://h/2"),
        key(introspection_endpoint="https://h/i2"),
        key(client_id="c2"),
        key(client_secret="s2"),
        key(introspection_hint=None),
        key(introspection_headers={"X-A": "2"}),
        key(introspection_headers={"X-A": "1", "X-B": "1"}),
        key(introspection_headers={}),
        key(introspection_post_args={"resource": "2"}),
        key(introspection_headers={}, introspection_post_args={"X-A": "1", "resource": "1"}),
    ]
    assert len(set(keys)) == len(keys)
    assert key(timeout=5, cache_ttl_max=1, backchannel_logout=True) == keys[0]
    assert all(len(each) == 64 for each in keys)


def test_a_public_route_behind_a_protected_one_with_headers(problems):
    """T34: leaving out a header must not make a request public."""
    text = f"""{PROVIDER}services:
  - name: a
    url: http://h
    routes:
      - {{name: locked, paths: [/admin], headers: {{X-Version: ["2"]}}}}
      - {{name: open, paths: [/], auth: none}}
"""
    [told] = problems(text)
    assert told.startswith("7 services[0].routes[0].headers: protects only requests that carry these headers")
    assert "public route open" in told


def test_a_protected_route_between_the_two(snapshot):
    """T34: where a request without the header meets another protected route, nothing is wrong."""
    text = f"""{PROVIDER}services:
  - name: a
    url: http://h
    routes:
      - {{name: locked, paths: [/admin], headers: {{X-Version: ["2"]}}}}
      - {{name: also-locked, paths: [/admin]}}
      - {{name: open, paths: [/], auth: none}}
"""
    assert len(snapshot(text).routes) == 3


def test_settings(snapshot):
    """Limits, addresses, log, cache and Via arrive where they are used."""
    compiled = snapshot(
        VALID
        + """\
limits: {request_line: 8KiB, header_count: 50, connections: 5, header_timeout: 1s, drain_timeout: 2m}
trusted_addresses: [10.0.0.0/8, "::1"]
via: edge
log: {format: console, access: false}
cache: {memory: {max_entries: 10}, revocation_ttl: 1h}
workers: auto
worker_timeout: 3s
admin: {listen: "127.0.0.1:1", token: "t0ken"}
"""
    ).settings
    assert (compiled.limits.request_line, compiled.limits.header_count, compiled.limits.connections) == (8192, 50, 5)
    assert (compiled.limits.header_timeout, compiled.limits.drain_timeout) == (1.0, 120.0)
    assert compiled.forwarding.trusted == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert compiled.forwarding.via == b"edge"
    assert (compiled.log_format, compiled.access_log) == ("console", False)
    assert (compiled.max_entries, compiled.revocation_ttl) == (10, 3600.0)
    assert (compiled.workers, compiled.worker_timeout) == (None, 3.0)
    assert compiled.admin is not None
    assert compiled.admin.token == "t0ken"


def test_versions_tell_configurations_apart_but_not_secrets(snapshot):
    """Another route is another version; a secret could be guessed from a digest that everybody sees."""
    first = snapshot(VALID)
    assert snapshot(VALID + "# a remark\n").version == first.version
    assert snapshot(VALID, {"SECRET": "other"}).version == first.version
    assert snapshot(VALID + "        auth: none\n").version != first.version
    assert snapshot(VALID.replace("[/]", "[/x]")).version != first.version


def test_a_certificate_that_goes_away_after_the_check(load_text, tmp_path: Path):
    """What was readable when the file was checked may be gone when it is compiled: a problem, not a crash."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    text = VALID.replace("http://127.0.0.1:9/", "https://h/") + "    tls: {ca_file: ca.pem}\n"
    config = load_text(text)
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(ConfigError) as caught:
        compile_snapshot(config)
    [problem] = caught.value.problems
    assert (problem.line, problem.path) == (8, "services[0].tls.ca_file")


def test_from_the_environment():
    """One service, one protected route that takes everything."""
    environ = {"ISSUER": "https://idp.example.com", "CLIENT_ID": "gate", "CLIENT_SECRET": "s"}
    compiled = compile_snapshot(from_environment(environ, "http://127.0.0.1:8080/base", "127.0.0.1:0"))
    [route] = compiled.routes
    assert route.match.paths == ("/",)
    assert route.access is not None
    assert route.access.provider.issuer == "https://idp.example.com"
    assert route.service.path == "/base"
    assert compiled.settings.listen[0].port == 0
