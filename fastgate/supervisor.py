"""The process: the event loop and the signals. It survives whatever a worker does, and knows no HTTP."""

import asyncio
import signal
from collections.abc import Callable

import structlog
import uvloop

from fastgate.app import App
from fastgate.control import logging as event_log
from fastgate.errors import ConfigError, FastgateError
from fastgate.model import Snapshot

log = structlog.get_logger("fastgate.supervisor")


def serve(load: Callable[[], Snapshot]) -> int:
    """Run the gateway until it is told to stop; returns the exit status.

    Raises ConfigError and StartError before anything is served.
    """
    snapshot = load()
    event_log.configure(snapshot.settings.log_format)
    try:
        return uvloop.run(_serve(load))
    finally:
        event_log.close()


async def _serve(load: Callable[[], Snapshot]) -> int:
    app = App(load)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(app))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    # Before the sockets are bound: a signal that comes in between must not kill a half-started process.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    await app.start()
    await stop.wait()
    await app.drain()
    return 0


async def _reload(app: App) -> None:
    try:
        await app.reload()
    # Without tracebacks: a mistake in a file is no fault of the program.
    except ConfigError as error:
        for problem in error.problems:
            log.error(  # noqa: TRY400
                "configuration not reloaded",
                file=error.file,
                line=problem.line,
                path=problem.path,
                problem=problem.message,
            )
    except FastgateError as error:
        log.error("configuration not reloaded", problem=str(error))  # noqa: TRY400
