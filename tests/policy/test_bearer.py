import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.model import AccessToken, Denial, DenialReason, Extraction, TokenSource
from fastgate.policy.bearer import extract, wants_form
from tests.policy.values import BEARER, CHUNKED, EVERYWHERE, HEADER_ONLY, head, length

NONE = Denial(DenialReason.NO_CREDENTIALS)
MALFORMED = Denial(DenialReason.MALFORMED_CREDENTIALS)
FORM = (b"Content-Type", b"application/x-www-form-urlencoded")
QUERY_ONLY = Extraction(frozenset({TokenSource.QUERY}))
COOKIE_ONLY = Extraction(frozenset({TokenSource.COOKIE}), cookie_name="session")
BODY_ONLY = Extraction(frozenset({TokenSource.BODY}))


def authorization(value, extraction=HEADER_ONLY):
    return extract(extraction, head("/", (b"Authorization", value)))


@pytest.mark.parametrize("value", [b"Bearer tok", b"bearer tok", b"BEARER tok", b"bEaReR    tok"])
def test_a_bearer_token(value):
    """N1: the scheme is compared without case, one or more spaces follow it."""
    assert authorization(value) == AccessToken("tok", TokenSource.HEADER)


@pytest.mark.parametrize("token", ["a", "a-._~+/09AZaz", "a==", "mF_9.B5f-4.1JqM"])
def test_every_character_a_token_may_have(token):
    """N1, T36: b64token, and nothing is decoded or changed."""
    assert authorization(b"Bearer " + token.encode()) == AccessToken(token, TokenSource.HEADER)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer =",
        b"Bearer a b",
        b"Bearer a,b",
        b"Bearer a, Bearer b",
        b"Bearer a=b",
        b"Bearer\ta",
        b"Bearer \ta",
        b"Bearer a\x00",
        b"Bearer a\r\nX: y",
        b"Bearer %s",
        b"Bearer a%20",
        b"Bearer t\xc3\xa9",
        b'Bearer "a"',
        b"Bearer,a",
        b'Bearer realm="x"',
        b"\xff",
        b"=",
    ],
)
def test_a_broken_header(value):
    """N2, T16, T31, T36: malformed before anybody computes with it or is asked about it."""
    assert authorization(value) == MALFORMED


@pytest.mark.parametrize("value", [b"Basic YTpi", b"DPoP tok", b"Digest a=b", b"Bearerx tok", b"tok", b"Basic"])
def test_another_scheme(value):
    """N10, T31: no credentials of ours."""
    assert authorization(value) == NONE


def test_no_authorization_at_all():
    """N7: no credentials."""
    assert extract(HEADER_ONLY, head("/", (b"X-Authorization", b"Bearer tok"))) == NONE


@pytest.mark.parametrize("extraction", [HEADER_ONLY, EVERYWHERE, QUERY_ONLY])
@pytest.mark.parametrize("second", [BEARER, (b"authorization", b"Basic YTpi"), (b"AUTHORIZATION", b"")])
def test_two_authorization_fields(extraction, second):
    """N3, T35: malformed, whichever would win and whether or not the header counts."""
    assert extract(extraction, head("/?access_token=tok", BEARER, second)) == MALFORMED
    assert extract(extraction, head("/?access_token=tok", second, BEARER)) == MALFORMED


@pytest.mark.parametrize(("octets", "found"), [(8, AccessToken("t" * 8, TokenSource.HEADER)), (9, MALFORMED)])
def test_the_longest_token(octets, found):
    """N6, T36: one octet more is refused."""
    extraction = Extraction(HEADER_ONLY.sources, max_length=8)
    assert authorization(b"Bearer " + b"t" * octets, extraction) == found


def test_the_longest_token_in_a_query():
    """N6, T36: the same bound holds everywhere."""
    extraction = Extraction(QUERY_ONLY.sources, max_length=8)
    assert extract(extraction, head("/?access_token=" + "t" * 8)) == AccessToken("t" * 8, TokenSource.QUERY)
    assert extract(extraction, head("/?access_token=" + "t" * 9)) == MALFORMED


def test_a_token_in_a_place_that_does_not_count():
    """N4, N5, N12: query, form and cookie mean nothing unless the route names them."""
    request = head("/?access_token=q", (b"Cookie", b"access_token=c"), FORM, method="POST", framing=length(9))
    assert extract(HEADER_ONLY, request, b"access_token=b") == NONE
    assert extract(HEADER_ONLY, head("/?access_token=q", BEARER)) == AccessToken("tok", TokenSource.HEADER)


def test_a_header_that_does_not_count():
    """N12: a route that reads the cookie ignores a bearer token in the header."""
    request = head("/", BEARER, (b"Cookie", b"session=c"))
    assert extract(COOKIE_ONLY, request) == AccessToken("c", TokenSource.COOKIE)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("access_token=tok", "tok"),
        ("a=b&access_token=tok&c", "tok"),
        ("access_token=t%6Fk", "tok"),
        ("access%5Ftoken=tok", "tok"),
        ("access_token=a+b", "a+b"),
        ("access_token=a%2Bb", "a+b"),
    ],
)
def test_a_token_in_the_query(query, found):
    """N4: percent-decoded once; "+" is a character of tokens, not a space."""
    assert extract(QUERY_ONLY, head("/?" + query)) == AccessToken(found, TokenSource.QUERY)


@pytest.mark.parametrize(
    "query",
    [
        "access_token",
        "access_token=",
        "access_token=a&access_token=a",
        "access_token=a&access%5Ftoken=b",
        "access_token=a%20b",
        "access_token=a%0D%0Ab",
        "access_token=%C3%A9",
        "access_token=%2520",
    ],
)
def test_a_broken_token_in_the_query(query):
    """N2, N4: exactly one, not empty, well-formed."""
    assert extract(QUERY_ONLY, head("/?" + query)) == MALFORMED


@pytest.mark.parametrize("target", ["/", "/?", "/?Access_Token=tok", "/?a=access_token", "/access_token=tok"])
def test_no_token_in_the_query(target):
    """N7: no credentials."""
    assert extract(QUERY_ONLY, head(target)) == NONE


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Cookie", b"session=tok")],
        [(b"Cookie", b"a=b; session=tok; c=d")],
        [(b"Cookie", b"a=b"), (b"Cookie", b"session=tok")],
    ],
)
def test_a_token_in_a_cookie(fields):
    """N12: in the cookie the route names, if it names one."""
    assert extract(COOKIE_ONLY, head("/", *fields)) == AccessToken("tok", TokenSource.COOKIE)


@pytest.mark.parametrize("value", [b"session=a; session=a", b"session=", b"session", b'session="a"', b"session=\xe9"])
def test_a_broken_cookie(value):
    """N2, N3: two of them, none in it, or not a token."""
    assert extract(COOKIE_ONLY, head("/", (b"Cookie", value))) == MALFORMED


def test_a_cookie_of_another_name():
    """N12: names are compared whole and with case."""
    assert extract(COOKIE_ONLY, head("/", (b"Cookie", b"xsession=a; Session=b; session2=c"))) == NONE


@pytest.mark.parametrize(
    ("form", "found"),
    [
        (b"access_token=tok&a=b", AccessToken("tok", TokenSource.BODY)),
        (b"access%5ftoken=t%6fk", AccessToken("tok", TokenSource.BODY)),
        (b"access_token=a+b", MALFORMED),
        (b"access_token=a&access_token=b", MALFORMED),
        (b"access_token=", MALFORMED),
        (b"access_token=\xff", MALFORMED),
        (b"\xff=\xfe", NONE),
        (b"", NONE),
        (None, NONE),
    ],
)
def test_a_token_in_a_form(form, found):
    """N5: exactly one, form-decoded, so that "+" is a space."""
    assert extract(BODY_ONLY, head("/", FORM, method="POST", framing=length(9)), form) == found


@pytest.mark.parametrize(
    ("target", "fields", "form"),
    [
        ("/?access_token=q", [BEARER], None),
        ("/", [BEARER, (b"Cookie", b"access_token=c")], None),
        ("/", [BEARER], b"access_token=b"),
        ("/?access_token=q", [], b"access_token=b"),
        ("/?access_token=q", [(b"Cookie", b"access_token=c")], None),
        ("/?access_token=q", [(b"Authorization", b"Bearer")], None),
        ("/?access_token=", [BEARER], None),
    ],
)
def test_a_token_by_two_methods(target, fields, form):
    """N3: malformed, not "first wins", even when one of the two is broken."""
    assert extract(EVERYWHERE, head(target, *fields), form) == MALFORMED


def test_another_scheme_beside_a_token():
    """N10: credentials of another scheme are not a second token."""
    request = head("/?access_token=q", (b"Authorization", b"Basic YTpi"))
    assert extract(EVERYWHERE, request) == AccessToken("q", TokenSource.QUERY)


def test_one_token_where_many_places_count():
    """N1, N7: every place is looked at, one is enough, none is none."""
    assert extract(EVERYWHERE, head("/", BEARER)) == AccessToken("tok", TokenSource.HEADER)
    assert extract(EVERYWHERE, head("/")) == NONE


@pytest.mark.parametrize(
    ("wanted", "extraction", "method", "framing", "fields"),
    [
        (True, BODY_ONLY, "POST", length(9), [FORM]),
        (True, EVERYWHERE, "PUT", CHUNKED, [(b"Content-Type", b"Application/X-WWW-Form-Urlencoded ; charset=utf-8")]),
        (False, HEADER_ONLY, "POST", length(9), [FORM]),
        (False, BODY_ONLY, "GET", length(9), [FORM]),
        (False, BODY_ONLY, "HEAD", length(9), [FORM]),
        (False, BODY_ONLY, "POST", head().framing, [FORM]),
        (False, BODY_ONLY, "POST", length(9), []),
        (False, BODY_ONLY, "POST", length(9), [FORM, FORM]),
        (False, BODY_ONLY, "POST", length(9), [(b"Content-Type", b"multipart/form-data; boundary=x")]),
        (False, BODY_ONLY, "POST", length(9), [FORM, (b"Content-Encoding", b"gzip")]),
    ],
)
def test_when_the_body_is_read(wanted, extraction, method, framing, fields):
    """N5: a single urlencoded form, never of GET, only where the route says so."""
    assert wants_form(extraction, head("/", *fields, method=method, framing=framing)) is wanted


def test_a_token_does_not_show():
    """N26, T12: the repr names the place only."""
    assert "tok" not in repr(authorization(b"Bearer tok-en"))[len("AccessToken") :]


ORACLE = re.compile(rb"(?i:bearer)( +)(?P<token>[-A-Za-z0-9._~+/]+=*)")


@given(value=st.binary(max_size=40) | st.from_regex(rb"[Bb]earer ?[ -~]{0,20}", fullmatch=True))
def test_any_header(value):
    """N1, N2, T31: never a crash, and a token exactly when the grammar says so."""
    found = authorization(value)
    oracle = ORACLE.fullmatch(value)
    if oracle:
        assert found == AccessToken(oracle["token"].decode(), TokenSource.HEADER)
    else:
        assert found in {NONE, MALFORMED}
        if value.lower().startswith(b"bearer "):
            assert found == MALFORMED


@given(
    query=st.text(alphabet="acestokn_%5Fz0=&+", max_size=30).map(lambda text: text + "&access_token=z") | st.text(),
    cookie=st.binary(max_size=20),
    form=st.none() | st.binary(max_size=20),
)
def test_any_request(query, cookie, form):
    """N2, N3, T36: never a crash, never a token that is not well-formed."""
    found = extract(EVERYWHERE, head("/", (b"Cookie", cookie))._replace(query=query), form)
    if isinstance(found, AccessToken):
        assert re.fullmatch(r"[-A-Za-z0-9._~+/]+=*", found.value)
    else:
        assert found in {NONE, MALFORMED}
