"""The demo as a person runs it: real gateway, real sockets, real signals."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from aiohttp import ClientSession
from rich.console import Console

from fastgate.app import App
from fastgate.config.compile import compile_snapshot
from fastgate.config.load import load
from fastgate.demo import run
from fastgate.demo import scene as scene_module
from fastgate.demo.echo import echo_application
from fastgate.demo.run import run_demo
from fastgate.demo.scene import Scene, configuration, serving, staged, until_ready, url
from fastgate.demo.walk import Walk
from fastgate.errors import StartError

ROOT = Path(__file__).resolve().parents[2]


def test_once(own_event_log, capsys):
    """N24, N37: missing, good, cached, wrong scope, revoked; each printed with its answer; no whole token."""
    assert run_demo(once=True) == 0
    said = capsys.readouterr().out
    steps = re.findall(r"(?m)^(\w[\w ]*): .*\n(?:  > .*\n)+  < (\d+)", said)
    assert steps == [
        ("missing", "401"),
        ("good", "200"),
        ("cached", "200"),
        ("wrong scope", "403"),
        ("revoke", "200"),
        ("revoked", "401"),
    ]
    assert re.findall(r"introspections: (\d)", said) == ["0", "1", "0", "0", "0"]
    assert said.endswith("all as promised\n")
    assert re.findall(r"Bearer \S{20,}", said) == []


async def test_promises_that_are_broken(own_event_log):
    """A gateway that lets everything through fails every step that has something to refuse."""
    async with staged("127.0.0.1:0", access_log=False) as scene, serving(echo_application()) as anything_goes:
        broken = Scene(
            scene.issuer,
            gateway=anything_goes,
            admin=scene.admin,
            idp=scene.idp,
            echo=scene.echo,
            file=scene.file,
            text=scene.text,
        )
        async with ClientSession() as session:
            steps = await Walk(broken, session, Console(quiet=True)).all()
    assert steps == ["missing", "good", "wrong scope", "revoked"]


async def test_a_revocation_that_nobody_takes(own_event_log):
    """A push that is not acknowledged is a broken promise, whatever comes after it."""
    async with staged("127.0.0.1:0", access_log=False) as scene, serving(echo_application()) as elsewhere:
        broken = Scene(
            scene.issuer,
            gateway=scene.gateway,
            admin=f"{elsewhere}/status/503?not=",
            idp=scene.idp,
            echo=scene.echo,
            file=scene.file,
            text=scene.text,
        )
        async with ClientSession() as session:
            steps = await Walk(broken, session, Console(quiet=True)).all()
    assert steps == ["revoke", "revoked"]


@pytest.mark.parametrize(("broken", "status"), [([], 0), (["good", "cached"], 1)])
def test_the_exit_status(capsys, broken, status):
    """1 when a promise was broken, and which."""
    assert run._verdict(Console(), broken) == status
    said = capsys.readouterr()
    assert ("all as promised" in said.out) == (not broken)
    assert all(step in said.err for step in broken)


async def test_an_identity_provider_that_does_not_come(own_event_log, tmp_path, monkeypatch):
    """The demo does not start walking before the gateway is ready; it says what is missing and cleans up."""
    monkeypatch.setattr(scene_module, "READY", 0.0)
    (tmp_path / "client_secret").write_text("secret")
    file = tmp_path / "fastgate.yaml"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        there = url(*nobody.getsockname())
        file.write_text(configuration("127.0.0.1:0", there, there, access_log=False))
        app = App(lambda: compile_snapshot(load(str(file), {})))
        await app.start()
        try:
            with pytest.raises(StartError, match="identity provider demo"):
                await until_ready(app)
        finally:
            await app.stop()


def test_a_port_that_is_taken(own_event_log, capsys):
    """One sentence that says what to do, exit status 1."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert run_demo(once=False, listen=f"127.0.0.1:{port}") == 1
    told = capsys.readouterr().err
    assert told.startswith(f"fastgate demo: cannot listen on 127.0.0.1:{port}: ")
    assert told.count("\n") == 1


def test_an_address_that_is_none(own_event_log, capsys):
    assert run_demo(once=False, listen="not an address: {") == 1
    assert capsys.readouterr().err.startswith("fastgate demo: listen: must be host:port")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_until_it_is_stopped(number):
    """The printed lines work as printed; a signal ends it with 0 and leaves nothing behind."""
    program = "from fastgate.demo import run; raise SystemExit(run.run_demo(once=False, listen='127.0.0.1:0'))"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "80"}
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Ctrl-C"):
            break
    file = Path(lines[0])
    text = file.read_text()
    curls = [line.strip() for line in lines if line.startswith("    curl -i ")]
    statuses = [curl(command) for command in curls]
    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert statuses == ["401", "200", "403"]
    assert "stopping" in rest
    assert re.findall(r"(?m)^\S+Z (\d+) GET", rest) == statuses
    assert not file.parent.exists()
    printed = "\n".join(line.rstrip() for line in lines)
    assert text.strip() in printed


def curl(command: str) -> str:
    """The status that a printed line gets, without needing curl."""
    words = shlex.split(command)
    headers = dict([words[words.index("-H") + 1].split(": ", 1)]) if "-H" in words else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(words[-1], headers=headers)) as response:
            return str(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return str(error.code)


@pytest.mark.parametrize("listen", ["127.0.0.1:8000", "[::1]:8000", ":8000", "localhost:0"])
def test_the_file(tmp_path, listen):
    """What people see is a file that the real loader takes."""
    (tmp_path / "client_secret").write_text("secret")
    file = tmp_path / "fastgate.yaml"
    file.write_text(configuration(listen, "http://127.0.0.1:1", "http://127.0.0.1:2", access_log=True))
    snapshot = compile_snapshot(load(str(file), {}))
    assert {route.name: route.access is None for route in snapshot.routes} == {
        "anything": False,
        "admin": False,
        "public": True,
    }


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
    ],
)
def test_where_to_reach_it(host, written):
    assert url(host, 80) == written
