"""The users of the load test, for real: locust in processes of its own (it brings gevent), against real parts."""

import asyncio
import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

from bench.load import Ports, locust_command, serving
from bench.machine import ROOT
from tests.support.process import free_port

LIGHT = (
    *("--headless", "--users=10", "--spawn-rate=10", "--run-time=90s"),
    *("--locustfile", "bench/locustfile.py,tests/support/enough.py"),
    *("--lifetime=2", "--shared-tokens=50", "--pause=0.03"),
)
"""A few users, most of whose tokens expire meanwhile, for a few seconds, or more on a busy machine."""
MANY_STRANGERS = '{"user_class_name": "Stranger", "weight": 8}'
KINDS = {
    ("GET", "small"),
    ("GET", "100 KiB"),
    ("GET", "streamed"),
    ("POST", "1 KiB JSON"),
    ("PUT", "64 KiB"),
    ("GET", "401 no token"),
    ("GET", "401 invented token"),
    ("GET", "401 expired token"),
    ("GET", "401 revoked token"),
    ("GET", "403 wrong scope"),
    ("POST", "new token (IdP)"),
    ("POST", "revoke (admin)"),
}


def ports() -> Ports:
    return Ports(*(free_port() for _ in Ports._fields))


def locust(
    at: Ports, table: Path, *arguments: str, enough: set[tuple[str, str]] = KINDS, seconds: float = 5.0
) -> subprocess.CompletedProcess[str]:
    """Run it for so long, and until `enough` was asked; leaves its statistics in files that begin with `table`."""
    command = locust_command(at, *LIGHT, "--csv", str(table), *arguments)
    environment = {**os.environ, "ENOUGH": json.dumps(sorted(enough)), "AT_LEAST": str(seconds)}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )


def requests(table: Path, column: str) -> dict[tuple[str, str], int]:
    """Counts of the statistics, by method and name."""
    with table.with_name(f"{table.name}_stats.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        return {(row["Type"], row["Name"]): int(row[column]) for row in rows if row["Name"] != "Aggregated"}


@pytest.fixture(scope="module")
def parts():
    at = ports()
    with serving(at):
        yield at


async def test_users_of_a_gateway_that_works(parts, tmp_path):
    """Every kind of request occurs, and every answer is as expected, refusals too; in one process and in several."""
    ways = {"one": (), "two": ("--processes", "2")}
    runs = (asyncio.to_thread(locust, parts, tmp_path / name, *arguments) for name, arguments in ways.items())
    for name, done in zip(ways, await asyncio.gather(*runs), strict=True):
        assert done.returncode == 0, done.stdout
        counted = requests(tmp_path / name, "Request Count")
        assert counted.keys() >= KINDS


def test_users_of_two_hosts(tmp_path):
    """T24: whichever worker of whichever host HAProxy asks, it refuses what was revoked at one, a second later."""
    at = ports()
    with serving(at, hosts=2, workers=2):
        done = locust(at, tmp_path / "run")
    assert done.returncode == 0, done.stdout
    assert requests(tmp_path / "run", "Request Count").keys() >= KINDS


def test_users_of_a_gateway_that_asks_nobody(tmp_path):
    """Whoever should be refused is let through: the run fails, and the table says at what."""
    at = ports()
    refused = {("GET", "401 no token"), ("GET", "401 invented token"), ("GET", "403 wrong scope")}
    wanted = {*refused, ("GET", "100 KiB")}
    with serving(at, auth="none"):
        done = locust(at, tmp_path / "run", "--config-users", MANY_STRANGERS, enough=wanted, seconds=2)
    assert done.returncode == 1, done.stdout
    failed = requests(tmp_path / "run", "Failure Count")
    assert all(failed[each] for each in refused)
    assert not failed["GET", "100 KiB"]


def test_users_of_nothing(parts, tmp_path):
    """A gateway that is not there is a failure as well."""
    nowhere = parts._replace(gateway=free_port())
    done = locust(nowhere, tmp_path / "run", enough={("GET", "small")}, seconds=1)
    assert done.returncode == 1, done.stdout
