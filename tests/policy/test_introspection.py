import json
from base64 import b64decode
from dataclasses import replace
from urllib.parse import parse_qsl, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE, ActiveToken, ClientAuth
from fastgate.policy.introspection import MAX_BODY, MAX_DEPTH, asking, decode
from tests.policy.values import IDP

JSON = "application/json"


def asked(token="tok", **changes):
    same = asking(replace(IDP, **changes))
    return same.headers, parse_qsl(same.form(token).decode("ascii"), strict_parsing=True, keep_blank_values=True)


def kind_of(status, body=b'{"active":true}', content_type=JSON):
    """The kind of error an answer makes."""
    with pytest.raises(IntrospectionError) as caught:
        decode(status, content_type, body)
    return caught.value.kind


def read(**claims):
    return decode(200, JSON, json.dumps({"active": True, **claims}).encode())


def test_the_question():
    """N13: a form with the token once and the hint."""
    fields, form = asked()
    assert fields["Content-Type"] == "application/x-www-form-urlencoded"
    assert fields["Accept"] == "application/json"
    assert form == [("token", "tok"), ("token_type_hint", "access_token")]


def test_a_token_with_every_character():
    """N13: percent-encoded exactly once."""
    form = asking(IDP).form("a+/=~._-%41&x=1")
    assert form.startswith(b"token=a%2B%2F%3D~._-%2541%26x%3D1&")


def test_no_hint():
    """N13: the hint is optional."""
    assert asked(hint=None)[1] == [("token", "tok")]


def test_basic_authentication():
    """N14: id and secret are form-encoded before base64; nothing of them is in the form."""
    fields, form = asked(client_id="ga te", client_secret=":+ %é")
    scheme, _, credentials = fields["Authorization"].partition(" ")
    assert scheme == "Basic"
    decoded = b64decode(credentials).decode("ascii")
    assert decoded == "ga+te:%3A%2B+%25%C3%A9"
    assert [unquote_plus(part) for part in decoded.split(":")] == ["ga te", ":+ %é"]
    assert {"client_id", "client_secret"}.isdisjoint(dict(form))


def test_post_authentication():
    """N14: in the form, encoded once, and no header beside it."""
    fields, form = asked(client_auth=ClientAuth.POST, client_secret=":+ %é")
    assert "Authorization" not in fields
    assert form[2:] == [("client_id", "gate"), ("client_secret", ":+ %é")]


@pytest.mark.parametrize("method", [ClientAuth.BASIC, ClientAuth.POST])
def test_what_is_said_of_the_question(method):
    """Figure 6: whoever logs it logs no credentials."""
    same = asking(replace(IDP, client_auth=method, client_secret="s3cret"))
    assert "s3cret" in f"{b64decode(same.headers.get('Authorization', '')[6:])}{same.form('t')}"
    assert f"{same} {same!r}" == "Asking(...) Asking(...)"


@pytest.mark.parametrize(("client_id", "sent"), [("gate", [("client_id", "gate")]), ("", [])])
def test_no_authentication(client_id, sent):
    """N14: a public client says who it is at most."""
    fields, form = asked(client_auth=ClientAuth.NONE, client_id=client_id, hint=None)
    assert "Authorization" not in fields
    assert form == [("token", "tok"), *sent]


@pytest.mark.parametrize("method", ClientAuth)
def test_an_authorization_of_the_operator(method):
    """N14: it is the one method; ours is left out, in header and form."""
    fields, form = asked(client_auth=method, headers=(("authorization", "Bearer static"),))
    assert [value for name, value in fields.items() if name.lower() == "authorization"] == ["Bearer static"]
    assert "client_secret" not in dict(form)


def test_headers_and_arguments_of_the_operator():
    """N30: what the configuration adds is sent, and nothing of the client's request."""
    fields, form = asked(
        headers=(("X-Tenant", "a"), ("accept", "text/x")), post_args=(("resource", "b"), ("resource", "c"))
    )
    assert fields["X-Tenant"] == "a"
    assert [value for name, value in fields.items() if name.lower() == "accept"] == ["text/x"]
    assert form[2:] == [("resource", "b"), ("resource", "c")]


def test_an_argument_that_would_replace_the_token():
    """N13: the token is the client's, once."""
    form = asked(post_args=(("token", "other"), ("token_type_hint", "other")))[1]
    assert form == [("token", "tok"), ("token_type_hint", "access_token")]


def test_active():
    """N16: exactly true; the claims are kept, the standard ones read."""
    state = read(exp=5, nbf=0, iat=2**63, iss="https://a", sub="x", unknown={"a": 1})
    assert isinstance(state, ActiveToken)
    assert (state.exp, state.nbf, state.iat, state.iss, state.bound) == (5, 0, 2**63, "https://a", False)
    assert state.claims["unknown"] == {"a": 1}


def test_active_and_nothing_else():
    """N16, N20: absent facts are None."""
    state = read()
    assert (state.exp, state.nbf, state.iat, state.iss, state.bound) == (None, None, None, None, False)


def test_inactive():
    """N18: an answer, not an error; whatever else it says."""
    assert decode(200, JSON, b'{"active":false}') is INACTIVE
    assert decode(200, JSON, b'{"active":false,"exp":"x","iss":1}') is INACTIVE


@pytest.mark.parametrize("value", ['"true"', '"false"', "1", "0", "null", "[true]", "{}", "1.0", '"True"'])
def test_active_is_not_a_boolean(value):
    """N16, T18: not active, and an error."""
    assert kind_of(200, b'{"active":%b}' % value.encode()) is Cannot.MALFORMED


@pytest.mark.parametrize(
    "body", [b"{}", b"", b"[true]", b'{"Active":true}', b'{"active":true,"active":false}', b"true"]
)
def test_active_is_missing_or_twice(body):
    """N16, T11: not active, and an error."""
    assert kind_of(200, body) is Cannot.MALFORMED


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", ["-1", "1.5", "1e300", "1e308", '"123"', "null", "true", "false", "[]", "1.0", str(2**64)]
)
def test_a_time_that_is_none(name, value):
    """N21, T10: an error, never a longer life."""
    assert kind_of(200, b'{"active":true,"%b":%b}' % (name.encode(), value.encode())) is Cannot.MALFORMED


@pytest.mark.parametrize("value", [1, None, ["https://a"], {}])
def test_an_issuer_that_is_not_a_string(value):
    """N22: an error."""
    assert kind_of(200, json.dumps({"active": True, "iss": value}).encode()) is Cannot.MALFORMED


@pytest.mark.parametrize(
    ("claims", "bound"),
    [
        ({"cnf": {"jkt": "x"}}, True),
        ({"cnf": {"x5t#S256": "x"}}, True),
        ({"cnf": {}}, True),
        ({"cnf": None}, True),
        ({"token_type": "DPoP"}, True),
        ({"token_type": "dpop"}, True),
        ({"token_type": "Bearer"}, False),
        ({"token_type": 1}, False),
    ],
)
def test_a_sender_constrained_token(claims, bound):
    """N31, N32: any cnf and the type DPoP are a binding."""
    assert read(**claims).bound is bound


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "Application/JSON ;x=y"])
def test_the_content_type(content_type):
    """N16: application/json, parameters or not."""
    assert decode(200, content_type, b'{"active":false}') is INACTIVE


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/html",
        "text/json",
        "application/jwt",
        "application/token-introspection+jwt",
        "application/jsonp",
        "x, application/json",
    ],
)
def test_another_content_type(content_type):
    """N16, N28: not read at all; a JWT is never taken for an answer."""
    assert kind_of(200, content_type=content_type) is Cannot.MALFORMED


@pytest.mark.parametrize("status", [201, 202, 203, 204, 206, 300, 301, 302, 304, 307, 400, 404, 405, 410, 415, 101])
def test_another_status(status):
    """N15, N16: not an answer, even with the right body; redirects are not followed."""
    assert kind_of(status) is Cannot.MALFORMED


@pytest.mark.parametrize("status", [401, 403])
def test_our_credentials_are_refused(status):
    """N17, T39: told apart from everything else."""
    assert kind_of(status) is Cannot.REJECTED


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
def test_the_server_has_trouble(status):
    """N85: unavailable."""
    assert kind_of(status) is Cannot.UNAVAILABLE


def test_an_answer_without_bounds():
    """N27, T11: size and depth are bounded."""
    assert kind_of(200, b'{"active":true,"x":"' + b"x" * MAX_BODY + b'"}') is Cannot.MALFORMED
    assert kind_of(200, b'{"active":true,"x":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}") is Cannot.MALFORMED


def test_nothing_is_quoted():
    """T12, T23: no octet of the answer is in the error."""
    with pytest.raises(IntrospectionError) as caught:
        decode(200, JSON, b'{"active":true,"exp":"secret"}')
    assert "secret" not in str(caught.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
members = st.dictionaries(
    st.sampled_from(["active", "exp", "nbf", "iat", "iss", "cnf", "token_type", "x"]), anything | st.booleans()
)


@given(
    body=st.one_of(
        members.map(lambda value: json.dumps(value).encode()),
        anything.map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=40),
        st.sampled_from([b'{"active":true', b'{"active":true}}', b'{"active":true} x', b'\xef\xbb\xbf{"active":true}']),
    ),
    status=st.sampled_from([200, 204, 302, 401, 500]),
)
def test_any_answer(body, status):
    """N16, T11, T18: never a crash, and never active unless JSON says exactly true."""
    try:
        state = decode(status, JSON, body)
    except IntrospectionError:
        return
    assert status == 200
    assert json.loads(body)["active"] is (state is not INACTIVE)
