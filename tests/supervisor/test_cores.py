"""How many cores there are for us."""

import os

import pytest

from fastgate.supervisor.cores import available

MANY = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, MANY),
        ({"cpu.max": "max 100000\n"}, MANY),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "100001 100000\n"}, min(2, MANY)),
        ({"cpu.max": "6400000 100000\n"}, MANY),
        ({"cpu.max": "nonsense\n"}, MANY),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, MANY),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "0\n"}, MANY),
    ],
)
def test_the_limit_of_a_container(tmp_path, files, cores):
    """A container's share of the processor is rounded up; never more than the kernel lets us run on."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available(tmp_path) == cores
