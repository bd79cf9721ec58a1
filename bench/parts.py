"""The parts of a measurement, each a process: origin, identity provider, nginx and fastgate as proxies."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from bench.machine import LOAD_CORE, PROXY_CORE, ROOT
from bench.settings import gateway_config
from tests.support.process import Process, answers, free_port, scratch

_NGINX = """\
{user}worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    client_max_body_size 0;
{http}
}}
"""
_HELLO = """\
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ default_type application/json; return 200 '{body}'; }}
    }}"""
_PROXY = """\
    upstream origin {{
        server 127.0.0.1:{origin};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}"""
HELLO = json.dumps({"message": "hello from the origin of the bench", "padding": "x" * 21})
"""The small answer: 85 octets."""


class Part(NamedTuple):
    """A running part."""

    port: int
    pid: int
    """Also its process group."""


@contextmanager
def hello_origin() -> Iterator[Part]:
    """Run an nginx that answers everything with HELLO."""
    port = free_port()
    yield from _nginx("origin", _HELLO.format(port=port, body=HELLO), port, LOAD_CORE)


@contextmanager
def nginx_proxy(origin: Part) -> Iterator[Part]:
    """Run the peer: bare nginx, kept-alive upstream connections, bodies streamed and never written to disk."""
    port = free_port()
    yield from _nginx("nginx", _PROXY.format(port=port, origin=origin.port), port, PROXY_CORE)


@contextmanager
def stub(name: str, *arguments: str) -> Iterator[Part]:
    """Run `python -m bench.stubs.NAME`."""
    port = free_port()
    command = [sys.executable, "-m", f"bench.stubs.{name}", str(port), *arguments]
    yield from _running(name, command, port, LOAD_CORE)


@contextmanager
def fastgate(
    origin: Part,
    idp: Part,
    *,
    name: str = "fastgate",
    access_log: bool = False,
    interpreter: tuple[str, ...] = (sys.executable,),
    limits: Mapping[str, Any] | None = None,
    tree: Path = ROOT,
) -> Iterator[Part]:
    """Run the gateway of a checkout, with one protected route; its access log, if any, is JSON in a file."""
    port = free_port()
    file = scratch("bench") / "fastgate.yaml"
    config = gateway_config(port=port, origin=origin.port, idp=idp.port, access_log=access_log, limits=limits)
    file.write_text(json.dumps(config))  # JSON is YAML
    yield from _running(name, [*interpreter, "-m", "fastgate", "run", "-c", str(file)], port, PROXY_CORE, tree)


def questions(idp: Part) -> int:
    """Count the questions the identity provider was asked."""
    with urlopen(f"http://127.0.0.1:{idp.port}/questions", timeout=10) as answer:
        return int(answer.read())


def _nginx(name: str, http: str, port: int, core: int) -> Iterator[Part]:
    folder = scratch(f"bench-{name}")
    file = folder / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    file.write_text(_NGINX.format(user=user, folder=folder, http=http))
    yield from _running(name, ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(file)], port, core)


def _running(name: str, command: list[str], port: int, core: int, tree: Path = ROOT) -> Iterator[Part]:
    # What this Python can import, its children can, wherever it found it.
    environment = {"PYTHONPATH": os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])}
    process = Process(name, ["taskset", "-c", str(core), *command], cwd=Path("/"), env=environment)
    try:
        process.wait_until(lambda: answers(port))
        yield Part(port, process.pid)
        if process.exit_code is not None:
            raise RuntimeError(f"{name} ended with {process.exit_code} while it was measured\n{process.tail()}")
        process.stop(10)
    finally:
        process.kill()
