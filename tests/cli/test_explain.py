"""`fastgate explain`: step by step what would become of a request."""

import time

import pytest

from tests.support.idp import says

from .conftest import ENVIRON, SECRET

TOKEN = "t0ken-of-alex"
FUTURE = 4_000_000_000


@pytest.fixture
def explained(thread, tmp_path, idp):
    """Explain a request to a file with these routes; the token, when there is one, is piped in."""

    async def explain(*arguments: object, routes: str = LOCKED, token: str | None = TOKEN):
        file = tmp_path / "fastgate.yaml"
        file.write_text(FILE + routes)
        stdin = b"" if token is None else token.encode() + b"\n"
        ended = await thread("explain", "-c", file, *arguments, stdin=stdin, **ENVIRON | {"ISSUER": idp.issuer})
        assert TOKEN not in ended.out + ended.err
        assert SECRET not in ended.out + ended.err
        return ended

    return explain


def steps(out: str) -> dict[str, str]:
    """What each step says, spaces folded."""
    rows = [line.split(maxsplit=1) for line in out.splitlines() if line]
    return {row[0]: " ".join(row[1].split()) for row in rows if len(row) == 2}


FILE = """\
listen: 127.0.0.1:8000
identity_providers:
  idp: {issuer: "${ISSUER}", client_id: "${CLIENT_ID}", client_secret: "${CLIENT_SECRET}", timeout: 10s}
services:
  - name: api
    url: http://127.0.0.1:9/base
    routes:
"""
LOCKED = """\
      - name: locked
        paths: [/locked]
        methods: [GET, POST]
        auth:
          scopes_required: ["a b", c]
          audience_required: [api]
          cache_ttl_max: 60s
          upstream_headers: [{header: X-Auth-Subject, path: [sub]}]
      - {name: open, paths: [/open], auth: none}
"""


async def test_a_request_that_would_be_forwarded(explained, idp):
    """Route, token source, the answer, every check with its values, the time it is remembered, the final status."""
    idp.tokens[TOKEN] = {"sub": "alex", "scope": "a b x", "aud": ["api", "z"], "iss": idp.issuer, "exp": FUTURE}
    ended = await explained("GET", "/locked/1?full=true")
    assert ended.status == 0, ended
    told = steps(ended.out)
    assert told["request"] == "GET /locked/1 for host 127.0.0.1:8000"
    assert told["route"] == "ok locked: GET,POST /locked"
    assert told["token"] == f"ok {len(TOKEN)} characters, found in: header"
    assert told["introspection"].startswith("ok idp says active, in ")
    checks = [" ".join(line.split()) for line in ended.out.splitlines() if line.startswith("check ")]
    assert "check audience ok aud has api z, needs api" in checks
    assert "check scope ok scope has a b x, needs a and b or c" in checks
    assert all(" ok " in check for check in checks)
    assert told["remembered"].startswith("1m (exp in ")
    assert "X-Auth-Subject: alex" in ended.out
    assert told["status"] == "ok forwarded to api http://127.0.0.1:9/base/: whatever the service answers"
    assert '"sub": "alex"' in ended.out
    assert len(idp.questions) == 1


async def test_a_token_on_the_standard_input_of_a_process(process, tmp_path, idp):
    """The token is read from a pipe, to its end."""
    idp.tokens[TOKEN] = {"scope": "c", "aud": "api"}
    file = tmp_path / "fastgate.yaml"
    file.write_text(FILE + LOCKED)
    environ = ENVIRON | {"ISSUER": idp.issuer}
    ended = await process("explain", "-c", file, "GET", "/locked", stdin=TOKEN.encode() + b"\n", **environ)
    assert (ended.status, ended.err) == (0, "")
    assert steps(ended.out)["status"].startswith("ok forwarded")


async def test_a_token_that_lacks_a_scope_and_is_expired(explained, idp):
    """Every check is shown, not only the first that fails; the status is that of the first."""
    idp.tokens[TOKEN] = {"scope": "ab", "aud": "api", "exp": int(time.time()) - 60}
    ended = await explained("GET", "/locked")
    assert ended.status == 0
    checks = [" ".join(line.split()[:3]) for line in ended.out.splitlines() if line.startswith("check ")]
    assert "check exp FAILED" in checks
    assert "check scope FAILED" in checks
    assert "check audience ok" in checks
    told = steps(ended.out)
    assert told["remembered"] == "not at all"
    assert told["status"].startswith("401 Unauthorized (expired) WWW-Authenticate: Bearer realm=")


async def test_an_inactive_token(explained):
    """401, remembered for cache_ttl_neg."""
    ended = await explained("POST", "/locked")
    told = steps(ended.out)
    assert ended.status == 0
    assert told["introspection"].startswith("FAILED idp says inactive")
    assert told["remembered"] == "5s (cache_ttl_neg 5s)"
    assert told["status"].startswith("401 Unauthorized (inactive)")


async def test_no_token_and_a_malformed_one(explained, idp):
    """N2, T31: 401 and 400 without a question to the identity provider."""
    none = await explained("GET", "/locked", token=None)
    assert none.status == 0
    assert steps(none.out)["status"].startswith("401 Unauthorized (no_credentials)")
    malformed = await explained("GET", "/locked", token="two words\x07")
    assert malformed.status == 0
    assert steps(malformed.out)["status"].startswith("400 Bad Request (malformed_credentials)")
    assert not idp.questions


async def test_no_route_a_wrong_method_a_public_route_and_an_unsafe_path(explained, idp):
    """404, 405 with Allow, forwarded without a token, 400 (N72); the token is not asked about."""
    for method, path, status in (
        ("GET", "/nowhere", "404 Not Found (no_route)"),
        ("DELETE", "/locked", "405 Method Not Allowed (method) Allow: GET, POST"),
        ("GET", "/open", "ok forwarded to api"),
        ("GET", "/open/../locked", "400 Bad Request (ambiguous_path)"),
        ("GET", "/a b", "400 Bad Request (request_head)"),
    ):
        ended = await explained(method, path)
        assert ended.status == 0, ended
        assert steps(ended.out)["status"].startswith(status)
    assert not idp.questions


async def test_headers_of_the_request(explained, idp):
    """-H matters as in a request: another scheme is no credentials, a stripped header is 400 (N64)."""
    idp.tokens[TOKEN] = {"scope": "c", "aud": "api"}
    nominated = await explained("GET", "/locked", "-H", "Connection: x-forwarded-for", "-H", "Host: other.example")
    assert steps(nominated.out)["request"] == "GET /locked for host other.example"
    assert steps(nominated.out)["status"].startswith("400 Bad Request")
    basic = await explained("GET", "/locked", "-H", "Authorization: Basic YTpi", token=None)
    assert steps(basic.out)["status"].startswith("401 Unauthorized (no_credentials)")
    split = await explained("GET", "/locked", "-H", "X-A: b\r\nX-C: d")
    assert steps(split.out)["status"].startswith("400 Bad Request (request_head)")


async def test_a_token_on_the_command_line_is_refused(explained, idp):
    """Everybody on the machine can read a command line: status 2, and the token is not repeated."""
    ended = await explained("GET", "/locked", "-H", f"authorization: bearer {TOKEN}")
    assert ended.status == 2
    assert "--token-file" in ended.err
    assert not idp.questions


@pytest.mark.parametrize(
    ("source", "method"), [("cookie", "GET"), ("query", "GET"), ("body", "POST"), ("header", "GET")]
)
async def test_the_token_is_put_where_the_route_looks_for_it(explained, idp, source, method):
    """The given token stands in the first place that the route takes it from."""
    idp.tokens[TOKEN] = {"scope": "c", "aud": "api"}
    routes = LOCKED.replace("auth:\n", f"auth:\n          bearer_token_param_type: [{source}]\n")
    ended = await explained(method, "/locked?x=1", routes=routes)
    told = steps(ended.out)
    assert told["token"].endswith(f"found in: {source}"), ended
    assert told["status"].startswith("ok forwarded")
    assert [question.token for question in idp.questions] == [TOKEN]


async def test_a_token_file(explained, idp, tmp_path):
    """--token-file reads it from a file; a missing file is one sentence."""
    idp.tokens[TOKEN] = {"scope": "c", "aud": "api"}
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    ended = await explained("GET", "/locked", "--token-file", tmp_path / "token", token=None)
    assert steps(ended.out)["status"].startswith("ok forwarded")
    missing = await explained("GET", "/locked", "--token-file", tmp_path / "nowhere", token=None)
    assert missing.status == 1
    assert missing.err == f"fastgate: cannot read the token from {tmp_path}/nowhere: No such file or directory\n"


async def test_the_identity_provider_cannot_be_asked(explained, idp):
    """Why, what to do, the 503 that clients would get; status 1, for this explains no token."""
    idp.will(says({}, 502))
    ended = await explained("GET", "/locked")
    assert ended.status == 1
    told = steps(ended.out)
    assert told["introspection"].startswith("FAILED ")
    assert told["status"].startswith("503 Service Unavailable")


async def test_the_identity_provider_refuses_our_credentials(explained, idp):
    """T39: it says which settings to check."""
    idp.credentials = ("gate", "another")
    ended = await explained("GET", "/locked")
    assert ended.status == 1
    assert "check client_id, client_secret and client_auth" in steps(ended.out)["introspection"]


async def test_claims_that_a_terminal_would_obey(explained, idp):
    """T17: escape sequences of an identity provider are shown, not sent to the terminal."""
    idp.tokens[TOKEN] = {"scope": "c \x1b[31m", "aud": "api", "sub": "\x1b]0;x\x07"}
    ended = await explained("GET", "/locked")
    assert ended.status == 0
    assert "\x1b" not in ended.out
    assert "\\u001b]0;x" in ended.out
