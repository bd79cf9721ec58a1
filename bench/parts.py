"""The processes of a measurement: started on their core, waited for, stopped at the end."""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from bench.machine import LOAD_CORE, PROXY_CORE, ROOT
from bench.usage import worker
from tests.support.process import Process, answers, free_port, scratch

HELLO = json.dumps({"message": "hello from the origin of the bench", "padding": "x" * 21})
"""The small answer: 85 octets."""
_NGINX = """\
{modules}{user}worker_processes 1;
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
    keepalive_timeout 1h;
    client_max_body_size 0;
{http}
}}
"""
_HELLO = """\
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ default_type application/json; return 200 '{body}'; }}
    }}"""
_READER = """\
defaults
    mode http
    timeout client 1h
    timeout server 1h
    timeout connect 5s
    option http-buffer-request
frontend origin
    bind 127.0.0.1:{port} backlog 4096
    http-request return status 200 content-type application/json lf-string "{body}"
"""


class Part(NamedTuple):
    """A running part."""

    port: int
    pid: int
    """Also its process group."""
    questions: str = ""
    """Where the identity provider says how often it was asked by this part."""

    @property
    def worker(self) -> int:
        """The process that serves: fastgate's first worker, where it has any."""
        return worker(self.pid)

    @property
    def asked(self) -> int:
        """Count the questions that the identity provider was asked by this part."""
        if not self.questions:
            return 0
        with urlopen(self.questions, timeout=10) as answer:
            return int(answer.read())


class World(NamedTuple):
    """What a proxy stands between."""

    origin: Part
    idp: Part


def hello_origin() -> AbstractContextManager[Part]:
    """Run an nginx that answers everything with HELLO."""
    port = free_port()
    return nginx("origin", _HELLO.format(port=port, body=HELLO), port, LOAD_CORE)


def reading_origin() -> AbstractContextManager[Part]:
    """Run an HAProxy that reads every request to its end and answers HELLO: nginx's `return` would not wait for it."""
    port = free_port()
    body = HELLO.replace('"', '\\"')
    return haproxy("origin", _READER.format(port=port, body=body), port, LOAD_CORE)


def stub(name: str, *arguments: str) -> AbstractContextManager[Part]:
    """Run `python -m bench.stubs.NAME`."""
    port = free_port()
    command = [sys.executable, "-m", f"bench.stubs.{name}", str(port), *arguments]
    return running(name, command, port, LOAD_CORE)


def nginx(name: str, http: str, port: int, core: int = PROXY_CORE, modules: str = "") -> AbstractContextManager[Part]:
    """Run nginx, one worker, with these servers."""
    folder = scratch(f"bench-{plain(name)}")
    file = folder / "nginx.conf"
    file.write_text(_NGINX.format(modules=modules, user=user_line("user root;\n"), folder=folder, http=http))
    return running(name, ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(file)], port, core)


def haproxy(name: str, text: str, port: int, core: int = PROXY_CORE) -> AbstractContextManager[Part]:
    """Run HAProxy, one thread, with these sections."""
    file = scratch(f"bench-{plain(name)}") / "haproxy.cfg"
    file.write_text(f"global\n    nbthread 1\n    maxconn 4096\n{text}")
    return running(name, ["haproxy", "-db", "-f", str(file)], port, core)


@contextmanager
def running(name: str, command: list[str], port: int, core: int, tree: Path = ROOT) -> Iterator[Part]:
    """Run a program until it is no longer needed. Raises RuntimeError when it ended by itself."""
    # What this Python can import, its children can, wherever it found it.
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")]),
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]),
    }
    command = ["taskset", "-c", str(core), *command]
    process = Process(plain(name), command, cwd=Path("/"), env=environment)
    try:
        process.wait_until(lambda: answers(port))
        yield Part(port, process.pid)
        if process.exit_code is not None:
            raise RuntimeError(f"{name} ended with {process.exit_code} while it was measured\n{process.tail()}")
        process.stop(10)
    finally:
        process.kill()


def user_line(text: str) -> str:
    """Keep this line if we are root: nobody else may change the user."""
    return text if os.geteuid() == 0 else ""


def plain(name: str) -> str:
    """Make a name fit for a folder or a URL."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)
