"""How many cores this process may use."""

import os
from math import ceil
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")


def available(cgroup: Path = _CGROUP) -> int:
    """Cores that the kernel lets us run on, or fewer where a container's limit is lower; at least 1."""
    allowed = len(os.sched_getaffinity(0))
    limit = _limit(cgroup)
    return allowed if limit is None else max(1, min(allowed, ceil(limit)))


def _limit(cgroup: Path) -> float | None:
    """The processor time per second that our control group gets, where it is bounded (cgroup v2, else v1)."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None  # "max", -1
    return int(quota) / int(period)
