"""The demo's cast: a development identity provider, an echo service, and the real gateway in front of both."""

import asyncio
import json
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web

from fastgate.app import App
from fastgate.config.compile import compile_snapshot
from fastgate.config.load import load
from fastgate.demo.clients import Client
from fastgate.demo.echo import echo_application
from fastgate.demo.idp import AuthorizationServer, User
from fastgate.errors import StartError
from fastgate.model import Snapshot

GATEWAY: Final = "fastgate"
"""The gateway's client name at the identity provider, and the audience of every token."""
CLIENT: Final = "demo-app"
CLIENT_SECRET: Final = "demo-secret"  # noqa: S105 - printed for everyone to use; good on this machine only
USER: Final = "alex"
PASSWORD: Final = "doe"  # noqa: S105 - likewise
READY: Final = 10.0
"""Seconds the gateway may take to reach the identity provider beside it."""
SCOPES: Final = frozenset({"demo:read", "demo:admin"})

_FILE: Final = """\
listen: {listen}
admin: {{listen: "127.0.0.1:0"}}    # metrics, revocation; port 0: any free one

identity_providers:
  demo:
    issuer: {issuer}
    client_id: {client_id}
    client_secret: ${{file:client_secret}}    # beside this one

services:
  - name: echo
    url: {echo}
    routes:
      - name: anything
        paths: [/anything]
        auth:
          scopes_required: ["demo:read"]
          audience_required: [{client_id}]
          upstream_headers: [{{header: X-Auth-Subject, path: [sub]}}]
      - name: admin
        paths: [/admin]
        auth: {{scopes_required: ["demo:admin"]}}
      - name: public
        paths: [/public, /status, /stream, /sse]
        auth: none                  # public is said, never assumed

limits: {{drain_timeout: 1s}}         # so that Ctrl-C is quick
log: {{format: console, access: {access}}}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is running, and where."""

    issuer: AuthorizationServer = field(repr=False)
    gateway: str
    """URL without a trailing slash; so are the others."""
    admin: str
    idp: str
    echo: str
    file: Path
    text: str
    """Of the file."""

    def token(self, scope: str) -> str:
        """Issue a fresh access token to the demo's client."""
        return self.issuer.issue(CLIENT, scope)


@asynccontextmanager
async def staged(listen: str, *, access_log: bool) -> AsyncIterator[Scene]:
    """Start everything, stop everything. Raises StartError, and ConfigError when `listen` is no address."""
    async with AsyncExitStack() as stack:
        secret = secrets.token_urlsafe(32)
        issuer = AuthorizationServer(
            {GATEWAY: Client(secret, introspects=True), CLIENT: Client(CLIENT_SECRET, SCOPES)},
            {USER: User(PASSWORD, subject="alex-1")},
        )
        issuer.issuer = await stack.enter_async_context(serving(issuer.application()))
        echo = await stack.enter_async_context(serving(echo_application()))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastgate-demo-")))
        text = configuration(listen, issuer.issuer, echo, access_log=access_log)
        file = _write(directory, text, secret)
        app = App(_loader(file))
        await app.start()
        stack.push_async_callback(app.drain)
        await until_ready(app)
        admin = app.admin_address or ("", 0)  # the file above has an admin listener
        yield Scene(
            issuer,
            gateway=url(*app.addresses[0]),
            admin=url(*admin),
            idp=issuer.issuer,
            echo=echo,
            file=file,
            text=text,
        )


async def until_ready(app: App) -> None:
    """Let the gateway meet the identity provider first: its question must not count as one of the demo's."""
    try:
        async with asyncio.timeout(READY):
            while app.readiness():  # noqa: ASYNC110 - readiness is asked for, it does not tell
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise StartError(f"the gateway is not ready after {READY:.0f} s: {'; '.join(app.readiness())}") from None


def configuration(listen: str, issuer: str, echo: str, *, access_log: bool) -> str:
    """Write the gateway's file."""
    return _FILE.format(
        listen=listen if re.fullmatch(r"[A-Za-z0-9.-]+:[0-9]+", listen) else json.dumps(listen),
        issuer=issuer,
        echo=echo,
        client_id=GATEWAY,
        access=str(access_log).lower(),
    )


@asynccontextmanager
async def serving(application: web.Application) -> AsyncIterator[str]:
    """Serve an application on a free loopback port; yields its URL."""
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield url(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


def url(host: str, port: int) -> str:
    """Write where something listens as a URL that a client on this machine can use."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - read, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _loader(file: Path) -> Callable[[], Snapshot]:
    return lambda: compile_snapshot(load(str(file), os.environ))


def _write(directory: Path, text: str, secret: str) -> Path:
    """Write the file and the secret beside it; the directory is the user's own."""
    (directory / "client_secret").write_text(secret)
    file = directory / "fastgate.yaml"
    file.write_text(text)
    return file
