"""The npm package oidc-provider (a certified OpenID provider) as a process: `oidc_provider/server.mjs`."""

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support import cache
from tests.support.client import Answer, fetch
from tests.support.process import Process, free_port, scratch

HERE = Path(__file__).parent / "oidc_provider"
SECRET = "gateway-secret-for-tests"
ODD_SECRET = "odd:+ %&=/secret"
"""Of the clients `fastgate:odd` and `fastgate:odd-post`: only right when both parts are form-encoded."""


def modules() -> Path:
    """Return the folder with `node_modules`, installing it once per lock file; raises cache.Missing."""
    node = cache.tool("node", "the tests need Node.js 20 or newer (Debian: apt-get install nodejs)")
    version = cache.run("Node.js does not start", node, "--version").strip()
    if int(version.lstrip("v").split(".")[0]) < 20:
        raise cache.Missing(f"oidc-provider needs Node.js 20 or newer, here is {version}")
    return cache.npm_modules(HERE, "oidc-provider")


class OidcProvider:
    """The identity provider on one port for its whole life; tokens live through `stop` and `start`."""

    def __init__(self) -> None:
        self.modules = modules()
        self.port = free_port()
        self.state = scratch("oidc-provider-state") / "state.json"
        self.process: Process | None = None
        self.start()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, again too; blocks until it serves."""
        process = Process(
            "oidc-provider",
            ["node", str(HERE / "server.mjs"), str(self.modules), str(self.port), str(self.state)],
        )
        process.wait_until(lambda: b'{"ready":true' in process.out.read_bytes())
        self.process = process

    def stop(self) -> None:
        """Stop: connections are refused until `start`."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def suspend(self) -> None:
        """Hang: connections are accepted, nothing is answered until `resume`."""
        assert self.process is not None
        self.process.suspend()

    def resume(self) -> None:
        """Go on after `suspend`."""
        assert self.process is not None
        self.process.resume()

    async def token(
        self,
        *,
        scope: str = "read",
        audience: str | None = None,
        expires: int = 600,
        claims: dict[str, Any] | None = None,
    ) -> str:
        """Mint an opaque access token by the client credentials grant; `claims` join the introspection answer."""
        form = {"grant_type": "client_credentials", "scope": scope}
        if audience is not None:
            form["resource"] = f"urn:fastgate:{audience}"
        answer = await self._post(
            "/token", form, ("X-Test-Expires", str(expires)), ("X-Test-Claims", json.dumps(claims or {}))
        )
        token: str = json.loads(answer.body)["access_token"]
        return token

    async def revoke(self, token: str) -> None:
        """Revoke a token (RFC 7009)."""
        await self._post("/token/revocation", {"token": token})

    async def logout(self, uri: str, *, sub: str, sid: str | None = None) -> Any:
        """Log somebody out: a logout token of the client `app` to `uri`; returns the status it got there."""
        named = {"uri": uri, "sub": sub} | ({} if sid is None else {"sid": sid})
        answer = await fetch(self.port, "POST", f"/__logout?{urlencode(named)}", body=b"")
        return json.loads(answer.body)["status"]

    async def introspections(self) -> int:
        """Count the questions received at the introspection endpoint since the very first start."""
        return (await self.counts())["introspection"]

    async def counts(self) -> dict[str, int]:
        """Count the requests by endpoint: introspection, discovery, token, revocation."""
        counts: dict[str, int] = json.loads((await fetch(self.port, "GET", "/__counts")).body)
        return counts

    async def _post(self, path: str, form: dict[str, str], *fields: tuple[str, str]) -> Answer:
        basic = base64.b64encode(b"app:app-secret-for-tests").decode()
        answer = await fetch(
            self.port,
            "POST",
            path,
            ("Authorization", f"Basic {basic}"),
            ("Content-Type", "application/x-www-form-urlencoded"),
            *fields,
            body=urlencode(form).encode(),
            host=f"127.0.0.1:{self.port}",
        )
        assert answer.status == 200, answer
        return answer
