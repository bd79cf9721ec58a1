"""The path that was decided on is the path that is forwarded, octet for octet, however somebody may read it."""

import posixpath
from urllib.parse import unquote

import pytest

from tests.contract.parts import bearer, config, route, service

PUBLIC_OR_ADMIN = [
    "/public/../admin",
    "/public/./../admin",
    "/public/x/../../admin",
    "/public/%2e%2e/admin",
    "/public/%2E./admin",
    "/public/..%2fadmin",
    "/public%2f..%2fadmin",
    "/public/%252e%252e/admin",
    "/public/%25%32%65%25%32%65/admin",
    "/public/..%5cadmin",
    "/public/%5c..%5cadmin",
    "/public/..;/admin",
    "/public/..;a=b/admin",
    "/public;/../admin",
    "/public//../admin",
    "/public/..//admin",
    "/public/%2e%2e;/admin",
    "/public/..%00/admin",
    "/public/.%2e%2fadmin",
    "/public/..%c0%afadmin",
    "/public/%c0%ae%c0%ae/admin",
    "//admin",
    "/./admin",
    "/;/admin",
    "/%2fadmin",
    "/%61dmin",
    "/admin/../public",
    "/admin/%2e%2e/public",
    "/admin;/../public",
    "/%2e/admin",
    "/public/../admin?/public",
    "/public?/../admin",
    "/public%3f/../admin",
    "/public%23/../admin",
]


def readings(target):
    """List what lenient servers make of a path."""
    path = target.partition("?")[0]
    texts = {path}
    for _ in range(4):
        texts |= {unquote(text) for text in texts}
    texts |= {text.replace("\\", "/") for text in texts}
    texts |= {"/".join(part.partition(";")[0] for part in text.split("/")) for text in texts}
    texts |= {text.partition("?")[0].partition("#")[0].partition("\0")[0] for text in texts}
    return {posixpath.normpath("/" + text.lstrip("/")) for text in texts}


async def test_no_way_through_a_public_path_to_a_protected_one(lane, idp, upstream):
    """N71, N72, T7, T34: what passes without a token is public in every reading, and passes untouched."""
    routes = (route("/public", "none"), route("/admin"))
    async with lane(config(idp, upstream, *routes)) as gateway, await gateway.connect() as client:
        for target in PUBLIC_OR_ADMIN:
            seen = len(upstream.requests)
            got = await client.request("GET", target)
            assert got.status in {200, 400, 401, 404}, target
            if got.status == 200:
                assert upstream.requests[seen].target == target
                assert {text.split("/")[1] for text in readings(target)} == {"public"}, target
            else:
                assert len(upstream.requests) == seen, target
        # A token that is good enough does not make a path unambiguous either.
        for target in PUBLIC_OR_ADMIN:
            seen = len(upstream.requests)
            got = await client.request("GET", target, bearer("good"))
            if got.status == 200:
                assert len({text.split("/")[1] for text in readings(target)}) == 1, target
                assert upstream.requests[seen].target == target
        for target in ("/public/../admin", "/public/..%2fadmin", "/public/%252e%252e/admin", "/public\\..\\admin"):
            assert (await client.request("GET", target, bearer("good"))).status == 400, target


@pytest.mark.parametrize(
    "tail",
    ["", "?", "?a=%2F&&b=+", "//x///y", "/a;b=c", "/%41%62", "/+&=$,!'()*@:", "/~-._", "?a=/../b", "?%zz", "/?q=%00"],
)
@pytest.mark.parametrize("path", ["/public", "/any"])
async def test_targets_pass_octet_for_octet(lane, idp, upstream, path, tail):
    """N71: escapes, empty segments, parameters, an empty query: nothing is tidied up."""
    async with lane(config(idp, upstream)) as gateway:
        assert (await gateway.get(path + tail, token="good")).status == 200
    assert upstream.requests[0].target == path + tail


@pytest.mark.parametrize("tail", ["/a%2Fb", "/a%2e%2e", "/a%5Cb", "/x/%2E", "/..", "/a%252Fb"])
async def test_what_a_protected_route_does_not_take(lane, idp, upstream, tail):
    """N72, T7: 400 on a protected route even where all readings stay inside it; a public one passes it untouched."""
    async with lane(config(idp, upstream, route("/api"), route("/", "none"))) as gateway:
        assert (await gateway.get("/api/x" + tail, token="good")).status == 400
        assert (await gateway.get("/other/x/y" + tail)).status in {200, 400}
    assert [got.target for got in upstream.requests] in ([], ["/other/x/y" + tail])


async def test_absolute_form(lane, idp, upstream):
    """N46, N71: its authority wins over Host, which is made anew; upstream it is in origin-form."""
    routes = (route("/", "none", name="one", hosts=["one.test"]), route("/", name="two", hosts=["two.test"]))
    async with lane(config(idp, upstream, *routes)) as gateway, await gateway.connect() as client:
        await client.send(b"GET HTTP://one.test/x?y HTTP/1.1\r\nHost: two.test\r\n\r\n")
        assert (await client.answer()).status == 200
        await client.send(b"GET http://two.test HTTP/1.1\r\nHost: one.test\r\n\r\n")
        assert (await client.answer()).status == 401
        await client.send(b"GET http://two.test?q HTTP/1.1\r\nHost: one.test\r\nAuthorization: Bearer good\r\n\r\n")
        assert (await client.answer()).status == 200
    assert [got.target for got in upstream.requests] == ["/x?y", "/?q"]
    assert upstream.requests[0].header("host") == f"127.0.0.1:{upstream.port}"
    assert upstream.requests[0].header("x-forwarded-host") == "one.test"


@pytest.mark.parametrize(
    ("changes", "base", "target", "upstream_target"),
    [
        ({"strip_path": True}, "", "/api", "/"),
        ({"strip_path": True}, "", "/api/", "/"),
        ({"strip_path": True}, "", "/api/x//y?z", "/x//y?z"),
        ({"strip_path": True}, "/base", "/api", "/base"),
        ({"strip_path": True}, "/base/", "/api/x", "/base/x"),
        ({}, "/base", "/api/x", "/base/api/x"),
        ({"paths": ["~/v[0-9]+"], "strip_path": True}, "", "/v12/x", "/x"),
        ({"paths": ["/api/"], "strip_path": True}, "", "/api//x", "/x"),
    ],
    ids=str,
)
async def test_the_upstreams_path(lane, idp, upstream, changes, base, target, upstream_target):
    """N71: `strip_path` takes the matched prefix away, the service's path goes before; the rest is untouched."""
    wanted = config(idp, upstream)
    wanted["services"] = [service(upstream, route("/api", **changes), url=upstream.url + base)]
    async with lane(wanted) as gateway:
        assert (await gateway.get(target, token="good")).status == 200
    assert upstream.requests[0].target == upstream_target


async def test_host(lane, idp, upstream):
    """N46: the service's, or the client's with `preserve_host`."""
    routes = (route("/ours", "none"), route("/theirs", "none", preserve_host=True))
    async with lane(config(idp, upstream, *routes)) as gateway:
        for path in ("/ours", "/theirs"):
            assert (await gateway.get(path)).status == 200
    assert [got.header("host") for got in upstream.requests] == [f"127.0.0.1:{upstream.port}", "gateway.test"]
    assert [got.header("x-forwarded-host") for got in upstream.requests] == ["gateway.test"] * 2
