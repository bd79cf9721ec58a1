"""What a process group used, read from /proc."""

import os
from pathlib import Path
from typing import NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class CpuTimes(NamedTuple):
    """Processor time in seconds, in steps of a hundredth."""

    user: float
    system: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.user + self.system

    def __sub__(self, before: "CpuTimes") -> "CpuTimes":
        return CpuTimes(self.user - before.user, self.system - before.system)


def cpu_times(group: int) -> CpuTimes:
    """What every living process of a group has used since it started."""
    mine = [stat for stat in _stats() if int(stat[2]) == group]
    return CpuTimes(sum(int(stat[11]) for stat in mine) / _TICK, sum(int(stat[12]) for stat in mine) / _TICK)


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


def _stats() -> list[list[str]]:
    """The fields of every process's stat that follow its name: state, parent, group, ..."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "stat").read_text().rpartition(") ")[2].split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found
