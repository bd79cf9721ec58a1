"""Every kind of problem: with its line, its key path, and what to do; all of a file at once."""

from pathlib import Path

import pytest
import trustme

from fastgate.config.load import MAX_FILE, from_environment, load
from fastgate.errors import ConfigError

from .conftest import PROVIDER, SERVICE, VALID

ROUTE = "services:\n  - name: api\n    url: http://127.0.0.1:9/\n    routes:\n      - "
"""What is added to it stands on line 7 of a file that starts with PROVIDER."""


def test_a_good_file_has_no_problem(load_text):
    """The smallest useful file: one identity provider, one service, one route."""
    assert load_text(VALID).root.services[0].name == "api"


def test_all_problems_of_a_file_come_at_once_in_its_order(problems):
    """Interpolation, schema, references, regular expressions and certificates are in one list, sorted by line."""
    text = """\
listen: {address: ":8443", tls: {certificate: nowhere.pem, key: nowhere.pem}}
identity_providers:
  one: {issuer: "http://idp.example.com", client_id: gate, client_secret: "${UNSET}"}
  two: {client_id: gate, client_secrt: x}
services:
  - name: api
    url: ftp://x
    routes:
      - paths: ["~(", /ok/../up]
      - paths: [/a]
        auth: {identity_provider: three}
  - name: api
    url: http://127.0.0.1:9
    routes:
      - strip_path: true
        auth: none
limits: {request_line: 4kb}
"""
    told = problems(text)
    assert [line.split(":")[0] for line in told] == [
        "1 listen.tls.certificate",
        "3 identity_providers.one.client_secret",
        "3 identity_providers.one.issuer",
        "4 identity_providers.two",
        "4 identity_providers.two.client_secret",
        "4 identity_providers.two.client_secrt",
        "7 services[0].url",
        "9 services[0].routes[0]",
        "9 services[0].routes[0].paths[0]",
        "9 services[0].routes[0].paths[1]",
        "11 services[0].routes[1].auth.identity_provider",
        "12 services[1].name",
        "15 services[1].routes[0]",
        "17 limits.request_line",
    ]


ONE_PROBLEM = [
    # (text after PROVIDER, line, path, part of the message)
    (SERVICE + "lisen: x", 8, "lisen", "did you mean `listen`?"),
    (SERVICE + "zzz: x", 8, "zzz", "known here are listen, admin,"),
    (SERVICE + "listen: 8000", 8, "listen", "must be host:port"),
    (SERVICE + "listen: [127.0.0.1:1, '::1:8000']", 8, "listen[1]", "square brackets"),
    (SERVICE + "listen: [127.0.0.1:1, {address: 127.0.0.1:1}]", 8, "listen[1]", "another listener has already"),
    (SERVICE + "listen: []", 8, "listen", "at least 1"),
    (SERVICE + "admin: {listen: ':8001'}", 8, "admin.token", "${ADMIN_TOKEN}"),
    (SERVICE + "admin: {listen: 127.0.0.1:8000}", 8, "admin.listen", "another listener has already"),
    (SERVICE + "listen: 127.0.0.1:8001", 8, "listen", "another listener has already"),
    (SERVICE + "limits: {connections: true}", 8, "limits.connections", "must be a number"),
    (SERVICE + "limits: {connections: }", 8, "limits.connections", "has no value"),
    (SERVICE + "via: [a]", 8, "via", "must be text"),
    (SERVICE + "admin: true", 8, "admin", "must be a mapping"),
    (SERVICE + "workers: 0", 8, "workers", "at least 1"),
    (SERVICE + "workers: 100000", 8, "workers", "at most 512"),
    (SERVICE + "workers: many", 8, "workers", "a number of processes, or auto"),
    (SERVICE + "workers: true", 8, "workers", "a number of processes, or auto"),
    (SERVICE + "worker_timeout: 0s", 8, "worker_timeout", "longer than 0"),
    (SERVICE + "cache: {memory: {max_entries: 0}}", 8, "cache.memory.max_entries", "at least 1"),
    (SERVICE + "limits: {drain_timeout: 0s}", 8, "limits.drain_timeout", "longer than 0"),
    (SERVICE + "limits: {header_field: 4kb}", 8, "limits.header_field", "64KiB"),
    (SERVICE + "log: {format: xml}", 8, "log.format", "'json' or 'console'"),
    (SERVICE + "log: {access: 2}", 8, "log.access", "true or false"),
    (SERVICE + "trusted_addresses: [10.0.0.1/8]", 8, "trusted_addresses[0]", "10.0.0.0/8"),
    (SERVICE + "via: 'a b'", 8, "via", "must be a token"),
    ("services: []", 3, "services", "at least 1"),
    ("services: {}", 3, "services", "must be a list"),
    ("services: [{url: 'http://x', routes: [{paths: [/]}]}]", 3, "services[0].name", "is missing"),
    ("services: [{name: a, routes: [{paths: [/]}]}]", 3, "services[0]", "needs `url` or `targets`"),
    ("services: [{name: a, url: 'http://x'}]", 3, "services[0].routes", "is missing"),
    ("services: [{name: a, url: 'http://x', routes: []}]", 3, "services[0].routes", "at least 1"),
    (SERVICE.replace("http://127.0.0.1:9/", "''"), 5, "services[0].url", "printable ASCII"),
    (SERVICE.replace("name: api", "name:"), 4, "services[0].name", "has no value"),
    (SERVICE.replace("http://127.0.0.1:9/", "127.0.0.1:9"), 5, "services[0].url", "https:// or http://"),
    (SERVICE.replace("http://127.0.0.1:9/", "http://u:p@h/"), 5, "services[0].url", "user name"),
    (SERVICE.replace("http://127.0.0.1:9/", "http://h/?a=b"), 5, "services[0].url", "query"),
    (SERVICE.replace("http://127.0.0.1:9/", "http://h/a/../b"), 5, "services[0].url", "normal"),
    (SERVICE.replace("http://127.0.0.1:9/", "http://h:99999/"), 5, "services[0].url", "not a valid URL"),
    (SERVICE.replace("http://127.0.0.1:9/", "http://h:0/"), 5, "services[0].url", "port 0"),
    (SERVICE.replace("http://127.0.0.1:9/", "http://h_-.x-/"), 5, "services[0].url", "host name"),
    (SERVICE.replace("http://127.0.0.1:9/", "http://[::zz]/"), 5, "services[0].url", "URL"),
    (SERVICE.replace("http://127.0.0.1:9/", "http://b\u00fccher.example/"), 5, "services[0].url", "ASCII"),
    (SERVICE + "    targets: [{target: 10.0.0.1}]", 8, "services[0].targets[0].target", "host:port"),
    (SERVICE + "    targets: [{target: 'h:0'}]", 8, "services[0].targets[0].target", "port 0"),
    (SERVICE + "    targets: [{target: 'h:1'}, {target: 'h:1'}]", 8, "services[0].targets[1].target", "twice"),
    (SERVICE + "    targets: [{target: 'h:1', weight: 0}]", 8, "services[0].targets[0].weight", "at least 1"),
    (SERVICE + "    tls: {verify: true}", 8, "services[0].tls", "https://"),
    (SERVICE + "    connect_timeout: 0", 8, "services[0].connect_timeout", "longer than 0"),
    (SERVICE + "    connect_timeout: 5x", 8, "services[0].connect_timeout", "500ms, 5s, 1m, 1h"),
    (SERVICE + "    max_connections: 1.5", 8, "services[0].max_connections", "whole number"),
    (SERVICE + "    scopes_required: [a]", 8, "services[0].scopes_required", "belongs under `auth`"),
    (SERVICE + "    auth: public", 8, "services[0].auth", "`none` for a public route"),
    (SERVICE + "    auth:", 8, "services[0].auth", "`none` for a public route"),
    (ROUTE + "methods: []", 7, "services[0].routes[0]", "at least one of `paths`, `methods`, `hosts`, `headers`"),
    (ROUTE + "paths: /a", 7, "services[0].routes[0].paths", "must be a list: write [a]"),
    (ROUTE + "paths: [a]", 7, "services[0].routes[0].paths[0]", "must start with /"),
    (ROUTE + "paths: [/a%2fb]", 7, "services[0].routes[0].paths[0]", "no percent-encoding"),
    (ROUTE + "paths: ['/a;b']", 7, "services[0].routes[0].paths[0]", "must be plain"),
    (ROUTE + "paths: [/a//b]", 7, "services[0].routes[0].paths[0]", "must be normal"),
    (ROUTE + "paths: [/a/./b]", 7, "services[0].routes[0].paths[0]", "must be normal"),
    (ROUTE + "paths: [/a, /b, /a]", 7, "services[0].routes[0].paths[2]", "twice"),
    (ROUTE + "paths: ['~(a']", 7, "services[0].routes[0].paths[0]", "not a valid regular expression"),
    (ROUTE + "paths: ['~']", 7, "services[0].routes[0].paths[0]", "regular expression of 1 to"),
    (ROUTE + "paths: [5]", 7, "services[0].routes[0].paths[0]", "in quotes"),
    (ROUTE + "methods: [get]", 7, "services[0].routes[0].methods[0]", "capital letters"),
    (ROUTE + "methods: ['GE T']", 7, "services[0].routes[0].methods[0]", "HTTP method"),
    (ROUTE + "methods: [TRACE]", 7, "services[0].routes[0].methods[0]", "never forwards"),
    (ROUTE + "hosts: ['a.*.b']", 7, "services[0].routes[0].hosts[0]", "first or the last label"),
    (ROUTE + "hosts: ['*']", 7, "services[0].routes[0].hosts[0]", "first or the last label"),
    (ROUTE + "hosts: ['a/b']", 7, "services[0].routes[0].hosts[0]", "host name"),
    (ROUTE + "hosts: ['a:x']", 7, "services[0].routes[0].hosts[0]", "port"),
    (ROUTE + "headers: {X-A: []}", 7, "services[0].routes[0].headers.X-A", "at least 1"),
    (ROUTE + "headers: {X-A: b}", 7, "services[0].routes[0].headers.X-A", "must be a list"),
    (ROUTE + "headers: {X-A: [b], x-a: [c]}", 7, "services[0].routes[0].headers.x-a", "twice"),
    (ROUTE + "headers: {Host: [b]}", 7, "services[0].routes[0].headers.Host", "`hosts` matches Host"),
    (ROUTE + "headers: {X-A: ['a\u00e9']}", 7, "services[0].routes[0].headers.X-A[0]", "printable ASCII"),
    (ROUTE + "{auth: none, headers: {X-A: [b]}}", 7, "services[0].routes[0].headers", "choose to be public"),
    (ROUTE + "{name: a, paths: [/a]}\n      - {name: a, paths: [/b]}", 8, "services[0].routes[1].name", "another"),
    (ROUTE + "{name: api-2, paths: [/a]}\n      - {paths: [/b]}", 8, "services[0].routes[1]", "needs a `name`"),
    (ROUTE + "{paths: [/], name: ''}", 7, "services[0].routes[0].name", "1 to 64"),
    (SERVICE + SERVICE.removeprefix("services:\n"), 8, "services[1].name", "another service"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "path", "part"), ONE_PROBLEM, ids=[f"{c[2]}-{c[3]}" for c in ONE_PROBLEM])
def test_one_mistake_is_one_problem_at_its_place(problems, text, line, path, part):
    """A mistake gives exactly one problem: at its line, with its key path, with what to do."""
    [told] = problems(PROVIDER + text)
    assert told.startswith(f"{line} {path}: ")
    assert part in told


AUTH = [
    ("identity_provider: ipd", "identity_provider", "there are: idp"),
    ("scopes_required: a b", "scopes_required", "must be a list"),
    ("scopes_required: ['']", "scopes_required[0]", "one or more words"),
    ("scopes_required: ['a  b']", "scopes_required[0]", "one space"),
    ("scopes_claim: []", "scopes_claim", "at least 1"),
    ("bearer_token_param_type: [basic]", "bearer_token_param_type[0]", "'header'"),
    ("bearer_token_param_type: []", "bearer_token_param_type", "at least 1"),
    ("bearer_token_cookie_name: 'a b'", "bearer_token_cookie_name", "token"),
    ("max_token_length: 100000", "max_token_length", "at most 65536"),
    ("cache_ttl_max: 10m", "cache_ttl_max", "which is 5m"),
    ("cache_ttl_neg: 1m", "cache_ttl_neg", "which is 5s"),
    ("realm: 'a\"b'", "realm", "without quotes"),
    ("forbidden_redirect_uri: '//x'", "forbidden_redirect_uri", "URL"),
    ("unauthorized_redirect_uri: '/a b'", "unauthorized_redirect_uri", "without spaces"),
    ("unauthorized_error_message: ''", "unauthorized_error_message", "not empty"),
    ("upstream_headers: [{header: Authorization, path: [sub]}]", "upstream_headers[0].header", "belongs to HTTP"),
    ("upstream_headers: [{header: Sec-WebSocket-Key, path: [sub]}]", "upstream_headers[0].header", "belongs to HTTP"),
    ("upstream_headers: [{header: X_User, path: [sub]}]", "upstream_headers[0].header", "letters, digits and '-'"),
    ("upstream_headers: [{header: X-A, path: sub}]", "upstream_headers[0].path", "must be a list"),
    ("upstream_headers: [{header: X-A, path: [a]}, {header: x-a, path: [b]}]", "upstream_headers[1].header", "twice"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "key", "part"), AUTH, ids=[f"{c[1]}-{c[2]}" for c in AUTH])
def test_one_mistake_in_the_auth_of_a_route(problems, written, key, part):
    """As for the rest of the file."""
    [told] = problems(PROVIDER + ROUTE + f"{{paths: [/], auth: {{{written}}}}}")
    assert told.startswith(f"7 services[0].routes[0].auth.{key}: ")
    assert part in told


PROVIDERS = [
    ("{client_id: a, client_secret: b}", "", "needs `issuer` (to discover where to ask) or `introspection_endpoint`"),
    ("{issuer: 'https://h', client_secret: b}", ".client_id", "is missing"),
    ("{issuer: 'https://h', client_id: a}", ".client_secret", "is missing; only `client_auth: none` goes without"),
    ("{issuer: 'https://h', client_id: a, client_secret: ''}", ".client_secret", "must not be empty"),
    ("{issuer: 'https://h', client_id: a, client_secret: 123}", ".client_secret", "numbers, true and false in quotes"),
    ("{issuer: 'https://h', client_id: 0815, client_secret: b}", ".client_id", "numbers, true and false in quotes"),
    ("{issuer: 'http://h', client_id: a, client_secret: b}", ".issuer", "`allow_http: true`"),
    ("{issuer: 'http://127.0.0.1.example.com', client_id: a, client_secret: b}", ".issuer", "must be https"),
    ("{introspection_endpoint: 'http://h/i', client_id: a, client_secret: b}", ".introspection_endpoint", "https"),
    ("{issuer: 'https://h?a', client_id: a, client_secret: b}", ".issuer", "query"),
    ("{issuer: 'https://h#a', client_id: a, client_secret: b}", ".issuer", "fragment"),
    ("[a]", "", "must be a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "path", "part"), PROVIDERS, ids=[f"{c[1]}-{c[2]}" for c in PROVIDERS])
def test_one_mistake_in_an_identity_provider(problems, written, path, part):
    """N15, N29: as for the rest of the file; plain http is refused unless it is loopback or asked for."""
    told = problems(f"identity_providers:\n  idp: {written}\n{SERVICE}")
    [message] = told
    assert message.startswith(f"2 identity_providers.idp{path}: ")
    assert part in message


MORE_OF_PROVIDERS = [
    ("client_auth: none", "client_secret", "has no use"),
    (
        "client_auth: private_key_jwt",
        "client_auth",
        "not supported by this version; write client_secret_basic, client_secret_post or none",
    ),
    ("client_auth: tls_client_auth", "client_auth", "not supported by this version"),
    ("client_auth: basic", "client_auth", "must be client_secret_basic,"),
    (
        "introspection_accept: application/token-introspection+jwt",
        "introspection_accept",
        "not supported by this version; write application/json",
    ),
    ("introspection_headers: {Authorization: x}", "introspection_headers.Authorization", "set by fastgate itself"),
    ('introspection_headers: {X-A: "a\\nb"}', "introspection_headers.X-A", "without line ends"),
    ("introspection_headers: {X A: b}", "introspection_headers.X A", "must be a token"),
    ("introspection_post_args: {token: x}", "introspection_post_args.token", "set by fastgate itself"),
    ("timeout: 0", "timeout", "longer than 0"),
    ("cache_ttl_max: never", "cache_ttl_max", "must be a duration"),
    ("introspection_inactive_rate: 0", "introspection_inactive_rate", "more than 0"),
    ("introspection_inactive_rate: .nan", "introspection_inactive_rate", "number"),
    ("ssl_verify: false, ca_file: x.pem", "ca_file", "has no use"),
    ("ca_file: x.pem", "ca_file", "cannot be read: No such file or directory (relative paths start in"),
    ("jwks_uri: 'https://h/k'", "jwks_uri", "has no use without `backchannel_logout` or `security_events`"),
    ("backchannel_logout: true, jwks_uri: 'http://h/k'", "jwks_uri", "must be https"),
    ("backchannel_logout: true, jwks_uri: /keys", "jwks_uri", "https:// or http://"),
    ("backchannel_logout: yes", "backchannel_logout", "must be true, false or a mapping"),
    ("backchannel_logout: {audience: app}", "backchannel_logout.audience", "must be a list"),
    ("backchannel_logout: {audiences: [app]}", "backchannel_logout.audiences", "did you mean `audience`?"),
    ("security_events: {authorization_header: ''}", "security_events.authorization_header", "must not be empty"),
    ("security_events: {issuer: 'https://i'}", "security_events.jwks_uri", "the keys of another issuer"),
    ("security_events: {jwks_uri: 'http://h/k'}", "security_events.jwks_uri", "must be https"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "key", "part"), MORE_OF_PROVIDERS, ids=[f"{c[1]}-{c[2]}" for c in MORE_OF_PROVIDERS]
)
def test_one_mistake_in_what_an_identity_provider_may_have_besides(problems, written, key, part):
    """What this version cannot honour is refused, never ignored."""
    good = "issuer: 'https://h', client_id: a, client_secret: b"
    [told] = problems(f"identity_providers:\n  idp: {{{good}, {written}}}\n{SERVICE}")
    assert told.startswith(f"2 identity_providers.idp.{key}: ")
    assert part in told


NAMELESS = "introspection_endpoint: 'https://h', client_id: a, client_secret: b"
NAMED = "issuer: 'https://h', client_id: a, client_secret: b"
NO_FILE = "{address: ':8002', tls: {certificate: nowhere.pem, key: nowhere.pem}}"
SENDERS = [
    (f"{NAMELESS}, backchannel_logout: true", "", "2 identity_providers.idp.backchannel_logout: needs `issuer`"),
    (f"{NAMELESS}, security_events: true", "", "2 identity_providers.idp.security_events: needs an `issuer`"),
    (f"{NAMED}, backchannel_logout: true", "admin: false", "2 identity_providers.idp.backchannel_logout: needs a lis"),
    (f"{NAMED}, backchannel_logout: false", "events: {listen: ':8002'}", "8 events: has no use without `backchannel_"),
    (f"{NAMED}, security_events: true", "events: {}", "8 events.listen: is missing"),
    (f"{NAMED}, security_events: true", "events: {listen: 127.0.0.1:8001}", "8 events.listen: is an address that an"),
    (f"{NAMED}, security_events: true", f"events: {{listen: {NO_FILE}}}", "8 events.listen.tls.certificate: names a"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "more", "told"), SENDERS, ids=[c[2].split(":")[0] for c in SENDERS])
def test_one_mistake_in_what_an_identity_provider_may_send(problems, written, more, told):
    """What it sends needs somebody who signs it and somewhere to come to."""
    [message] = problems(f"identity_providers:\n  idp: {{{written}}}\n{SERVICE}{more}")
    assert message.startswith(told)


def test_plain_http_to_this_machine_or_on_request(load_text):
    """N15: loopback addresses and `allow_http: true` allow plain http."""
    for issuer, more in (
        ("http://127.0.0.1:8080", ""),
        ("http://[::1]:1", ""),
        ("http://localhost", ""),
        ("http://idp", ", allow_http: true"),
    ):
        text = f"identity_providers:\n  a: {{issuer: '{issuer}', client_id: a, client_secret: b{more}}}\n{SERVICE}"
        assert load_text(text).root.identity_providers["a"].issuer == issuer


def test_a_protected_route_needs_an_identity_provider(problems):
    """Without one, and with several where none is named, a route that is not public is a problem."""
    [none] = problems(SERVICE)
    assert none.startswith("5 services[0].routes[0]: is protected, but there are no `identity_providers`")
    two = "".join(f"  {n}: {{issuer: 'https://h', client_id: a, client_secret: b}}\n" for n in ("one", "two"))
    [which] = problems("identity_providers:\n" + two + SERVICE)
    assert which.startswith("8 services[0].routes[0]: must name the `identity_provider` that protects it (one, two)")


def test_a_provider_with_a_mistake_does_not_make_its_routes_wrong(problems):
    """One mistake is one problem: what depends on it is not reported as well."""
    told = problems(
        f"identity_providers:\n  idp: {{issuer: 'https://h', client_id: a, client_secret: '${{UNSET}}'}}\n{SERVICE}"
    )
    assert [line.split(":")[0] for line in told] == ["2 identity_providers.idp.client_secret"]


def test_an_unset_variable_says_what_to_do(problems):
    """Line, key path, the variable's name, and the two ways out."""
    [told] = problems(VALID, {})
    variable = "needs the environment variable SECRET, which is not set; set it or write ${SECRET:-default}"
    assert told == f"2 identity_providers.idp.client_secret: {variable}"


def test_a_missing_secret_file(problems, tmp_path):
    """A `${file:...}` that cannot be read says why."""
    text = VALID.replace("${SECRET}", f"${{file:{tmp_path}/nowhere}}")
    [told] = problems(text)
    assert told.endswith(f"needs the file {tmp_path}/nowhere, which cannot be read: No such file or directory")


def test_secret_files_are_read_from_beside_the_file_without_their_line_end(load_text, tmp_path):
    """A relative path starts in the directory of the configuration; one final line end is not part of the secret."""
    (tmp_path / "secret").write_bytes(b" s3cret \r\n")
    config = load_text(VALID.replace("${SECRET}", "${file:secret}"))
    assert config.root.identity_providers["idp"].client_secret.get_secret_value() == " s3cret "


def test_binary_and_huge_secret_files(problems, tmp_path):
    """What is no small text file is refused; nothing of it is shown."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00secret")
    (tmp_path / "huge").write_bytes(b"secret" * 100_000)
    for name, reason in (("binary", "not UTF-8 text"), ("huge", "larger than 64 KiB")):
        [told] = problems(VALID.replace("${SECRET}", f"${{file:{name}}}"))
        assert reason in told
        assert "secret" not in told.partition("which cannot be read")[2]


class TestTheFileItself:
    def test_missing_unreadable_binary_and_huge_files(self, tmp_path):
        """One sentence each; nothing else is reported."""
        binary, huge = tmp_path / "binary.yaml", tmp_path / "huge.yaml"
        binary.write_bytes(b"a: 1\nb: \xff\n")
        huge.write_bytes(b" " * (MAX_FILE + 1))
        for file, line, message in (
            (tmp_path / "nowhere.yaml", None, "cannot be read: No such file or directory"),
            (tmp_path, None, "cannot be read: Is a directory"),
            (binary, 2, "is not UTF-8 text"),
            (huge, None, "is larger than 8 MiB"),
        ):
            with pytest.raises(ConfigError) as caught:
                load(str(file), {})
            [problem] = caught.value.problems
            assert (problem.line, problem.path, problem.message) == (line, "", message)

    @pytest.mark.parametrize("text", ["[a, b]", "just text", "5"])
    def test_a_file_that_is_no_mapping(self, problems, text):
        """A list or a scalar is not a configuration."""
        [told] = problems(text)
        assert told == "1 : must be a mapping of keys to values"

    def test_an_empty_file(self, problems):
        """An empty file says what it needs."""
        [told] = problems("")
        assert "the file is empty" in told

    def test_a_key_twice(self, problems):
        """The second place is told, and the first."""
        assert problems(VALID + "listen: :1\nlisten: :2\n") == [
            "9 listen: appears twice in the same mapping (first on line 8); remove one"
        ]

    def test_a_byte_order_mark(self, tmp_path):
        """What some editors put first is no problem."""
        file = tmp_path / "bom.yaml"
        file.write_text("\ufeff" + VALID, encoding="utf-8")
        assert load(str(file), {"SECRET": "x"}).root.services


class TestCertificates:
    def test_files_that_cannot_be_used(self, problems, tmp_path: Path):
        """A wrong kind of file, a key of another certificate and an encrypted key are told by their keys."""
        ca = trustme.CA()
        one, two = ca.issue_cert("one.example"), ca.issue_cert("two.example")
        one.cert_chain_pems[0].write_to_path(tmp_path / "one.pem")
        one.private_key_pem.write_to_path(tmp_path / "one.key")
        two.private_key_pem.write_to_path(tmp_path / "two.key")
        (tmp_path / "damaged.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        (tmp_path / "damaged.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        for tls, path, part in (
            ("{certificate: one.key, key: one.key}", "certificate", "holds no certificate in PEM form"),
            ("{certificate: one.pem, key: one.pem}", "key", "holds no private key in PEM form"),
            ("{certificate: one.pem, key: two.key}", "key", "is not the private key of the certificate"),
            ("{certificate: one.pem, key: damaged.key}", "key", "damaged"),
            ("{certificate: one.pem, key: one.key, client_ca: damaged.pem}", "client_ca", "no usable certificates"),
        ):
            [told] = problems(VALID + f"listen: {{address: ':1', tls: {tls}}}\n")
            assert told.startswith(f"8 listen.tls.{path}: ")
            assert part in told

    def test_ca_files_of_services(self, problems, tmp_path: Path):
        """A service's own CA file is checked like the listener's."""
        (tmp_path / "ca.pem").write_text("no certificate")
        text = VALID.replace("http://127.0.0.1:9/", "https://h/") + "    tls: {ca_file: ca.pem}\n"
        [told] = problems(text)
        assert told == "8 services[0].tls.ca_file: names a file that holds no certificate in PEM form"


class TestFromTheEnvironment:
    def test_everything_missing_is_told_at_once(self):
        """`fastgate run` without a file names every variable it needs."""
        with pytest.raises(ConfigError) as caught:
            from_environment({"CLIENT_ID": ""}, "http://127.0.0.1:9")
        assert [problem.path for problem in caught.value.problems] == ["ISSUER", "CLIENT_ID", "CLIENT_SECRET"]

    def test_wrong_values_are_told_by_the_names_that_were_typed(self):
        """Not by key paths of a file that does not exist; and never with the values."""
        environ = {"ISSUER": "idp.example.com", "CLIENT_ID": "a", "CLIENT_SECRET": "hunter2"}
        with pytest.raises(ConfigError) as caught:
            from_environment(environ, "127.0.0.1:9", "8000")
        assert {problem.path for problem in caught.value.problems} == {"ISSUER", "--upstream", "--listen"}
        assert "hunter2" not in repr(caught.value.problems)

    def test_values_are_taken_as_they_are(self):
        """A secret that looks like a reference is a secret."""
        environ = {"ISSUER": "https://h", "CLIENT_ID": "a", "CLIENT_SECRET": "${HOME}"}
        config = from_environment(environ, "http://127.0.0.1:9", "127.0.0.1:0")
        assert config.root.identity_providers["default"].client_secret.get_secret_value() == "${HOME}"
        assert config.root.services[0].routes[0].paths == ("/",)
