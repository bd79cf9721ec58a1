"""Processes of the tests: started with their output in a file, ended for certain, looked into when they fail."""

import asyncio
import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_chance = random.SystemRandom()
"""Not the module's own generator: Hypothesis seeds that one, and the same ports would come again."""
_given: set[int] = set()
_TURN = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = range(15_000 + _TURN, 32_000, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
"""Processes that run tests side by side never give away the same port."""


def free_port() -> int:
    """Return a loopback port nobody listens on, each once, below the range the kernel takes for its own connections."""
    for _ in range(1000):
        port = _chance.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                _given.add(port)
                return port
    raise RuntimeError("no free port found")


def answers(port: int) -> bool:
    """Say whether something accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def scratch(name: str) -> Path:
    """Return a new folder that is gone when the test run is over (FASTGATE_KEEP_LOGS=1 keeps it)."""
    folder = Path(tempfile.mkdtemp(prefix=f"fastgate-{name}-"))
    if not os.environ.get("FASTGATE_KEEP_LOGS"):
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Process:
    """One program in a process group of its own; stdout and stderr go to files in `folder`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        close_fds: bool = True,
    ) -> None:
        self.name = name
        self.folder = scratch(name)
        self.out = self.folder / "stdout"
        self.err = self.folder / "stderr"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                close_fds=close_fds,
            )
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait_until(self, ready: Callable[[], bool], timeout: float = 30.0) -> None:
        """Block until `ready()`; raises with the end of the output when the process ends or the time is over."""
        deadline = time.monotonic() + timeout
        while not ready():
            if self.exit_code is not None:
                raise RuntimeError(f"{self.name} ended with {self.exit_code}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} was not ready after {timeout:.0f} s\n{self.tail()}")
            time.sleep(0.02)

    def tail(self, octets: int = 4000) -> str:
        """Return the end of what it wrote, for failures."""
        parts = [(path.name, path.read_bytes()[-octets:].decode(errors="replace")) for path in (self.out, self.err)]
        return "\n".join(f"--- {self.name} {name}\n{text}" for name, text in parts if text)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself."""
        if self.exit_code is None:
            self._process.send_signal(number)

    def suspend(self) -> None:
        """Stop it from running: connections are accepted by the kernel, nothing is answered."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended process go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def stop(self, timeout: float = 30.0) -> int:
        """Ask it to end (SIGTERM) and return its exit code; after `timeout` seconds it is killed and this raises."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self.name} did not end {timeout:.0f} s after SIGTERM\n{self.tail()}") from None

    async def stopped(self) -> int:
        """Do the same without blocking the event loop."""
        return await asyncio.to_thread(self.stop)

    def kill(self) -> None:
        """End the whole process group at once (SIGKILL)."""
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
