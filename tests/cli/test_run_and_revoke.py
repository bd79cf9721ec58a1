"""`run` and `revoke`: how they start, how they fail, how they end."""

import asyncio
import signal
import socket
import sys

import pytest

from tests.support.client import fetch
from tests.support.gateway import Gateway
from tests.support.process import Process, answers, free_port
from tests.support.upstream import Upstream

from .conftest import ENVIRON, ROOT, SECRET

TOKEN = "t0ken-of-alex"


async def test_run_without_a_file(idp, upstream_port, tmp_path):
    """ISSUER, CLIENT_ID, CLIENT_SECRET and --upstream are enough; SIGTERM drains and ends with 0."""
    idp.tokens[TOKEN] = {"sub": "alex"}
    port = free_port()
    command = [sys.executable, "-m", "fastgate", "run"]
    command += ["--upstream", f"http://127.0.0.1:{upstream_port}", "--listen", f"127.0.0.1:{port}"]
    environ = ENVIRON | {"ISSUER": idp.issuer, "PYTHONPATH": str(ROOT)}
    process = Process("run", command, cwd=tmp_path, env=environ)
    try:
        await asyncio.to_thread(process.wait_until, lambda: answers(port), 30.0)
        assert (await fetch(port, "GET", "/x")).status == 401
        assert (await fetch(port, "GET", "/x", ("Authorization", f"Bearer {TOKEN}"))).status == 200
    finally:
        status = await process.stopped()
    assert status == 0
    assert SECRET not in process.tail(1 << 30)


async def test_run_without_a_file_and_without_its_variables(process):
    """Every variable that is missing, and what else is wrong, at once; status 1."""
    ended = await process("run", "--upstream", "127.0.0.1:9", CLIENT_ID="gate")
    assert ended.status == 1
    assert [line.split(": ")[1] for line in ended.err.splitlines()] == ["ISSUER", "CLIENT_SECRET", "--upstream"]


async def test_a_port_in_use(process, file):
    """One sentence that says what to do, status 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file.write_text(file.read_text() + f"listen: 127.0.0.1:{port}\nadmin: false\n")
        ended = await process("run", "-c", file, **ENVIRON)
    assert ended.status == 1
    [sentence] = [line for line in ended.err.splitlines() if line.startswith("fastgate: ")]
    assert f"cannot listen on 127.0.0.1:{port}" in sentence
    assert "Traceback" not in ended.err


async def test_an_interrupt_ends_it_as_well(file, tmp_path):
    """Ctrl-C drains like SIGTERM, once it serves."""
    port = free_port()
    file.write_text(file.read_text() + f"listen: 127.0.0.1:{port}\nadmin: false\n")
    command = [sys.executable, "-m", "fastgate", "run", "-c", str(file)]
    process = Process("run", command, cwd=tmp_path, env=ENVIRON | {"PYTHONPATH": str(ROOT)})
    await asyncio.to_thread(process.wait_until, lambda: "serving" in process.tail(), 30.0)
    process.signal(signal.SIGINT)
    await asyncio.to_thread(process.wait_until, lambda: process.exit_code is not None, 30.0)
    assert process.exit_code == 0


class TestRevoke:
    @pytest.fixture
    async def gateway(self, idp, upstream_port):
        """A gateway whose admin listener wants a token."""
        config = {
            "identity_providers": {"idp": {"issuer": idp.issuer, "client_id": "gate", "client_secret": SECRET}},
            "services": [
                {"name": "api", "url": f"http://127.0.0.1:{upstream_port}", "routes": [{"name": "all", "paths": ["/"]}]}
            ],
        }
        async with Gateway(config) as running:
            yield running

    @pytest.mark.parametrize("what", [[], ["--sub", "alex"], ["--client-id", "app"], ["--sid", "s1"], ["--all"]])
    async def test_what_is_revoked_is_refused_from_then_on(self, process, thread, gateway, idp, what):
        """T24: by token (on standard input), subject, client, session, or all."""
        idp.tokens[TOKEN] = {"sub": "alex", "client_id": "app", "sid": "s1"}
        assert (await gateway.get("/", token=TOKEN)).status == 200
        admin = f"http://127.0.0.1:{gateway.admin_port}"
        start = thread if what else process
        ended = await start("revoke", *what, "--admin", admin, stdin=b"" if what else TOKEN.encode())
        assert (ended.status, ended.out) == (0, "revoked 1\n"), ended
        assert (await gateway.get("/", token=TOKEN)).status == 401
        assert TOKEN not in ended.out + ended.err

    async def test_a_proxy_in_the_environment_never_sees_the_token(self, thread, gateway):
        """The token goes to the admin listener and nowhere else."""
        environ = {"http_proxy": f"http://127.0.0.1:{free_port()}"}
        admin = f"http://127.0.0.1:{gateway.admin_port}"
        ended = await thread("revoke", "--admin", admin, stdin=TOKEN.encode(), **environ)
        assert ended.status == 0, ended

    async def test_the_admin_token(self, thread, idp, upstream_port, tmp_path):
        """T13: without it the listener refuses and the command says which option is missing."""
        config = {
            "identity_providers": {"idp": {"issuer": idp.issuer, "client_id": "gate", "client_secret": SECRET}},
            "services": [{"name": "a", "url": f"http://127.0.0.1:{upstream_port}", "routes": [{"paths": ["/"]}]}],
        }
        gateway = Gateway(config)
        gateway.config["admin"] = {"listen": f"127.0.0.1:{gateway.admin_port}", "token": "adm1n"}
        (tmp_path / "admin").write_text("adm1n\n")
        async with gateway:
            admin = ["--admin", f"http://127.0.0.1:{gateway.admin_port}"]
            refused = await thread("revoke", "--all", *admin)
            assert refused.status == 1
            assert refused.err == "fastgate: the admin listener wants its token; give --admin-token-file\n"
            ended = await thread("revoke", "--all", *admin, "--admin-token-file", tmp_path / "admin")
            assert ended.status == 0, ended

    async def test_nobody_answers(self, thread):
        """One sentence, status 1."""
        port = free_port()
        ended = await thread("revoke", "--all", "--admin", f"http://127.0.0.1:{port}")
        assert ended.status == 1
        sentence = (
            f"cannot reach the admin listener at http://127.0.0.1:{port}: Connection refused; is the gateway running?"
        )
        assert ended.err == f"fastgate: {sentence}\n"

    async def test_something_else_answers(self, thread):
        """What is no fastgate is told apart; its text is not repeated; redirects are not followed."""
        for body, said in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "is not the admin listener of fastgate"),
            (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "answered 302"),
            (b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nhi", "answered 503: check --admin"),
            (b"garbage\r\n\r\n", "no answer that is HTTP"),
        ):
            async with Upstream() as other:
                other.will(body)
                ended = await thread("revoke", "--admin", other.url, stdin=TOKEN.encode())
            assert ended.status == 1
            assert said in ended.err
            assert TOKEN not in ended.err

    async def test_the_admin_ca_file(self, thread, tmp_path):
        """A file without certificates is one sentence."""
        (tmp_path / "ca.pem").write_text("none")
        ended = await thread("revoke", "--all", "--admin-ca-file", tmp_path / "ca.pem")
        assert (ended.status, ended.err) == (
            1,
            "fastgate: the file given with --admin-ca-file holds no usable certificates\n",
        )
