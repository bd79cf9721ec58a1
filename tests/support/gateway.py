"""The real gateway as a process: `python -m fastgate run -c FILE`, ready when its admin listener says so.

    async with Gateway({"identity_providers": ..., "services": [...]}) as gateway:
        answer = await gateway.get("/anything", token=token)
        asked = await gateway.metric("fastgate_introspections_total", outcome="active")

`listen` and `admin` are filled in with free loopback ports unless the configuration names them. Leaving the block sends
SIGTERM and asserts that the process ended with 0.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.client import Answer, RawClient, fetch
from tests.support.process import Process, answers, free_port, scratch

ROOT = Path(__file__).resolve().parent.parent.parent


class Gateway:
    """One running gateway."""

    def __init__(self, config: Mapping[str, Any], *, env: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.admin_port = free_port()
        self.events_port = free_port()
        """Free for `events: {listen: ...}`."""
        self.config = {
            "listen": f"127.0.0.1:{self.port}",
            "admin": {"listen": f"127.0.0.1:{self.admin_port}"},
            **config,
        }
        self.folder = scratch("gateway-config")
        self.file = self.folder / "fastgate.yaml"
        self.env = {"PYTHONPATH": str(ROOT), **(env or {})}
        self.process: Process | None = None
        self.last: Process | None = None
        """The process of the latest start, running or not."""

    def write(self, config: Mapping[str, Any] | None = None) -> None:
        """Write the file; with `config`, changed top-level keys for a reload."""
        self.config.update(config or {})
        self.file.write_text(yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))

    async def start(self) -> Self:
        """Start and wait until clients are served (ready or not: the identity provider may be down)."""
        self.write()
        process = self.process = self.last = Process(
            "gateway", [sys.executable, "-m", "fastgate", "run", "-c", str(self.file)], cwd=self.folder, env=self.env
        )
        try:
            await asyncio.to_thread(process.wait_until, lambda: answers(self.admin_port) and answers(self.port), 30.0)
            live = await fetch(self.admin_port, "GET", "/livez")
            assert live.status == 200, live
        except BaseException:
            process.kill()
            raise
        return self

    async def stop(self) -> int:
        """Drain by SIGTERM and return the exit code."""
        assert self.process is not None
        process, self.process = self.process, None
        return await process.stopped()

    async def request(
        self, method: str, target: str, *fields: tuple[str, str], token: str | None = None, body: bytes | None = None
    ) -> Answer:
        """Send one request on a connection of its own, with `Authorization: Bearer` when a token is given."""
        bearer = () if token is None else (("Authorization", f"Bearer {token}"),)
        return await fetch(self.port, method, target, *bearer, *fields, body=body)

    async def get(self, target: str, *fields: tuple[str, str], token: str | None = None) -> Answer:
        """GET on a connection of its own."""
        return await self.request("GET", target, *fields, token=token)

    async def connect(self, **options: Any) -> RawClient:
        """Connect a raw client to the gateway's clients' port."""
        return await RawClient.connect(self.port, **options)

    async def admin(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask the admin listener; `body` is sent as JSON."""
        if body is None:
            return await fetch(self.admin_port, method, path)
        kind = ("Content-Type", "application/json")
        return await fetch(self.admin_port, method, path, kind, body=json.dumps(body).encode())

    async def status(self) -> Any:
        """Return what GET /status says."""
        return json.loads((await self.admin("GET", "/status")).body)

    async def readiness(self) -> tuple[int, Any]:
        """Return status and body of GET /readyz."""
        answer = await self.admin("GET", "/readyz")
        return answer.status, json.loads(answer.body)

    async def ready(self) -> Self:
        """Wait until GET /readyz says 200: the identity providers have answered the gateway's own first questions."""
        process = self.process
        assert process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 60
        while (said := await self.readiness())[0] != 200:
            if loop.time() > deadline:
                raise TimeoutError(f"not ready after 60 s: {said}\n{process.tail()}")
            await asyncio.sleep(0.05)
        return self

    async def revoke(self, **what: Any) -> int:
        """Revoke through the admin API (token, sub, sid, client_id or all=True); returns how many."""
        answer = await self.admin("POST", "/tokens/revoke", what)
        assert answer.status == 200, answer
        revoked: int = json.loads(answer.body)["revoked"]
        return revoked

    async def metric(self, name: str, **labels: str) -> float:
        """Sum every sample of this name whose labels include these; 0.0 when there is none."""
        text = (await self.admin("GET", "/metrics")).body.decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def introspections(self) -> int:
        """Count the questions the gateway has asked, whatever came of them."""
        return int(await self.metric("fastgate_introspections_total"))

    def log(self) -> str:
        """Return everything the gateway wrote to either stream; complete once it was stopped."""
        assert self.last is not None
        return self.last.tail(1 << 30)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self.process
        if process is None:
            return
        if error is not None:
            process.kill()
            error.add_note(process.tail())
            return
        code = await self.stop()
        assert code == 0, f"the gateway ended with {code}\n{process.tail()}"
