"""`fastgate demo --once`: five requests that show what the gateway promises, each with its answer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from aiohttp import ClientSession
from rich.console import Console
from rich.text import Text

from fastgate.demo.scene import CLIENT, CLIENT_SECRET, Scene


class Answer(NamedTuple):
    """What came back, and how often the identity provider was asked meanwhile."""

    status: int
    challenge: str
    introspections: int


class Promise(NamedTuple):
    """What must come back."""

    status: int
    introspections: int
    challenge: tuple[str, ...] = ()
    """Every one of these stands in WWW-Authenticate."""

    def kept_by(self, answer: Answer) -> bool:
        """Whether the answer is as promised."""
        return (
            answer.status == self.status
            and answer.introspections == self.introspections
            and all(part in answer.challenge for part in self.challenge)
        )


class Walk:
    """Goes through the steps and remembers which promises were broken."""

    def __init__(self, scene: Scene, session: ClientSession, console: Console) -> None:
        self._scene = scene
        self._session = session
        self._console = console
        self.broken: list[str] = []

    async def all(self) -> list[str]:
        """Take every step; returns the names of those that did not go as promised."""
        token = self._scene.token("demo:read")
        await self._step("missing", "no token", "/anything", None, Promise(401, 0, ("Bearer",)))
        await self._step("good", "a fresh token with demo:read", "/anything", token, Promise(200, 1))
        await self._step("cached", "the same token again", "/anything", token, Promise(200, 0))
        await self._step(
            "wrong scope",
            "the same token where demo:admin is needed",
            "/admin",
            token,
            Promise(403, 0, ('error="insufficient_scope"', 'scope="demo:admin"')),
        )
        await self._revoke(token)
        await self._step(
            "revoked",
            "the same token, revoked meanwhile",
            "/anything",
            token,
            Promise(401, 0, ('error="invalid_token"',)),
        )
        return self.broken

    async def _step(self, name: str, about: str, path: str, token: str | None, promise: Promise) -> None:
        """Send one request, print it with its answer, compare."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        before = self._scene.issuer.introspections
        async with self._session.get(self._scene.gateway + path, headers=headers) as response:
            await response.read()
            answer = Answer(
                response.status,
                ", ".join(response.headers.getall("WWW-Authenticate", [])),
                self._scene.issuer.introspections - before,
            )
        self._heading(name, about)
        self._say(f"GET {path}", *(f"{key}: {shortened(value)}" for key, value in headers.items()))
        self._say(f"{answer.status}", *([f"WWW-Authenticate: {answer.challenge}"] * bool(answer.challenge)), sign="<")
        self._say(f"introspections: {answer.introspections}", sign=" ")
        if not promise.kept_by(answer):
            self._broken(name, f"expected {promise}, got {answer}")

    async def _revoke(self, token: str) -> None:
        """Revoke the token at the identity provider, and tell the gateway at once."""
        self._heading("revoke", "at the identity provider, then pushed to the gateway's admin listener")
        form = {"token": token, "client_id": CLIENT, "client_secret": CLIENT_SECRET}
        await self._post(f"{self._scene.idp}/revoke", {"data": form})
        await self._post(f"{self._scene.admin}/tokens/revoke", {"json": {"token": token}})

    async def _post(self, url: str, what: Mapping[str, Any]) -> None:
        async with self._session.post(url, **what) as response:
            body = await response.text()
        self._say(f"POST {url}")
        self._say(f"{response.status} {body.strip()}", sign="<")
        if response.status != 200:  # noqa: PLR2004 - the promise
            self._broken("revoke", f"{url} answered {response.status}")

    def _heading(self, name: str, about: str) -> None:
        self._console.print(Text.assemble(("\n" + name, "bold"), f": {about}"))

    def _say(self, *lines: str, sign: str = ">") -> None:
        for line in lines:
            self._console.print(Text(f"  {sign} {line}"), soft_wrap=True)

    def _broken(self, name: str, why: str) -> None:
        self.broken.append(name)
        self._console.print(Text(f"  not as promised: {why}", "bold red"), soft_wrap=True)


def shortened(value: str) -> str:
    """Show only the beginning of a credential."""
    scheme, _, token = value.partition(" ")
    return f"{scheme} {token[:6]}..."
