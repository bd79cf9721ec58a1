"""What a token must be and have, and what a refusal looks like: on every request, remembered or not."""

import json

import pytest

from tests.contract.parts import READER, StillClock, config, provider, route
from tests.support.idp import says

NOW = 1_700_000_000


async def ask_twice(gateway, target, token):
    """Ask for a cold token and, where it can be remembered, for a remembered one: the answers must agree."""
    first = await gateway.get(target, token=token)
    second = await gateway.get(target, token=token)
    assert (first.status, first.body) == (second.status, second.body)
    assert first.header("www-authenticate") == second.header("www-authenticate")
    return first


# --- outcomes on the wire -----------------------------------------------------------------------------------------


async def test_every_class_of_refusal(lane, idp, upstream):
    """N7, N8, N9, N18, N85: status, challenge and body by class; expired and revoked look the same."""
    idp.tokens |= {
        "expired": {**READER, "exp": NOW - 1},
        "early": {**READER, "nbf": NOW + 60},
        "future": {**READER, "iat": NOW + 60},
        "alien": {**READER, "iss": "https://other.example"},
        "elsewhere": {**READER, "aud": "other"},
        "bound": {**READER, "cnf": {"jkt": "x"}},
        "weak": {**READER, "scope": "write"},
        "norole": {**READER, "roles": "user"},
        "nogroup": {**READER, "roles": "admin", "groups": ["staff"]},
        "marked": {**READER, "roles": "admin", "groups": ["board"], "blocked": False},
        "right": {**READER, "roles": "admin", "groups": ["board"]},
    }
    auth = {
        "scopes_required": ["read list", "read"],
        "audience_required": ["api"],
        "roles_required": ["admin"],
        "groups_required": ["board"],
        "claims_forbidden": ["blocked"],
        "issuers_allowed": ["https://idp.example"],
        "realm": "api of ours",
    }
    for claims in idp.tokens.values():
        claims.setdefault("iss", "https://idp.example")
    challenge = 'Bearer realm="api of ours"'
    unauthorized = ("inactive", "expired", "early", "future", "alien", "elsewhere", "bound")
    forbidden = ("weak", "norole", "nogroup", "marked")
    async with lane(config(idp, upstream, route("/api", auth)), clock=StillClock(NOW)) as gateway:
        seen = set()
        for token in unauthorized:
            got = await ask_twice(gateway, "/api", token)
            assert (got.status, got.header("www-authenticate")) == (401, f'{challenge}, error="invalid_token"'), token
            seen.add((got.message.raw_head, got.body))
        assert len(seen) == 1, "a client could tell expired from revoked"
        for token in forbidden:
            got = await ask_twice(gateway, "/api", token)
            said = f'{challenge}, error="insufficient_scope", scope="read list"'
            assert (got.status, got.header("www-authenticate")) == (403, said), token
            assert json.loads(got.body) == {"message": "Forbidden"}
        assert upstream.requests == []
        assert (await ask_twice(gateway, "/api", "right")).status == 200
        counted = {
            reason: await gateway.metric("fastgate_denials_total", route="api", reason=reason)
            for reason in ("inactive", "expired", "not_yet_valid", "issuer", "audience", "binding")
        }
        assert counted == {name: 4 if name == "not_yet_valid" else 2 for name in counted}


async def test_the_words_of_a_refusal(lane, idp, upstream):
    """N8, N90: messages and redirects are settings; a challenge without its code on request."""
    quiet = {"expose_error_code": False, "unauthorized_error_message": "Wer da?", "forbidden_error_message": "Nö"}
    away = {"unauthorized_redirect_uri": "https://login.example/?a=1", "forbidden_redirect_uri": "/denied"}
    needs = {"scopes_required": ["write"]}
    routes = (route("/quiet", {**quiet, **needs}), route("/away", {**away, **needs}))
    async with lane(config(idp, upstream, *routes)) as gateway:
        got = await gateway.get("/quiet", token="bad")
        assert (got.status, got.header("www-authenticate")) == (401, 'Bearer realm="127.0.0.1"')
        assert json.loads(got.body) == {"message": "Wer da?"}
        got = await gateway.get("/quiet", token="good")
        assert (got.status, json.loads(got.body)) == (403, {"message": "Nö"})
        got = await gateway.get("/away", token="bad")
        assert (got.status, got.header("location")) == (302, "https://login.example/?a=1")
        assert got.header("cache-control") == "no-store"
        got = await gateway.get("/away", token="good")
        assert (got.status, got.header("location")) == (302, "/denied")
        got = await gateway.get("/away", ("Authorization", "Bearer a b"))
        assert (got.status, got.header("location")) == (400, None)
    assert upstream.requests == []


async def test_nothing_of_a_token_is_in_a_refusal(lane, idp, upstream):
    """N8, N90, T12, T23: neither what was sent nor what the identity provider said."""
    idp.tokens["t0p-s3cret"] = {"scope": 'evil", error="none', "username": "reflected", "error": "reflected"}
    async with lane(config(idp, upstream)) as gateway:
        for fields in ((), (("Authorization", "Bearer t0p-s3cret x"),), (("Authorization", "Bearer t0p-s3cret"),)):
            got = await gateway.get("/api?x=t0p-s3cret", *fields)
            assert got.status in {400, 401, 403}
            for text in (b"t0p-s3cret", b"reflected", b"evil", b"127.0.0.1:", b"fastgate", b"aiohttp"):
                assert text not in got.message.raw_head + got.body
            assert got.header("server") is None
    assert upstream.requests == []


# --- requirements -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("read", False),
        ("read write", True),
        ("write   read  other", True),
        ("admin", True),
        ("administrator", False),
        ("Admin", False),
        ("readwrite", False),
        ("read,write", False),
        ("read\twrite", False),
        (["read", "write"], True),
        (["read write"], False),
        (["admin", 7], False),
        ({"admin": True}, False),
        (True, False),
        ("", False),
        (None, False),
    ],
    ids=repr,
)
async def test_scopes(lane, idp, upstream, scope, allowed):
    """N23, T19: whole words, case-sensitive; (read AND write) OR admin; absent or odd satisfies nothing."""
    idp.tokens["t"] = {"sub": "alex", "scope": scope}
    async with lane(config(idp, upstream, route("/api", {"scopes_required": ["read write", "admin"]}))) as gateway:
        assert (await ask_twice(gateway, "/api", "t")).status == (200 if allowed else 403)


@pytest.mark.parametrize(
    ("aud", "allowed"),
    [
        ("api", True),
        (["other", "api"], True),
        ("api other", False),
        ("apis", False),
        ("API", False),
        ([], False),
        ([["api"]], False),
        (None, False),
        ("absent", False),
    ],
    ids=repr,
)
async def test_audience(lane, idp, upstream, aud, allowed):
    """N22, T19: a string or a list; a token that is not meant for us is 401, on every request."""
    idp.tokens["t"] = {"sub": "alex", "aud": aud}
    if aud == "absent":
        del idp.tokens["t"]["aud"]
    async with lane(config(idp, upstream, route("/api", {"audience_required": ["api"]}))) as gateway:
        got = await ask_twice(gateway, "/api", "t")
    assert got.status == (200 if allowed else 401)
    assert ("invalid_token" in (got.header("www-authenticate") or "")) != allowed


@pytest.mark.parametrize(
    ("auth", "iss", "status"),
    [
        ({}, "ours", 200),
        ({}, "https://other.example", 401),
        ({}, "trailing", 401),
        ({}, None, 200),
        ({"issuers_allowed": ["https://other.example"]}, "https://other.example", 200),
        ({"issuers_allowed": ["https://other.example"]}, "ours", 401),
        ({"issuers_allowed": ["https://other.example"]}, None, 401),
    ],
)
async def test_issuer(lane, idp, upstream, auth, iss, status):
    """N22, T1: `iss`, where both are there, is the configured issuer; `issuers_allowed` makes it required."""
    stated = {"ours": idp.issuer, "trailing": idp.issuer + "/"}.get(iss, iss)
    idp.tokens["t"] = {"sub": "alex"} | ({} if stated is None else {"iss": stated})
    settings = {"idp": provider(idp, issuer=idp.issuer)}
    async with lane(config(idp, upstream, route("/api", auth), identity_providers=settings)) as gateway:
        assert (await ask_twice(gateway, "/api", "t")).status == status


async def test_claims_in_claims(lane, idp, upstream):
    """T19: where a claim stands is a path; a path that leads nowhere satisfies nothing."""
    auth = {"roles_required": ["admin"], "roles_claim": ["realm_access", "roles"]}
    idp.tokens |= {
        "deep": {"realm_access": {"roles": ["user", "admin"]}},
        "flat": {"roles": ["admin"], "realm_access": "roles"},
        "dotted": {"realm_access.roles": ["admin"]},
    }
    async with lane(config(idp, upstream, route("/api", auth))) as gateway:
        assert (await ask_twice(gateway, "/api", "deep")).status == 200
        assert (await ask_twice(gateway, "/api", "flat")).status == 403
        assert (await ask_twice(gateway, "/api", "dotted")).status == 403


@pytest.mark.parametrize(
    "claims",
    [
        {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
        {"cnf": {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}},
        {"cnf": {}},
        {"cnf": None},
        {"token_type": "DPoP"},
        {"token_type": "dpop"},
    ],
    ids=str,
)
async def test_a_bound_token_is_no_bearer_token(lane, idp, upstream, claims):
    """N31, N32, T15: a binding that cannot be checked here is refused, remembered or not, proof or no proof."""
    idp.tokens["t"] = {**READER, **claims}
    async with lane(config(idp, upstream)) as gateway:
        assert (await ask_twice(gateway, "/api", "t")).status == 401
        assert (await gateway.get("/api", ("DPoP", "e30.e30.x"), token="t")).status == 401
        assert (await gateway.get("/api", ("Authorization", "DPoP t"), ("DPoP", "e30.e30.x"))).status == 401
        assert (await gateway.get("/api", ("Client-Cert", ":e30=:"), token="t")).status == 401
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("times", "leeway", "status"),
    [
        ({"exp": NOW + 1}, 0, 200),
        ({"exp": NOW}, 0, 401),
        ({"exp": NOW - 5}, 10, 200),
        ({"exp": NOW - 10}, 10, 401),
        ({"exp": 0}, 0, 401),
        ({"exp": 2**63}, 0, 200),
        ({"exp": None}, 0, None),
        ({"exp": NOW + 0.5}, 0, None),
        ({"exp": 1e300}, 0, None),
        ({"exp": -1}, 0, None),
        ({"exp": str(NOW + 100)}, 0, None),
        ({"exp": [NOW + 100]}, 0, None),
        ({"nbf": NOW}, 0, 200),
        ({"nbf": NOW + 5}, 0, 401),
        ({"nbf": NOW + 5}, 10, 200),
        ({"iat": NOW + 5}, 0, 401),
        ({"iat": NOW + 5}, 10, 200),
        ({"nbf": "soon"}, 0, None),
        ({"iat": -1}, 0, None),
    ],
    ids=str,
)
async def test_times(lane, idp, upstream, times, leeway, status):
    """N21, T10, T14: held against the clock with the leeway; nonsense is no answer or no longer than allowed."""
    idp.tokens["t"] = {"sub": "alex", **times}
    clock = StillClock(NOW)
    async with lane(config(idp, upstream, route("/api", {"leeway": leeway})), clock=clock) as gateway:
        got = await gateway.get("/api", token="t")
        if status is None:
            assert got.status in {200, 401, 503}
        else:
            assert got.status == status
        if got.status == 200 and status is None:
            # Whatever was made of it, an hour later it is asked about again.
            clock.pass_(3600)
            before = len(idp.questions)
            await gateway.get("/api", token="t")
            assert len(idp.questions) == before + 1


# --- the same token elsewhere -------------------------------------------------------------------------------------


async def test_a_token_remembered_on_one_route_is_decided_anew_on_another(lane, idp, upstream):
    """N24, T1: other scope, other audience, other issuer, other role: no verdict is ever shared."""
    idp.tokens["t"] = {**READER, "iss": "https://idp.example"}
    wanted = {
        "/ok": {},
        "/scope": {"scopes_required": ["write"]},
        "/audience": {"audience_required": ["other"]},
        "/issuer": {"issuers_allowed": ["https://other.example"]},
        "/role": {"roles_required": ["admin"]},
        "/claim": {"claims_forbidden": ["sub"]},
        "/also": {"scopes_required": ["read"], "audience_required": ["api"]},
    }
    expected = dict(zip(wanted, (200, 403, 401, 401, 403, 403, 200), strict=True))
    async with lane(config(idp, upstream, *(route(path, auth) for path, auth in wanted.items()))) as gateway:
        for order in (list(wanted), list(reversed(wanted))):
            got = {path: (await gateway.get(path, token="t")).status for path in order}
            assert got == expected
    assert len(idp.questions) == 1


async def test_a_route_replaces_single_keys_of_its_service(lane, idp, upstream):
    """N24: the service's requirements hold for its routes; a route without a token is said, never assumed."""
    wanted = config(idp, upstream, route("/inherits"), route("/weaker", {"scopes_required": ["read"]}))
    wanted["services"][0]["auth"] = {"scopes_required": ["write"], "audience_required": ["api"]}
    idp.tokens["elsewhere"] = {**READER, "aud": "other"}
    async with lane(wanted) as gateway:
        assert (await gateway.get("/inherits", token="good")).status == 403
        assert (await gateway.get("/weaker", token="good")).status == 200
        assert (await gateway.get("/weaker", token="elsewhere")).status == 401
        assert (await gateway.get("/inherits")).status == 401


async def test_an_inactive_token_with_claims(lane, idp, upstream):
    """N16, N18: `active: false` beats whatever stands beside it."""
    idp.will(says({"active": False, **READER}))
    async with lane(config(idp, upstream)) as gateway:
        assert (await gateway.get("/api", token="t")).status == 401
    assert upstream.requests == []
