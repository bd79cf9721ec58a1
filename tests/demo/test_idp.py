"""The development authorization server over real sockets."""

import base64
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from fastgate.demo.clients import Client
from fastgate.demo.idp import MAX_TOKENS, AuthorizationServer, User

SECRET = "s/cr et:+%é"
"""Holds everything that form-encoding must survive."""
ENCODED = base64.b64encode(b"gate+way:s%2Fcr+et%3A%2B%25%C3%A9").decode()


def basic(name: str, secret: str) -> dict[str, str]:
    """An Authorization field of names and secrets that need no form-encoding."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


APP = basic("app", "app-secret")


class Hands:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.5

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def server(hands) -> AuthorizationServer:
    return AuthorizationServer(
        {
            "gate way": Client(SECRET, introspects=True),
            "app": Client("app-secret", frozenset({"read", "write"})),
            "other": Client("other-secret", frozenset({"read"})),
        },
        {"alex": User("doe", subject="alex-1")},
        lifetime=60,
        clock=hands,
    )


@pytest.fixture
async def idp(server) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(server.application())) as client:
        server.issuer = str(client.make_url("")).rstrip("/")
        yield client


async def ask(idp, token):
    answer = await idp.post("/introspect", data={"token": token}, headers={"Authorization": f"Basic {ENCODED}"})
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    return await answer.json()


@pytest.mark.parametrize("name", ["openid-configuration", "oauth-authorization-server"])
async def test_metadata(idp, server, name):
    """N17: the issuer is exactly the one that was asked, the endpoints are absolute."""
    metadata = await (await idp.get(f"/.well-known/{name}")).json()
    assert metadata["issuer"] == server.issuer
    for endpoint in ("token", "introspection", "revocation"):
        assert metadata[f"{endpoint}_endpoint"].startswith(f"{server.issuer}/")
        assert metadata[f"{endpoint}_endpoint_auth_methods_supported"] == ["client_secret_basic", "client_secret_post"]
    assert metadata["scopes_supported"] == ["read", "write"]


async def test_a_client_gets_a_token(idp, server):
    """RFC 6749 section 4.4: the client itself is the subject."""
    answer = await idp.post("/token", data={"grant_type": "client_credentials", "scope": "read"}, headers=APP)
    granted = await answer.json()
    assert (granted["token_type"], granted["expires_in"], granted["scope"]) == ("Bearer", 60, "read")
    assert await ask(idp, granted["access_token"]) == {
        "active": True,
        "scope": "read",
        "client_id": "app",
        "token_type": "Bearer",
        "exp": 1_700_000_060,
        "iat": 1_700_000_000,
        "nbf": 1_700_000_000,
        "sub": "app",
        "aud": ["gate way"],
        "iss": server.issuer,
    }
    assert server.introspections == 1


async def test_a_user_gets_a_token(idp):
    """RFC 6749 section 4.3; without a scope parameter the token has all the client may have."""
    form = {"grant_type": "password", "username": "alex", "password": "doe"}
    form |= {"client_id": "app", "client_secret": "app-secret"}
    granted = await (await idp.post("/token", data=form)).json()
    said = await ask(idp, granted["access_token"])
    assert (said["username"], said["sub"], said["scope"]) == ("alex", "alex-1", "read write")
    assert said["sid"]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials", "scope": "read admin"}, "invalid_scope"),
        ({"grant_type": "password", "username": "alex", "password": "dough"}, "invalid_grant"),
        ({"grant_type": "password", "username": "nobody", "password": "doe"}, "invalid_grant"),
        ({"grant_type": "password"}, "invalid_grant"),
        ([("grant_type", "client_credentials"), ("scope", "read"), ("scope", "write")], "invalid_request"),
        ({"grant_type": "client_credentials", "client_secret": "app-secret"}, "invalid_request"),
    ],
)
async def test_a_grant_that_is_refused(idp, form, error):
    """RFC 6749 section 5.2."""
    answer = await idp.post("/token", data=form, headers=APP)
    assert answer.status == 400
    assert (await answer.json())["error"] == error


@pytest.mark.parametrize(
    "authorization",
    ["Basic !!!", "Basic " + base64.b64encode(b"no-colon").decode(), "Bearer abc", "Basic \u00e9", "Basic"],
)
@pytest.mark.parametrize("path", ["/token", "/introspect", "/revoke"])
async def test_credentials_of_a_wrong_form(idp, path, authorization):
    answer = await idp.post(path, data={"token": "x"}, headers={"Authorization": authorization})
    assert (answer.status, (await answer.json())["error"]) == (401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("headers", [{}, basic("app", "wrong"), basic("nobody", "app-secret"), basic("app", "")])
async def test_a_client_that_does_not_prove_itself(idp, server, headers):
    """Nobody learns anything about a token without credentials."""
    answer = await idp.post("/introspect", data={"token": server.issue("app", "read")}, headers=headers)
    assert answer.status == 401
    assert server.introspections == 0


async def test_a_client_that_may_not_ask(idp, server):
    """RFC 7662 section 4: only a resource server may ask."""
    answer = await idp.post("/introspect", data={"token": server.issue("app", "read")}, headers=APP)
    assert (answer.status, (await answer.json())["error"]) == (403, "unauthorized_client")


async def test_credentials_in_the_form(idp, server):
    """client_secret_post."""
    form = {"token": server.issue("app", "read"), "client_id": "gate way", "client_secret": SECRET}
    assert (await (await idp.post("/introspect", data=form)).json())["active"] is True


async def test_a_token_nobody_issued(idp):
    """RFC 7662 section 2.2: an unknown token is inactive and nothing more."""
    assert await ask(idp, "never-seen") == {"active": False}


async def test_a_token_that_ran_out(idp, server, hands):
    token = server.issue("app", "read")
    hands.at += 59
    assert (await ask(idp, token))["active"] is True
    hands.at += 1
    assert await ask(idp, token) == {"active": False}


async def test_no_token_to_ask_about(idp):
    answer = await idp.post("/introspect", data={}, headers={"Authorization": f"Basic {ENCODED}"})
    assert answer.status == 400


async def test_a_question_by_get(idp):
    """RFC 7662 section 2.1: never by GET, where the token would stand in a URL."""
    assert (await idp.get("/introspect?token=x")).status == 405


async def test_a_question_as_json(idp):
    answer = await idp.post("/introspect", json={"token": "x"}, headers={"Authorization": f"Basic {ENCODED}"})
    assert (answer.status, (await answer.json())["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(("body", "charset"), [(b"token=%ff\xff", "utf-8"), (b"token=x", "nonsense")])
async def test_a_form_that_is_no_text(idp, body, charset):
    headers = {**APP, "Content-Type": f"application/x-www-form-urlencoded; charset={charset}"}
    answer = await idp.post("/revoke", data=body, headers=headers)
    assert (answer.status, (await answer.json())["error"]) == (400, "invalid_request")


async def test_a_revoked_token(idp, server):
    """RFC 7009: inactive afterwards; revoking again, or something unknown, succeeds as well."""
    token = server.issue("app", "read")
    for revoked in (token, token, "never-seen"):
        assert (await idp.post("/revoke", data={"token": revoked}, headers=APP)).status == 200
    assert await ask(idp, token) == {"active": False}


async def test_a_token_of_another_client(idp, server):
    """RFC 7009 section 2.1: a client revokes its own tokens only."""
    token = server.issue("app", "read")
    answer = await idp.post("/revoke", data={"token": token}, headers=basic("other", "other-secret"))
    assert answer.status == 400
    assert (await ask(idp, token))["active"] is True


async def test_a_server_that_runs_for_long(idp, server, hands):
    """Its memory is bounded: what expired goes first, then the older half."""
    first = server.issue("app", "read")
    hands.at += 30
    second = server.issue("app", "read")
    hands.at += 31
    for _ in range(MAX_TOKENS - 2):
        server.issue("app", "read")
    third = server.issue("app", "read")
    assert first not in server._tokens
    assert (await ask(idp, second))["active"] is True
    for _ in range(MAX_TOKENS):
        server.issue("app", "read")
    assert third not in server._tokens
    assert len(server._tokens) <= MAX_TOKENS


def test_secrets_in_a_repr():
    """T12."""
    assert "s3cret" not in repr(Client("s3cret"))
    assert "s3cret" not in repr(User("s3cret", "alex"))
