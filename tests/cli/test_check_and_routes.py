"""`check`, `routes`, `schema`, `--version`: what they print and how they end."""

import json
import ssl

import pytest
import trustme

from fastgate import __version__
from tests.support.process import free_port
from tests.support.signer import Signer
from tests.support.upstream import Upstream

from .conftest import ENVIRON, SECRET

BAD = """\
lisen: 127.0.0.1:8000
identity_providers:
  idp: {issuer: "${ISSUER}", client_id: gate, client_secret: "${UNSET}"}
services:
  - {name: api, url: "http://127.0.0.1:9", routes: [{paths: [/a/../b]}]}
"""


def test_a_good_file(command, file):
    """One line on stdout, status 0."""
    result = command("check", "-c", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{file}: ok (1 identity provider, 1 service, 3 routes)\n"


def test_a_bad_file_gives_every_problem_on_a_line_of_its_own(command, tmp_path):
    """`file:line: key.path: message` on stderr, nothing on stdout, status 1; lines are never folded."""
    bad = tmp_path / f"{'long-' * 30}name.yaml"
    bad.write_text(BAD)
    result = command("check", "-c", bad)
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert [line.removeprefix(f"{bad}:").split(": ")[:2] for line in lines] == [
        ["1", "lisen"],
        ["3", "identity_providers.idp.client_secret"],
        ["5", "services[0].routes[0].paths[0]"],
    ]
    assert "did you mean `listen`?" in lines[0]
    assert "UNSET" in lines[1]


@pytest.mark.parametrize("name", ["run", "check", "explain", "routes"])
def test_every_command_that_reads_the_file_refuses_a_bad_one_alike(command, tmp_path, name):
    """Status 1 and the same lines; nothing half-started."""
    bad = tmp_path / "bad.yaml"
    bad.write_text(BAD)
    more = ["GET", "/"] if name == "explain" else []
    result = command(name, "-c", bad, *more)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 3


def test_a_file_that_is_not_there(command, tmp_path):
    """One sentence."""
    result = command("check", "-c", tmp_path / "nowhere.yaml")
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path}/nowhere.yaml: cannot be read: No such file or directory\n"


def test_a_key_that_would_break_the_line(command, tmp_path):
    """Control characters of a file reach the terminal as text."""
    bad = tmp_path / "bad.yaml"
    bad.write_text('"a\\nb\\e[31m": 1\nservices: []\n')
    result = command("check", "-c", bad)
    assert "a\\nb\\x1b[31m: is not a known key" in result.stderr
    assert "\x1b" not in result.stderr


def test_what_should_be_a_decision_is_said(command, tmp_path):
    """Allowed but risky settings are warnings: status 0, one line each with its place."""
    risky = tmp_path / "risky.yaml"
    risky.write_text("""\
identity_providers:
  idp: {issuer: "http://idp.example", client_id: a, client_secret: b, allow_http: true, ssl_verify: false}
services:
  - name: api
    url: https://h
    tls: {verify: false}
    routes: [{paths: [/], auth: {bearer_token_param_type: [cookie, query]}}]
""")
    result = command("check", "-c", risky)
    assert result.exit_code == 0
    places = [line.split(": ")[1:3] for line in result.stderr.splitlines()]
    assert places == [
        [f"{risky}:2", "identity_providers.idp.issuer"],
        [f"{risky}:2", "identity_providers.idp.ssl_verify"],
        [f"{risky}:6", "services[0].tls.verify"],
        [f"{risky}:7", "services[0].routes[0].auth.bearer_token_param_type"],
        [f"{risky}:7", "services[0].routes[0].auth.bearer_token_param_type"],
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "--bogus"],
        ["bogus"],
        ["explain", "-c", "x", "GET"],
        ["explain", "-c", "x", "GET", "/", "-H", "no colon"],
        ["run"],
        ["run", "-c", "x", "--upstream", "http://h"],
        ["run", "-c", "x", "--listen", "127.0.0.1:1"],
        ["revoke", "--sub", "a", "--all"],
        ["revoke", "--sub", ""],
        ["revoke", "--token-file", "x", "--sid", "a"],
        ["revoke", "--all", "--admin", "127.0.0.1:8001"],
        ["revoke"],
        [],
    ],
)
def test_a_wrong_command_line(command, arguments):
    """Usage and status 2; nothing was read or started."""
    result = command(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.output


def test_the_version(command):
    """`fastgate --version` names itself and its parser."""
    result = command("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"fastgate {__version__} (aiohttp 3.14.")


def test_the_route_table(command, file):
    """Route, match, service and auth of every route, one a line when nobody looks at a terminal."""
    result = command("routes", "-c", file)
    assert result.exit_code == 0
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert rows == [
        "route match service auth",
        "locked GET,POST /locked ~/x/[0-9]+ api http://127.0.0.1:9/base/ idp audience api scope a+b|c",
        "by-header h.example /h x-v=2 api http://127.0.0.1:9/base/ idp scope a+b|c",
        "open /open api http://127.0.0.1:9/base/ public",
    ]


def test_what_should_be_a_decision(command, tmp_path):
    """N15: keys that travel in plain text are allowed on request, and said."""
    text = """\
identity_providers:
  idp: {issuer: "http://idp", jwks_uri: "http://idp/keys", allow_http: true, client_id: gate, client_secret: s, \
backchannel_logout: true}
services:
  - {name: api, url: "http://127.0.0.1:9", routes: [{paths: [/a]}]}
"""
    file = tmp_path / "fastgate.yaml"
    file.write_text(text)
    result = command("check", "-c", file)
    assert result.exit_code == 0
    assert "identity_providers.idp.jwks_uri: anybody on the way can put keys there" in " ".join(result.stderr.split())


def test_the_json_schema(command):
    """It is JSON."""
    result = command("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["title"] == "fastgate.yaml"


class TestConnect:
    async def test_everything_can_be_reached(self, thread, tmp_path, idp, upstream_port):
        """Discovery, our credentials and every target: one line each, status 0."""
        idp.credentials = ("gate", SECRET)
        file = tmp_path / "fastgate.yaml"
        file.write_text(two_targets(upstream_port, upstream_port))
        ended = await thread("check", "-c", file, "--connect", **ENVIRON | {"ISSUER": idp.issuer})
        assert ended.status == 0, ended
        lines = ended.out.splitlines()[1:]
        assert [line.split()[0] for line in lines] == ["ok", "ok", "ok"]
        assert len(idp.questions) == 1
        assert SECRET not in ended.out + ended.err

    async def test_everything_that_cannot_is_told_with_what_to_do(self, thread, tmp_path, idp, upstream_port):
        """T39: refused credentials and a closed port: each on its line, the rest tried all the same, status 1."""
        idp.credentials = ("gate", "another secret")
        file = tmp_path / "fastgate.yaml"
        file.write_text(two_targets(upstream_port, free_port()))
        ended = await thread("check", "-c", file, "--connect", **ENVIRON | {"ISSUER": idp.issuer})
        assert ended.status == 1, ended
        identity, good, closed = ended.out.splitlines()[1:]
        assert identity.startswith("FAILED  identity provider idp")
        assert "check client_id, client_secret and client_auth" in identity
        assert good.split()[0] == "ok"
        assert closed.startswith("FAILED  service api")
        assert "cannot connect: connection refused; is it running" in closed
        assert SECRET not in ended.out + ended.err

    async def test_the_keys_of_what_an_identity_provider_sends(self, thread, tmp_path, idp, upstream_port):
        """Where it may send something, its keys are fetched: each set once, with what to do when it is not there."""
        idp.keys = [Signer("ES256").public]
        idp.credentials = ("gate", SECRET)
        file = tmp_path / "fastgate.yaml"
        elsewhere = f"{{jwks_uri: '{idp.url}/nowhere', issuer: 'https://transmitter.test'}}"
        for sent, verdicts in (
            ("backchannel_logout: true, security_events: true", ["ok"]),
            (f"backchannel_logout: true, security_events: {elsewhere}", ["ok", "FAILED"]),
            (f"backchannel_logout: true, jwks_uri: '{idp.endpoint}'", ["FAILED"]),
        ):
            text = two_targets(upstream_port, upstream_port).replace("timeout: 10s", f"timeout: 10s, {sent}")
            file.write_text(text)
            ended = await thread("check", "-c", file, "--connect", **ENVIRON | {"ISSUER": idp.issuer})
            keys = [line for line in ended.out.splitlines() if "keys of identity provider idp (" in line]
            assert [line.split()[0] for line in keys] == verdicts, ended
            assert ended.status == (1 if "FAILED" in verdicts else 0)
            assert all("jwks_uri" in line or "(RFC 7517)" in line for line in keys if line.startswith("FAILED"))

    async def test_a_service_whose_certificate_nobody_trusts(self, thread, tmp_path, idp):
        """T21: TLS to services is verified by `check --connect` as it is by the gateway."""
        ca = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("localhost").configure_cert(context)
        ca.cert_pem.write_to_path(tmp_path / "ca.pem")
        async with Upstream(tls=context) as upstream:
            text = (
                two_targets(1, 2).split("services:")[0]
                + f"""\
services:
  - {{name: distrusted, url: "https://localhost:{upstream.port}", routes: [{{paths: [/a]}}]}}
  - {{name: trusted, url: "https://localhost:{upstream.port}", tls: {{ca_file: ca.pem}}, routes: [{{paths: [/b]}}]}}
  - {{name: plain, url: "https://127.0.0.1:{idp.port}", routes: [{{paths: [/c]}}]}}
"""
            )
            file = tmp_path / "fastgate.yaml"
            file.write_text(text)
            ended = await thread("check", "-c", file, "--connect", **ENVIRON | {"ISSUER": idp.issuer})
            assert ended.status == 1, ended
            _, distrusted, trusted, plain = ended.out.splitlines()[1:]
            assert "its certificate is refused" in distrusted
            assert trusted.startswith("ok ")
            assert plain.startswith("FAILED")
            upstream.broken.clear()
        # Its hello is no HTTP: cleared only once that was seen.
        await idp.until(lambda: bool(idp.broken), "the TLS hello")
        idp.broken.clear()


def two_targets(*ports: int) -> str:
    targets = ", ".join(
        f"{{target: '{host}:{port}'}}" for host, port in zip(("127.0.0.1", "localhost"), ports, strict=True)
    )
    return f"""\
identity_providers:
  idp: {{issuer: "${{ISSUER}}", client_id: "${{CLIENT_ID}}", client_secret: "${{CLIENT_SECRET}}", timeout: 10s}}
services:
  - {{name: api, targets: [{targets}], routes: [{{paths: [/]}}]}}
"""
