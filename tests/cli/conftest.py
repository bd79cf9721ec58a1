"""The command in this process, and as a process of its own."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner, Result

from fastgate.cli.main import app
from tests.support.idp import Idp
from tests.support.upstream import Upstream

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hunter2-of-the-client"
ENVIRON = {"ISSUER": "https://idp.invalid/realms/a", "CLIENT_ID": "gate", "CLIENT_SECRET": SECRET}

FILE = """\
identity_providers:
  idp: {issuer: "${ISSUER}", client_id: "${CLIENT_ID}", client_secret: "${CLIENT_SECRET}", timeout: 10s}
services:
  - name: api
    url: http://127.0.0.1:9/base
    auth: {scopes_required: ["a b", c]}
    routes:
      - {name: locked, paths: [/locked, "~/x/[0-9]+"], methods: [GET, POST], auth: {audience_required: [api]}}
      - {name: by-header, paths: [/h], hosts: [h.example], headers: {X-V: ["2"]}}
      - {name: open, paths: [/open], auth: none}
"""


class Ended(NamedTuple):
    """A process that ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good configuration; its variables must be set."""
    path = tmp_path / "fastgate.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def command() -> Callable[..., Result]:
    """Run a command in this process; output that is not a terminal's."""

    def invoke(*arguments: str, stdin: str = "", **environ: str) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments)], input=stdin, env=ENVIRON | environ)

    return invoke


@pytest.fixture
def thread():
    """Run a command in a thread, so that this test's servers can answer it; quicker than a process."""

    async def run(*arguments: object, stdin: bytes = b"", **environ: str) -> Ended:
        runner = CliRunner()
        result = await asyncio.to_thread(runner.invoke, app, [*map(str, arguments)], input=stdin, env=environ)
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def process():
    """Run `python -m fastgate` to its end."""

    async def run(*arguments: object, stdin: bytes = b"", **environ: str) -> Ended:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fastgate"),
            *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
        )
        out, err = await child.communicate(stdin)
        assert child.returncode is not None
        return Ended(child.returncode, out.decode(), err.decode())

    return run


@pytest.fixture
async def idp():
    """An identity provider of this test's own."""
    async with Idp() as provider:
        yield provider


@pytest.fixture
async def upstream_port():
    """Something that accepts connections."""
    async with Upstream() as upstream:
        yield upstream.port
        upstream.broken.clear()
