import json
import math

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.errors import Cannot, ForwardError, HeadError, IntrospectionError, Side, Stage
from fastgate.model import DenialReason
from fastgate.policy.replies import (
    RETRY_AFTER_MAX,
    denials,
    forward_failed,
    head_refused,
    introspection_failed,
    render,
    reply,
)

DATE = b"Sun, 22 Nov 2026 09:00:00 GMT"
OF_THE_TOKEN = (
    DenialReason.INACTIVE,
    DenialReason.EXPIRED,
    DenialReason.NOT_YET_VALID,
    DenialReason.ISSUER,
    DenialReason.AUDIENCE,
    DenialReason.BINDING,
)
OF_THE_RIGHTS = (DenialReason.SCOPE, DenialReason.ROLE, DenialReason.GROUP, DenialReason.FORBIDDEN_CLAIM)


def field(answer, name):
    found = [value for key, value in answer.fields if key.lower() == name]
    assert len(found) <= 1
    return found[0] if found else None


def parse(message, method="GET"):
    """Let h11 read one message as a client would."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(message)
    head = client.next_event()
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    return head, body


def test_an_answer_of_our_own():
    """N85: it is JSON, self-delimited, and no cache keeps it."""
    message = render(reply(404, reason="no_route"), date=DATE, keep_alive=True, method="GET")
    head, body = parse(message)
    assert message.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert dict(head.headers) == {
        b"content-type": b"application/json",
        b"cache-control": b"no-store",
        b"content-length": str(len(body)).encode(),
        b"date": DATE,
    }
    assert json.loads(body) == {"message": "Not Found"}


def test_a_reason_is_for_the_log():
    """N90: nothing of it reaches the client."""
    message = render(reply(400, reason="secret_reason", route="r"), date=DATE, keep_alive=True, method="GET")
    assert b"secret_reason" not in message


def test_the_answer_to_head():
    """N79: the fields of the answer to GET, without the body."""
    answer = reply(404, reason="no_route")
    get = render(answer, date=DATE, keep_alive=True, method="GET")
    head = render(answer, date=DATE, keep_alive=True, method="HEAD")
    assert get == head + answer.body
    assert parse(head, "HEAD")[1] == b""


@pytest.mark.parametrize(
    ("keep_alive", "http_1_0", "options"),
    [(True, False, None), (False, False, b"close"), (True, True, b"keep-alive"), (False, True, b"close")],
)
def test_what_becomes_of_the_connection(keep_alive, http_1_0, options):
    """N56, N58: close is said when it is meant; a 1.0 client is told when it is not."""
    message = render(reply(400, reason="x"), date=DATE, keep_alive=keep_alive, method="GET", http_1_0=http_1_0)
    assert dict(parse(message)[0].headers).get(b"connection") == options


def test_an_upgrade_is_required():
    """N87: a 426 names Upgrade among its connection options."""
    message = render(reply(426, reason="x"), date=DATE, keep_alive=False, method="GET")
    assert dict(parse(message)[0].headers)[b"connection"] == b"close, upgrade"


def test_a_status_without_a_phrase():
    """N85: an unlisted status still makes a well-formed message."""
    head, body = parse(render(reply(418, reason="x"), date=DATE, keep_alive=True, method="GET"))
    assert (head.status_code, json.loads(body)) == (418, {"message": "Error"})


def test_no_credentials():
    """N7, N8, N10: a bare challenge, without an error."""
    answer = denials("api", required_scope="read")[DenialReason.NO_CREDENTIALS]
    assert (answer.status, answer.body) == (401, b'{"message":"Unauthorized"}')
    assert field(answer, b"www-authenticate") == b'Bearer realm="api"'


def test_malformed_credentials():
    """N2, N3, N9: 400 invalid_request, never a redirect."""
    answer = denials("api", unauthorized_redirect="https://login.test")[DenialReason.MALFORMED_CREDENTIALS]
    assert (answer.status, answer.body) == (400, b'{"message":"Bad Request"}')
    assert field(answer, b"www-authenticate") == b'Bearer realm="api", error="invalid_request"'


@pytest.mark.parametrize("reason", OF_THE_TOKEN)
def test_a_token_that_is_not_good(reason):
    """N9, N18: the client learns the class, the log the reason."""
    answer = denials("api", required_scope="read", route="orders")[reason]
    assert (answer.status, answer.body) == (401, b'{"message":"Unauthorized"}')
    assert field(answer, b"www-authenticate") == b'Bearer realm="api", error="invalid_token"'
    assert (answer.reason, answer.route) == (reason, "orders")


@pytest.mark.parametrize("reason", OF_THE_RIGHTS)
def test_a_token_that_is_not_enough(reason):
    """N9: 403 with the scope that would do, the same for every reason."""
    answer = denials("api", required_scope="read write")[reason]
    assert (answer.status, answer.body) == (403, b'{"message":"Forbidden"}')
    challenge = b'Bearer realm="api", error="insufficient_scope", scope="read write"'
    assert field(answer, b"www-authenticate") == challenge


def test_there_is_an_answer_to_every_denial():
    """N8, N9: the table is complete and every 401 carries a challenge."""
    table = denials("api")
    assert set(table) == set(DenialReason)
    assert all(field(answer, b"www-authenticate") for answer in table.values())


def test_a_route_without_scopes():
    """N9: nothing is said about scope where none is required."""
    answer = denials("api")[DenialReason.GROUP]
    assert field(answer, b"www-authenticate") == b'Bearer realm="api", error="insufficient_scope"'


def test_error_codes_are_not_exposed():
    """N8: the switch leaves the realm only."""
    table = denials("api", required_scope="read", expose_error_code=False)
    assert {field(answer, b"www-authenticate") for answer in table.values()} == {b'Bearer realm="api"'}


def test_messages_of_the_operator():
    """N9: the text of 401 and 403 is a setting."""
    table = denials("api", unauthorized_message="Wer da?", forbidden_message='Nein, "nie"')
    assert json.loads(table[DenialReason.EXPIRED].body) == {"message": "Wer da?"}
    assert json.loads(table[DenialReason.SCOPE].body) == {"message": 'Nein, "nie"'}


def test_a_redirect_instead():
    """N9: 302 where the operator wants one, each class its own."""
    table = denials("api", unauthorized_redirect="https://login.test/?a=b%20c", forbidden_redirect="/sorry")
    assert table[DenialReason.NO_CREDENTIALS].status == 302
    assert field(table[DenialReason.EXPIRED], b"location") == b"https://login.test/?a=b%20c"
    assert field(table[DenialReason.SCOPE], b"location") == b"/sorry"
    assert field(table[DenialReason.SCOPE], b"www-authenticate") is None


def test_a_redirect_with_a_line_break():
    """N67: no character of a setting ends the line."""
    answer = denials("api", unauthorized_redirect="/a\r\nX-Admin: é")[DenialReason.EXPIRED]
    assert field(answer, b"location") == b"/a%0D%0AX-Admin:%20%C3%A9"


@given(realm=st.text(), scope=st.text())
def test_any_realm_and_scope(realm, scope):
    """N8: whatever a setting holds, each attribute stands once and in its own quotes."""
    answer = denials(realm, required_scope=scope)[DenialReason.SCOPE]
    challenge = field(answer, b"www-authenticate")
    assert all(0x20 <= octet <= 0x7E for octet in challenge)
    text = challenge.decode().replace("\\\\", "").replace('\\"', "")
    attributes = text.removeprefix("Bearer ").split('"')
    assert attributes[0::2][:2] == ["realm=", ", error="]
    assert len(attributes) in {5, 7}
    parse(render(answer, date=DATE, keep_alive=True, method="GET"))


@pytest.mark.parametrize("kind", Cannot)
def test_the_identity_provider_cannot_be_asked(kind):
    """N17, T39: 503 with Retry-After and no challenge, whatever the cause; the cause is not told."""
    answer = introspection_failed(IntrospectionError(kind, "status 401 of idp.test"), "orders")
    assert answer.status == 503
    assert field(answer, b"retry-after") == b"1"
    assert field(answer, b"www-authenticate") is None
    assert (answer.reason, answer.route) == (kind, "orders")
    assert b"idp" not in render(answer, date=DATE, keep_alive=True, method="GET")


@pytest.mark.parametrize(
    ("stated", "sent"),
    [(0.0, b"1"), (2.1, b"3"), (90.0, b"90"), (1e300, b"3600"), (math.inf, b"3600"), (math.nan, b"1"), (-5.0, b"1")],
)
def test_the_identity_provider_asks_to_wait(stated, sent):
    """N85: what it stated is passed on in whole seconds, within bounds."""
    error = IntrospectionError(Cannot.UNAVAILABLE, "x", retry_after=stated)
    assert field(introspection_failed(error), b"retry-after") == sent
    assert int(sent) <= RETRY_AFTER_MAX


def test_many_are_asked_to_wait_at_once():
    """N17, N85: within a second they get the same answer, made once; another route or another cause has its own."""
    first, later, longer = (IntrospectionError(Cannot.OVERLOADED, "x", retry_after=wait) for wait in (2.9, 2.1, 3.1))
    assert introspection_failed(first, "orders") is introspection_failed(later, "orders")
    others = (introspection_failed(longer, "orders"), introspection_failed(first, "other"))
    others += (introspection_failed(IntrospectionError(Cannot.TIMEOUT, "x", retry_after=2.9), "orders"),)
    assert len({introspection_failed(first, "orders"), *others}) == 4


@pytest.mark.parametrize(
    ("stage", "status"),
    [
        (Stage.SELECT, 503),
        (Stage.CONNECT, 502),
        (Stage.CONNECT_TIMEOUT, 504),
        (Stage.SEND, 502),
        (Stage.HEAD_TIMEOUT, 504),
        (Stage.HEAD, 502),
        (Stage.BODY, 502),
        (Stage.BODY_TIMEOUT, 504),
        (Stage.REQUEST_BODY, 400),
    ],
)
def test_forwarding_failed_upstream(stage, status):
    """N85, N90: 502, 504 or 503; only 503 asks to come again, and no address is told."""
    answer = forward_failed(ForwardError(Side.UPSTREAM, stage, "10.0.0.1:80 refused"), "orders")
    assert (answer.status, answer.reason, answer.route) == (status, stage, "orders")
    assert (field(answer, b"retry-after") is not None) == (status == 503)
    assert b"10.0.0.1" not in render(answer, date=DATE, keep_alive=False, method="GET")


@pytest.mark.parametrize(("stage", "status"), [(Stage.REQUEST_BODY, 400), (Stage.BODY_TIMEOUT, 408)])
def test_forwarding_failed_downstream(stage, status):
    """N55: a body that broke or stalled is the client's fault."""
    assert forward_failed(ForwardError(Side.DOWNSTREAM, stage, "x")).status == status


@pytest.mark.parametrize("status", [400, 413, 414, 417, 431, 501, 505])
def test_a_head_that_is_refused(status):
    """N36-N52: the status is the error's, the detail stays inside."""
    answer = head_refused(HeadError(status, "two Host lines"))
    assert (answer.status, answer.reason) == (status, "request_head")
    assert b"Host" not in answer.body
