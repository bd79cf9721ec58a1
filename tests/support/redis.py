"""Real Redis servers as processes: alone, over TLS, behind Sentinels, as a Cluster.

with Redis() as redis:
    settings = redis.settings(secrets=("...",))      # model.Redis for a tier
    config = {"cache": {"redis": {"url": redis.url, "secrets": [...]}}}
    redis.call("SET", "k", "v")                       # blocking, for what a test does to it
    redis.suspend(); redis.kill(); redis.start()
"""

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import hiredis

from fastgate.model import Redis as Settings
from tests.support.cache import run, tool
from tests.support.process import Process, free_port, scratch

HINT = "install it with `apt-get install redis-server redis-tools`"
SECRET = "a-secret-that-seals-what-lies-in-redis"
PATIENCE = 30.0


def server() -> str:
    """Return the path of redis-server; raises Missing."""
    tool("redis-cli", HINT)
    return tool("redis-server", HINT)


class Redis:
    """One server; it comes back on its port, empty unless it is told to keep its data."""

    def __init__(self, *arguments: str, port: int | None = None, tls: Path | None = None, keep: bool = False) -> None:
        """`tls` is a folder with server.pem, key.pem and ca.pem: then the port speaks TLS."""
        self.port = port or free_port()
        self.folder = scratch("redis")
        self.tls = tls
        self.arguments = [
            *("--bind", "127.0.0.1", "--save", "", "--appendonly", "yes" if keep else "no", "--dir", str(self.folder)),
            *("--unixsocket", str(self.folder / "redis.sock"), "--enable-debug-command", "yes"),
            *self._ports(),
            *arguments,
        ]
        self.process: Process | None = None
        self.start()

    def _ports(self) -> list[str]:
        if self.tls is None:
            return ["--port", str(self.port)]
        files = ("--tls-cert-file", "server.pem"), ("--tls-key-file", "key.pem"), ("--tls-ca-cert-file", "ca.pem")
        given = [word for option, name in files for word in (option, str(self.tls / name))]
        return ["--port", "0", "--tls-port", str(self.port), *given]

    @property
    def url(self) -> str:
        return f"{'redis' if self.tls is None else 'rediss'}://127.0.0.1:{self.port}/0"

    def settings(self, **changes: Any) -> Settings:
        """Describe it for a shared tier, with patience for a busy machine."""
        plain = {"kind": "server", "addresses": (("127.0.0.1", self.port),), "secrets": (SECRET,), "timeout": 2.0}
        return Settings(**{**plain, **changes})

    def start(self) -> None:
        """Start, and wait until it answers."""
        process = self.process = Process("redis", [server(), *self.arguments], cwd=self.folder)
        process.wait_until(lambda: answers(self.folder / "redis.sock"))

    def call(self, *words: Any) -> Any:
        """Run one command over the unix socket."""
        return call(self.folder / "redis.sock", *words)

    def keys(self, pattern: str = "*") -> list[str]:
        """List its keys."""
        return sorted(key.decode() for key in self.call("KEYS", pattern))

    def suspend(self) -> None:
        """Stop it from running: it accepts connections and answers nothing."""
        assert self.process is not None
        self.process.suspend()

    def resume(self) -> None:
        assert self.process is not None
        self.process.resume()

    def kill(self) -> None:
        """End it at once."""
        assert self.process is not None
        self.process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def call(at: Path | int, *words: Any) -> Any:
    """Run one command on a connection of its own; an error of Redis is raised."""
    family, address = (socket.AF_UNIX, str(at)) if isinstance(at, Path) else (socket.AF_INET, ("127.0.0.1", at))
    with socket.socket(family) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(address)
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        connection.sendall(
            b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        )
        reader = hiredis.Reader()
        while (answer := reader.gets()) is False:
            octets = connection.recv(1 << 16)
            if not octets:
                raise ConnectionError("closed")
            reader.feed(octets)
    if isinstance(answer, hiredis.ReplyError):
        raise answer
    return answer


def answers(at: Path | int) -> bool:
    """Say whether a Redis answers there."""
    try:
        return call(at, "PING") == b"PONG"
    except (OSError, hiredis.ReplyError):
        return False


def until(condition: Any, what: str) -> None:
    """Block until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE} s for {what}")
        time.sleep(0.05)


class Replicated:
    """A master, a replica and three Sentinels that fail over within a second or two."""

    def __init__(self) -> None:
        self.servers = [Redis(), Redis()]
        self.servers[1].call("REPLICAOF", "127.0.0.1", self.servers[0].port)
        until(lambda: b"master_link_status:up" in self.servers[1].call("INFO", "replication"), "the replica")
        self.sentinels: list[Process] = []
        self.ports = [free_port() for _ in range(3)]
        for port in self.ports:
            folder = scratch("sentinel")
            file = folder / "sentinel.conf"
            file.write_text(
                f"port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {self.servers[0].port} 2\n"
                "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 2000\n"
            )
            self.sentinels.append(Process("sentinel", [server(), str(file), "--sentinel"], cwd=folder))
        until(lambda: all(map(self._knows, self.ports)), "the sentinels to know each other")

    def _knows(self, port: int) -> bool:
        if not answers(port):
            return False
        state = call(port, "SENTINEL", "MASTER", "mymaster")
        known = dict(zip(state[::2], state[1::2], strict=True))
        return known[b"num-other-sentinels"] == b"2" and known[b"num-slaves"] == b"1"

    @property
    def master(self) -> Redis:
        """The server that is the master now."""
        return next(each for each in self.servers if self._running(each) and each.call("ROLE")[0] == b"master")

    @staticmethod
    def _running(redis: Redis) -> bool:
        return redis.process is not None and redis.process.exit_code is None

    def settings(self, **changes: Any) -> Settings:
        addresses = tuple(("127.0.0.1", port) for port in self.ports)
        return self.servers[0].settings(**{"kind": "sentinel", "addresses": addresses, "master": "mymaster", **changes})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.sentinels:
            process.kill()
        for redis in self.servers:
            redis.kill()


class Cluster:
    """Three masters that share the slots."""

    def __init__(self, tls: Path | None = None) -> None:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        options += [] if tls is None else ["--tls-cluster", "yes"]
        self.nodes = [Redis(*options, "--cluster-port", str(free_port()), tls=tls) for _ in range(3)]
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        over = (
            ()
            if tls is None
            else ("--tls", "--insecure", "--cert", str(tls / "ours.pem"), "--key", str(tls / "ours.pem"))
        )
        run(
            "the cluster",
            tool("redis-cli", HINT),
            *over,
            "--cluster",
            "create",
            *addresses,
            "--cluster-yes",
            timeout=60,
        )
        until(self.whole, "the cluster")

    def whole(self) -> bool:
        """Say whether each of them knows that all slots are served."""
        return all(b"cluster_state:ok" in node.call("CLUSTER", "INFO") for node in self.nodes)

    def settings(self, **changes: Any) -> Settings:
        addresses = tuple(("127.0.0.1", node.port) for node in self.nodes[:2])
        return self.nodes[0].settings(**{"kind": "cluster", "addresses": addresses, **changes})

    def keys(self) -> list[str]:
        """List the keys of all nodes."""
        return sorted(key for node in self.nodes for key in node.keys("*"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.kill()
