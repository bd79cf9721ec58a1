import json
import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import Match, Route
from fastgate.policy.routing import build, match, matched_length
from tests.policy.values import head, route


def found(routes, target, *fields, **changes):
    """The name of the route, or the status of the refusal."""
    answer = match(build(routes), head(target, *fields, **changes))
    return answer.name if isinstance(answer, Route) else answer.status


@pytest.mark.parametrize(
    ("path", "name"),
    [("/api", "api"), ("/api/", "api"), ("/api/x/y", "api"), ("/apis", 404), ("/ap", 404), ("/", 404), ("/x/api", 404)],
)
def test_a_prefix_ends_on_a_segment(path, name):
    """N72: /api is not /apis."""
    assert found([route("api", "/api")], path) == name


@pytest.mark.parametrize(("path", "name"), [("/api/", "api"), ("/api/x", "api"), ("/api", 404)])
def test_a_prefix_with_a_slash_at_its_end(path, name):
    """N72: the slash is part of the prefix."""
    assert found([route("api", "/api/")], path) == name


def test_a_route_without_a_path():
    """N72: it takes every path, and the asterisk."""
    routes = [route("any", methods=frozenset({"GET", "OPTIONS"}))]
    assert found(routes, "/a/b") == "any"
    assert found(routes, "*", method="OPTIONS") == "any"


def test_no_route():
    """N90: 404 names nothing."""
    answer = match(build([route("api", "/api")]), head("/secret"))
    assert (answer.status, answer.reason, answer.route) == (404, "no_route", "")
    assert json.loads(answer.body) == {"message": "no Route matched with those values"}


def test_the_wrong_method():
    """N72: 405 with every method that some route of this path takes, sorted."""
    routes = [
        route("read", "/api", methods=frozenset({"GET", "HEAD"})),
        route("write", "/api/x", methods=frozenset({"POST", "DELETE"})),
        route("other", "/other", methods=frozenset({"PATCH"})),
    ]
    answer = match(build(routes), head("/api/x", method="PUT"))
    assert answer.status == 405
    assert dict(answer.fields)[b"Allow"] == b"DELETE, GET, HEAD, POST"
    assert found(routes, "/api/x", method="GET") == "read"
    assert found(routes, "/api/x", method="POST") == "write"


def test_methods_have_a_case():
    """N44: "get" is another method than GET."""
    assert found([route("api", "/api", methods=frozenset({"GET"}))], "/api", method="get") == 405


def test_a_longer_prefix_first():
    """N72: the order of the file does not matter between prefixes."""
    routes = [route("all", "/"), route("api", "/api"), route("deep", "/api/v1/x"), route("v1", "/api/v1")]
    assert found(routes, "/api/v1/x/y") == "deep"
    assert found(routes, "/api/v1/z") == "v1"
    assert found(routes, "/api/v2") == "api"
    assert found(routes, "/apix") == "all"


def test_a_pattern_before_a_prefix():
    """N72: a regular expression is anchored at the start and goes before plain prefixes of any length."""
    routes = [route("plain", "/users/42/mail"), route("pattern", patterns=(r"/users/\d+",))]
    assert found(routes, "/users/42/mail") == "pattern"
    assert found(routes, "/x/users/42") == 404
    assert found(routes, "/users/x") == 404


def test_more_kinds_of_criteria_first():
    """N72: methods and a host beat a longer path."""
    routes = [route("long", "/api/v1/x"), route("kinds", "/api", methods=frozenset({"GET"}), hosts=("gate.test",))]
    assert found(routes, "/api/v1/x") == "kinds"
    assert found(routes, "/api/v1/x", method="POST") == "long"


@pytest.mark.parametrize(
    "more",
    [
        {"methods": frozenset({"GET"})},
        {"hosts": ("*.test",)},
        {"headers": ((b"x-a", frozenset({b"1"})),)},
        {"methods": frozenset({"GET"}), "hosts": ("gate.test",), "headers": ((b"x-a", frozenset({b"1"})),)},
    ],
)
def test_every_kind_of_criteria_counts(more):
    """N72: one more of any kind goes before a longer path."""
    routes = [route("long", "/api/v1"), route("more", "/api", **more)]
    assert found(routes, "/api/v1", (b"X-A", b"1")) == "more"


@pytest.mark.parametrize("path", [{"paths": ("/api",)}, {"patterns": ("/api",)}])
def test_a_path_is_a_kind_of_criteria(path):
    """N72: three kinds with a path beat two with a host."""
    methods, headers = frozenset({"GET"}), ((b"x-a", frozenset({b"1"})),)
    three = route("three", *path.get("paths", ()), patterns=path.get("patterns", ()), methods=methods, headers=headers)
    two = route("two", methods=methods, hosts=("gate.test",))
    assert found([two, three], "/api", (b"X-A", b"1")) == "three"


def test_the_order_of_the_file_last():
    """N72: between equals the first wins."""
    assert found([route("one", "/api"), route("two", "/api")], "/api") == "one"


def test_hosts_exact_before_wildcard_before_none():
    """N72: and a wildcard stands for one or more labels."""
    routes = [
        route("none", "/", methods=frozenset({"GET"})),
        route("right", "/", hosts=("gate.*",)),
        route("left", "/", hosts=("*.test",)),
        route("exact", "/", hosts=("gate.test",)),
    ]
    assert found(routes, "/", host="gate.test") == "exact"
    assert found(routes, "/", host="a.b.test") == "left"
    assert found(routes, "/", host="gate.example") == "right"
    assert found(routes, "/", host="other.example") == "none"
    assert found(routes[2:], "/", host=".test") == 404
    assert found(routes[1:2], "/", host="gate.") == 404
    assert found(routes[2:], "/", host="test") == 404


@pytest.mark.parametrize(
    ("pattern", "host", "scheme", "matches"),
    [
        ("api.test", "api.test:8443", "https", True),
        ("api.test", "api.test:", "http", True),
        ("api.test", "api.test.", "http", True),
        ("api.test", "api.test.:80", "http", True),
        ("api.test:8443", "api.test:8443", "https", True),
        ("api.test:8443", "api.test", "https", False),
        ("api.test:80", "api.test", "http", True),
        ("api.test:443", "api.test", "https", True),
        ("api.test:443", "api.test", "http", False),
        ("*.test:80", "api.test", "http", True),
        ("api.test", "xapi.test", "http", False),
        ("[::1]", "[::1]:8000", "http", True),
        ("[::1]", "[::1]", "http", True),
        ("[::1]:80", "[::1]", "http", True),
        ("1234", "1234", "http", True),
        ("gate.*", "gate.x", "http", True),
        ("gate.*", "gate.x:81", "http", True),
        ("*.test:80", "api.test:81", "http", False),
        ("*.test", "api.test:81", "http", True),
        ("gate.*", "gate..", "http", False),
        ("api.test", "", "http", False),
    ],
)
def test_hosts_with_and_without_port(pattern, host, scheme, matches):
    """N72: a route's host matches whatever port is named, unless it names one itself."""
    routes = [route("host", "/", hosts=(pattern,))]
    assert found(routes, "/", host=host, scheme=scheme) == ("host" if matches else 404)


def test_hosts_of_both_kinds_on_one_route():
    """N72: each is looked at in its own place."""
    routes = [route("both", "/", hosts=("a.test", "*.b.test")), route("exact", "/", hosts=("x.b.test",))]
    assert found(routes, "/", host="a.test") == "both"
    assert found(routes, "/", host="x.b.test") == "exact"
    assert found(routes, "/", host="y.b.test") == "both"


def test_headers_all_names_any_value():
    """N72: more headers go first."""
    one = route("one", "/", headers=((b"x-channel", frozenset({b"web", b"mobile"})),))
    two = route("two", "/", headers=((b"x-channel", frozenset({b"web"})), (b"x-beta", frozenset({b"1"}))))
    routes = [one, two]
    assert found(routes, "/", (b"X-Channel", b"mobile")) == "one"
    assert found(routes, "/", (b"X-Channel", b"web"), (b"X-Beta", b"1")) == "two"
    assert found(routes, "/", (b"X-Channel", b"web"), (b"X-Beta", b"2")) == "one"
    assert found(routes, "/", (b"X-Channel", b"Web")) == 404
    assert found(routes, "/", (b"X-Beta", b"1")) == 404
    assert found(routes, "/", (b"X-Other", b"web")) == 404


def test_many_routes():
    """N72: among a thousand routes the right one, and the general ones still have their place."""
    routes = [route(f"r{i}", f"/s{i}/x") for i in range(1000)]
    routes += [route("pattern", patterns=(r"/s7/.*z$",)), route("public", "/", public=True)]
    assert found(routes, "/s7/x/y") == "r7"
    assert found(routes, "/s7/x/z") == "pattern"
    assert found(routes, "/s7/y") == "public"


def test_headers_do_not_change_the_route():
    """T34: what a client says about method, path or host elsewhere decides nothing."""
    routes = [route("admin", "/admin"), route("public", "/public", public=True)]
    claims = (
        (b"X-Original-URL", b"/public"),
        (b"X-Rewrite-URL", b"/public"),
        (b"X-Forwarded-Host", b"public"),
        (b"X-HTTP-Method-Override", b"OPTIONS"),
    )
    assert found(routes, "/admin", *claims) == "admin"


SIDE_BY_SIDE = [route("admin", "/admin"), route("public", "/public", public=True)]
UNDER_PUBLIC = [route("admin", "/admin"), route("public", "/", public=True)]

DISGUISES = [
    "/public/../admin",
    "/public/x/../../admin",
    "/public/./../admin",
    "/public/%2e%2e/admin",
    "/public/%2E./admin",
    "/public/.%2e/admin",
    "/public/%252e%252e/admin",
    "/public/..%2fadmin",
    "/public/..%252fadmin",
    "/public%2f..%2fadmin",
    "/public/..;/admin",
    "/public/..;a=b/admin",
    "/public/..%3b/admin",
    "/public/..%5cadmin",
    "/public\\..\\admin",
    "/public/%5c../admin",
    "/public//../../admin",
    "/public/../admin//../public",
    "/public/../%61dmin",
    "/public/../admin%2f..%2fpublic",
    "/public/%2525252e%2525252e/admin",
    "/public/..%00/admin",
]


@pytest.mark.parametrize("path", DISGUISES)
def test_a_protected_path_in_disguise(path):
    """N72, T7: what one reader takes for the public route and another for the protected one is refused."""
    assert found(SIDE_BY_SIDE, path) == 400


@pytest.mark.parametrize(
    "path",
    [
        "/%61dmin",
        "/adm%69n/x",
        "/%2561dmin",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/admin;x",
        "/admin;x/y",
        "/;x/admin",
        "/%2fadmin",
        "/admin%2fx",
        "/admin%5cx",
        "/admin%3bx",
        "/admin%3fx",
        "/admin%23x",
        "/admin%00",
        "/admin\\x",
    ],
)
def test_a_protected_path_in_disguise_under_a_public_one(path):
    """N72, T7: the same where everything else is public."""
    assert found(UNDER_PUBLIC, path) == 400


@pytest.mark.parametrize(
    "path",
    [
        "/admin/../admin",
        "/admin/a/../b",
        "/admin/.",
        "/admin/..",
        "/admin/a%2fb",
        "/admin/a%2eb",
        "/admin/a%5Cb",
        "/admin/a\\b",
        "/admin/%252e",
        "/admin/%2541",
        "/admin/..;/x",
        "/admin/.%3bx/y",
        "/admin/%00",
    ],
)
def test_a_matter_of_taste_on_a_protected_route(path):
    """N72, T7: refused although every reading leads to the route."""
    assert found([route("admin", "/admin")], path) == 400


@pytest.mark.parametrize(
    "path",
    [
        "/admin//x",
        "/admin/x;v=1",
        "/admin/x;v=1/y",
        "/admin/%20x",
        "/admin/caf%C3%A9",
        "/admin/100%25",
        "/admin/%zz",
        "/admin/a+b",
        "/admin/...",
        "/admin/.hidden",
        "/admin/%ff",
        "/admin/a%3fb",
    ],
)
def test_unusual_but_clear_on_a_protected_route(path):
    """N71, N72: empty segments, parameters and other escapes pass when all readings agree."""
    assert found([route("admin", "/admin"), route("all", "/", public=True)], path) == "admin"


@pytest.mark.parametrize(
    "path", ["/public/a/../b", "/public/%2e", "/public/a%2Fb", "/public//x", "/public/x;y", "/public/%2541"]
)
def test_unusual_on_a_public_route(path):
    """N71, T7: untouched when every reading stays on the route."""
    assert found(SIDE_BY_SIDE, path) == "public"


def test_a_directory():
    """N72: what dots leave at the end of a path is a directory, with its slash."""
    assert found([route("dir", "/dir/", public=True)], "/dir/x/..") == "dir"
    assert found([route("dir", "/dir/", public=True)], "/dir/x/../y") == "dir"


def test_a_route_that_nobody_can_reach():
    """N72: a path that never becomes stable is no reason to fail, and no request takes it."""
    routes = [route("nul", "/a%00"), route("public", "/", public=True)]
    assert found(routes, "/a%00") == 400
    assert found(routes, "/a") == "public"


def test_an_escape_in_the_route_itself():
    """N71: a path that has to be escaped is written escaped, and found."""
    routes = [route("cafe", "/caf%C3%A9"), route("space", "/a%20b/c")]
    assert found(routes, "/caf%C3%A9/x") == "cafe"
    assert found(routes, "/a%20b/c/d") == "space"
    assert found(routes, "/caf%c3%a9") == 400


def test_an_escape_that_never_ends():
    """N72: refused after a few rounds, on every route."""
    assert found(UNDER_PUBLIC, "/" + "%25" * 3 + "25" * 2000) == 400


def test_unusual_and_unknown():
    """N72: where no reading leads anywhere the answer is 404 or 405, not 400."""
    routes = [route("admin", "/admin", methods=frozenset({"GET"}))]
    assert found(routes, "/x//y") == 404
    assert found(routes, "/admin//y", method="PUT") == 405


def test_a_pattern_that_sees_what_the_upstream_may_see():
    """N72, T7: one segment is not two, however it is written."""
    routes = [route("user", patterns=(r"/users/[^/]+$",), public=True)]
    assert found(routes, "/users/a%20b") == "user"
    assert found(routes, "/users/a%2fb") == 400


@pytest.mark.parametrize(
    ("paths", "patterns", "path", "taken"),
    [
        (("/api",), (), "/api/x", 4),
        (("/api", "/api/v1"), (), "/api/v1/x", 7),
        (("/",), (), "/x", 1),
        (("/api",), (r"/a[a-z]+/v\d",), "/api/v1/x", 7),
        (("/api",), (r"/z",), "/api/x", 4),
        ((), (), "/x", 0),
    ],
)
def test_what_a_route_takes_of_the_path(paths, patterns, path, taken):
    """N71: the pattern's match, or else the longest prefix."""
    assert matched_length(Match(paths=paths, patterns=tuple(map(re.compile, patterns))), path) == taken


def test_the_table_shows_its_routes():
    """N72: in the order of the file."""
    routes = [route("b", "/b"), route("a", "/a")]
    assert build(routes).routes == tuple(routes)


SEGMENT = st.sampled_from(
    [
        "",
        ".",
        "..",
        "admin",
        "public",
        "%61dmin",
        "x",
        "..;",
        ";x",
        "%2e%2e",
        "%2f",
        "a\\b",
        "%5c",
        "x%2f..",
        "%252e%252e",
    ]
)


def strictest(path, *, decode, merge):
    """An upstream of our own making: the path's first segment after its reading."""
    if decode:
        path = unquote(path)
    path = path.replace("\\", "/") if decode else path
    segments: list[str] = []
    for segment in path.split("/")[1:]:
        name = segment.split(";")[0]
        if name == "..":
            segments[-1:] = []
        elif name != "." and (name or not merge):
            segments.append(name)
    return segments[0] if segments else ""


@given(path=st.lists(SEGMENT, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts)))
def test_any_path(path):
    """N72, T7: what passes as public is not read as protected by upstreams of four tempers."""
    decision = found(SIDE_BY_SIDE, path)
    readings = {strictest(path, decode=decode, merge=merge) for decode in (True, False) for merge in (True, False)}
    if decision == "public":
        assert "admin" not in readings
    if readings == {"admin"} and not re.search(r"%|;|\\|//|/\.", path):
        assert decision == "admin"
