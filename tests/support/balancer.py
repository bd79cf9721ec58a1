"""A real HAProxy with deploy/haproxy.cfg, before two gateways or what stands for them."""

from collections.abc import Sequence
from pathlib import Path

from tests.support.process import Process, free_port


def haproxy(
    program: str,
    deploy: Path,
    folder: Path,
    servers: Sequence[tuple[int, int]],
    *,
    port: int | None = None,
    maxconn: int = 200,
) -> tuple[int, Process]:
    """Start it; returns the port it listens at. `servers` are the ports of each, for clients and for /readyz."""
    port, health = port or free_port(), free_port()
    text = (deploy / "haproxy.cfg").read_text().replace("maxconn 20000", f"maxconn {maxconn}")
    text = text.replace("inter 2s fastinter 500ms downinter 1s", "inter 100ms")
    for number, (server, admin) in enumerate(servers, 1):
        name = f"fastgate-{number}"
        text = text.replace(f"server {name} {name}:8000", f"server {name} 127.0.0.1:{server} port {admin}")
    assert text.count("127.0.0.1:") == len(servers) == 2
    file = folder / "haproxy.cfg"
    file.write_text(text)
    env = {"LISTEN": f"127.0.0.1:{port}", "HEALTH": f"127.0.0.1:{health}"}
    return port, Process("haproxy", [program, "-db", "-f", str(file)], env=env)
