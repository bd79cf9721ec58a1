"""`fastgate demo`: see a gateway work before reading anything."""

import asyncio
import logging
import signal
from contextlib import suppress

import uvloop
from aiohttp import ClientSession, ClientTimeout
from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from fastgate.control import logging as event_log
from fastgate.demo.scene import CLIENT, CLIENT_SECRET, Scene, staged
from fastgate.demo.walk import Walk
from fastgate.errors import ConfigError, StartError


def run_demo(*, once: bool, listen: str = "127.0.0.1:8000") -> int:
    """Run the demo until Ctrl-C or SIGTERM, or walk through it `once` on free ports. Returns the exit status."""
    console = Console(highlight=False)
    event_log.configure("console", level=logging.WARNING)
    try:
        return uvloop.run(_walk(console) if once else _show(console, listen))
    except StartError as error:
        _complain(str(error))
    except ConfigError as error:
        for problem in error.problems:
            _complain(f"{problem.path}: {problem.message}")
    except KeyboardInterrupt:
        return 130
    finally:
        event_log.close()
    return 1


async def _walk(console: Console) -> int:
    timeout = ClientTimeout(total=30)
    async with staged("127.0.0.1:0", access_log=False) as scene, ClientSession(timeout=timeout) as session:
        return _verdict(console, await Walk(scene, session, console).all())


def _verdict(console: Console, broken: list[str]) -> int:
    """Say how it went; returns the exit status."""
    if broken:
        _complain(f"not as promised: {', '.join(broken)}")
        return 1
    console.print(Text("\nall as promised", "bold green"))
    return 0


async def _show(console: Console, listen: str) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Before anything listens: a signal in between must still clean up.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with staged(listen, access_log=True) as scene:
        _introduce(console, scene)
        await stop.wait()
        console.print("\nstopping")
    return 0


def _introduce(console: Console, scene: Scene) -> None:
    """Say what is running and what to try."""

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style), soft_wrap=True)

    read = f'-H "Authorization: Bearer {scene.token("demo:read")}"'
    line(f"{scene.file}", "bold")
    console.print(Syntax(scene.text, "yaml", background_color="default", word_wrap=False))
    line("Running", "bold")
    line(f"  gateway            {scene.gateway}")
    line(f"  its admin listener {scene.admin}    (/status, /metrics, /readyz)")
    line(f"  identity provider  {scene.idp}    (a development server, in memory)")
    line(f"  echo service       {scene.echo}")
    line("\nTry", "bold")
    line("  no token: 401")
    line(f"    curl -i {scene.gateway}/anything", "cyan")
    line("  a fresh token: 200, and what the service got")
    line(f"    curl -i {read} {scene.gateway}/anything", "cyan")
    line("  the same token where demo:admin is needed: 403")
    line(f"    curl -i {read} {scene.gateway}/admin", "cyan")
    line("\nAnother token", "bold")
    grant = "-d grant_type=client_credentials -d scope=demo:read"
    line(f"    curl -s -u {CLIENT}:{CLIENT_SECRET} {grant} {scene.idp}/token", "cyan")
    line("\nThe file works for the other commands as well, as long as this runs", "bold")
    line(f"    fastgate routes -c {scene.file}", "cyan")
    line("\nCtrl-C stops everything. Requests appear below.\n", "bold")


def _complain(text: str) -> None:
    with suppress(OSError):
        Console(stderr=True, highlight=False).print(Text(f"fastgate demo: {text}"), soft_wrap=True)
