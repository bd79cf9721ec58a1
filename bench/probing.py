"""How long the workers' loops are busy with something else, seen from a process of its own beside everything."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.machine import ROOT
from tests.support.process import Process


class Probing:
    """`bench.stubs.prober` for the time of a block; `lag` says afterwards what it saw."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self.lag: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-m", "bench.stubs.prober", *map(str, self._ports)]
        environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self._process = Process("prober", command, cwd=Path("/"), env=environment)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if error is not None:
            process.kill()
            return
        process.signal(signal.SIGTERM)
        await asyncio.to_thread(process.stop)
        said = json.loads(process.out.read_text().splitlines()[-1])
        self.lag = {
            "lag_p99_ms": said["lag"]["p99"],
            "lag_most_ms": said["lag"]["most"],
            "late_most_ms": said["late"]["most"],
        }
