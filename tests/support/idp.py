r"""A scriptable identity provider: the recording upstream, with introspection and discovery by default.

    async with Idp() as idp:
        idp.tokens["good"] = {"sub": "alex"}      # active; every other token is answered {"active": false}
        idp.will(RESET)                           # the next *question* gets these steps instead, as in `upstream`
        idp.will(event, idp.truth)                # wait for the event, then answer what is true
        idp.will(says(b"<html>", content_type="text/html"))
        ...
        assert [q.token for q in idp.questions] == ["good"]

Discovery is answered from `idp.metadata`; `None` there is a 404, `idp.will_discover(...)` scripts the next one.
The key set at `idp.jwks_uri` is `idp.keys`; `idp.will_serve_keys(...)` scripts the next request for it.
With `idp.credentials = (client_id, secret)` a question with any other client authentication is answered 401.
"""

import base64
import json
import ssl
from asyncio import sleep
from collections import deque
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_plus

from tests.support.upstream import Conversation, Received, Step, Upstream, answer


class Question(NamedTuple):
    """One introspection request."""

    token: str | None
    form: list[tuple[str, str]]
    request: Received


class Idp(Upstream):
    """An identity provider on loopback; `async with` starts and stops it."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, issuer_path: str = "") -> None:
        super().__init__(tls=tls)
        self.scripts = _Always((self._dispatch,))
        self.issuer_path = issuer_path
        self.tokens: dict[str, dict[str, Any]] = {}
        """Claims of the active tokens."""
        self.credentials: tuple[str, str] | None = None
        self.metadata: dict[str, Any] | None = {}
        """Members that are added to the metadata, or replace what would be there."""
        self.questions: list[Question] = []
        self.discoveries: list[str] = []
        """Paths asked for with GET."""
        self.keys: list[dict[str, Any]] = []
        self.key_requests = 0
        self._scripts: deque[tuple[Step, ...]] = deque()
        self._key_scripts: deque[tuple[Step, ...]] = deque()
        self._discovery_scripts: deque[tuple[Step, ...]] = deque()

    @property
    def issuer(self) -> str:
        return self.url + self.issuer_path

    @property
    def endpoint(self) -> str:
        return self.url + "/introspect"

    @property
    def jwks_uri(self) -> str:
        return self.url + "/keys"

    def will(self, *steps: Step) -> None:
        """Script the answer to the next question."""
        self._scripts.append(steps)

    def will_discover(self, *steps: Step) -> None:
        """Script the answer to the next request for metadata."""
        self._discovery_scripts.append(steps)

    def will_serve_keys(self, *steps: Step) -> None:
        """Script the answer to the next request for keys."""
        self._key_scripts.append(steps)

    async def asked(self, count: int) -> Question:
        """Wait until so many questions were asked; returns the last of them."""
        await self.until(lambda: len(self.questions) >= count, f"question {count}, got {len(self.questions)}")
        return self.questions[count - 1]

    async def truth(self, conversation: Conversation) -> None:
        """Answer the question as the server knows it."""
        token = _form(conversation.request).get("token", "")
        if self.credentials is not None and _client(conversation.request) != self.credentials:
            await conversation.send(says({"error": "invalid_client"}, 401))
        elif token in self.tokens:
            await conversation.send(says({"active": True, **self.tokens[token]}))
        else:
            await conversation.send(says({"active": False}))

    async def _dispatch(self, conversation: Conversation) -> None:
        got = conversation.request
        if got.method == "GET" and got.target == "/keys":
            self.key_requests += 1
            steps = self._key_scripts.popleft() if self._key_scripts else (self._show_keys,)
        elif got.method == "GET":
            self.discoveries.append(got.target)
            steps = self._discovery_scripts.popleft() if self._discovery_scripts else (self._describe,)
        else:
            pairs = parse_qsl(got.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
            self.questions.append(Question(dict(pairs).get("token"), pairs, got))
            steps = self._scripts.popleft() if self._scripts else (self.truth,)
        self.arrived()
        for step in steps:
            await conversation._take(step)
            if conversation.writer.is_closing():
                return

    async def _describe(self, conversation: Conversation) -> None:
        """Serve the metadata where OpenID Connect Discovery 4 says they are."""
        at = self.issuer_path + "/.well-known/openid-configuration"
        if self.metadata is None or conversation.request.target != at:
            await conversation.send(says(b"", 404))
            return
        usual = {"issuer": self.issuer, "introspection_endpoint": self.endpoint, "jwks_uri": self.jwks_uri}
        await conversation.send(says({**usual, **self.metadata}))

    async def _show_keys(self, conversation: Conversation) -> None:
        await conversation.send(says({"keys": self.keys}))


class _Always(deque[tuple[Step, ...]]):
    """The same script for every request."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        super().__init__()
        self._steps = steps

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> tuple[Step, ...]:
        return self._steps


def says(body: Any, status: int = 200, *fields: tuple[str, str], content_type: str = "application/json") -> bytes:
    """Build an answer; anything but octets becomes JSON."""
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer(status, octets, ("Content-Type", content_type), *fields)


async def drip(conversation: Conversation) -> None:
    """Send an answer that never ends, an octet at a time, until the peer has enough."""
    await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n")
    while not conversation.writer.is_closing():
        await conversation.send(b" ")
        await sleep(0.005)


async def flood(conversation: Conversation) -> None:
    """Send an answer of any size, as fast as it is taken, until the peer has enough."""
    await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n{")
    while not conversation.writer.is_closing():
        await conversation.send(b" " * 65536)


def _form(request: Received) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode("ascii"), keep_blank_values=True))


def _client(request: Received) -> tuple[str, str] | None:
    """The client as RFC 6749 section 2.3.1 has it authenticate, by exactly one method."""
    form = _form(request)
    authorization = request.one("authorization")
    if authorization is None:
        return (form.get("client_id", ""), form.get("client_secret", ""))
    if "client_secret" in form or not authorization.startswith("Basic "):
        return None
    identity, _, secret = base64.b64decode(authorization[6:], validate=True).decode("ascii").partition(":")
    return unquote_plus(identity), unquote_plus(secret)
