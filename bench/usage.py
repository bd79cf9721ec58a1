"""What a process group used, read from the kernel."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class CpuTimes(NamedTuple):
    """Processor time in seconds: user and system together to the nanosecond, system alone in hundredths."""

    total: float
    system: float

    def __sub__(self, before: "CpuTimes") -> "CpuTimes":
        return CpuTimes(self.total - before.total, self.system - before.system)


def cpu_times(group: int) -> CpuTimes:
    """What every living process of a group has used since it started."""
    total = system = 0.0
    for pid, stat in _stats():
        if int(stat[2]) == group:
            with suppress(OSError):  # it ended meanwhile
                total += time.clock_gettime(_clock(pid))
                system += int(stat[12]) / _TICK
    return CpuTimes(total, system)


def worker(group: int) -> int:
    """The first worker of a fastgate that has workers; else the process that leads the group."""
    found = [
        pid
        for pid, stat in _stats()
        if int(stat[2]) == group and Path(f"/proc/{pid}/comm").read_text().strip() == "fastgate-1"
    ]
    return found[0] if found else group


def core_seconds(core: int) -> float:
    """How long a core has been busy with anything since the machine started, time stolen by its host included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / _TICK
    raise LookupError(f"no core {core}")


def rss_kib(pid: int) -> int:
    """Resident memory of one process, in KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE // 1024


def children(group: int) -> list[int]:
    """List every living process of a group."""
    return [pid for pid, stat in _stats() if int(stat[2]) == group]


def open_files(pid: int) -> int:
    """Count the descriptors of one process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _clock(pid: int) -> int:
    """The clock of a process's processor time, all its threads included: what clock_getcpuclockid(3) computes."""
    return (~pid << 3) | 2


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Every process with the fields of its stat that follow its name: state, parent, group, ..."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield int(entry.name), (entry / "stat").read_text().rpartition(") ")[2].split()
