"""Several workers: they share the work, they are replaced, and nobody but their own clients notices."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.contract.parts import config, route, service
from tests.support.client import fetch
from tests.support.gateway import ROOT
from tests.support.ledger import Fate, Ledger
from tests.support.process import answers, free_port
from tests.support.upstream import answer

from .parts import Fleet, rss, until

TWO = {"workers": 2}
HARMED = (Fate.RESET, Fate.UNANSWERED, Fate.TRUNCATED)
"""What becomes of requests that are in a process that is killed."""


async def test_all_of_them_serve(idp, upstream):
    """Connections are spread evenly; the status page shows every worker, the memory of each is small."""
    async with Fleet(config(idp, upstream, **TWO)) as gateway:
        clients = [await gateway.connect() for _ in range(40)]

        async def spread():
            connections = [worker["connections"] for worker in (await gateway.workers()).values()]
            return connections if sum(connections) == 40 else None

        # Of 40 connections one worker gets fewer than 5 once in ten million times.
        assert min(await until(spread, "40 connections")) >= 5
        for client in clients:
            assert (await client.request("GET", "/public")).status == 200
            await client.close()
        status = await gateway.status()
        assert [worker["worker"] for worker in status["workers"]] == [1, 2]
        for worker in status["workers"]:
            assert (worker["state"], worker["restarts"], worker["version"]) == ("serving", 0, status["version"])
            assert worker["config_version"] == status["config_version"]
            assert worker["uptime"] > 0
            # "Idle worker: 60 MB", as PERFORMANCE.md has it.
            assert rss(worker["pid"]) < 60e6
        assert (status["ready"], status["missing"]) == (True, [])


async def test_one_for_each_core(idp, upstream):
    """`auto`: as many as the machine grants; in a process that may use one core it is one."""
    gateway = Fleet(config(idp, upstream, workers="auto"))
    async with gateway:
        assert len(await gateway.workers()) == len(os.sched_getaffinity(0))
    mask = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mask)})
    try:
        await gateway.start()
    finally:
        os.sched_setaffinity(0, mask)
    assert len(await gateway.workers()) == 1
    assert await gateway.stop() == 0


async def test_a_worker_is_killed_under_load(idp, repeater):
    """P1: only what was in it is lost, nobody is refused, another is there at once, and counts never go backwards."""
    async with Fleet(config(idp, repeater, **TWO)) as gateway:
        async with Ledger(gateway.port, kept=8, closing=4) as ledger:
            await ledger.answered(500)
            counted = await gateway.metric("fastgate_requests_total")
            before = await gateway.pids()
            for number in (1, 2):
                harmed = len(ledger.lost)
                os.kill(before[number], signal.SIGKILL)
                after = await gateway.serving(2, without={before[number]})
                assert after[3 - number] == before[3 - number]
                # One request at a time for each client.
                assert len(ledger.lost) - harmed <= 12
                before = after
                assert await gateway.metric("fastgate_requests_total") >= counted
            await ledger.answered(1000)
        assert ledger.lost_as(*HARMED) == ledger.lost
        # A request is one question to the upstream, whatever happens.
        assert repeater.repeated == []
        assert [worker["restarts"] for worker in (await gateway.workers()).values()] == [1, 1]
        assert await gateway.metric("fastgate_worker_restarts_total", reason="ended") == 2
        assert await gateway.metric("fastgate_workers", state="serving") == 2
        lost = await gateway.logged("worker lost", 2)
        assert [(event["worker"], event["status"]) for event in lost] == [(1, -9), (2, -9)]
        assert all(answers(port) for port in (gateway.port, gateway.admin_port))


async def test_a_worker_that_hangs(idp, repeater):
    """C7: another accepts in its place, operators get their answers and are told, and it is replaced in the end."""
    async with Fleet(config(idp, repeater, **TWO, worker_timeout="4s")) as gateway:
        before = await gateway.pids()
        counted = await gateway.metric("fastgate_requests_total")
        os.kill(before[1], signal.SIGSTOP)
        async with Ledger(gateway.port, kept=0, closing=12) as ledger:
            asked = gateway.readiness(), gateway.metric("fastgate_requests_total"), gateway.workers()
            (status, said), count, workers = await asyncio.gather(*asked)
            assert (status, said["missing"]) == (200, ["worker 1 does not answer"])
            assert count >= counted
            assert {number: worker["state"] for number, worker in workers.items()} == {1: "silent", 2: "serving"}
            after = await gateway.serving(2, without={before[1]})
        assert after[2] == before[2]
        assert ledger.lost_as(*HARMED) == ledger.lost
        # Its own clients of the first moment are lost; those that came later waited, and were served by the other.
        assert len(ledger.lost) <= 12
        assert ledger.fates[Fate.ANSWERED] > 12
        assert await gateway.metric("fastgate_worker_restarts_total", reason="silent") == 1
        assert (await gateway.readiness())[1] == {"status": "ready"}
    assert [event["worker"] for event in gateway.events("worker hangs: ended")] == [1]


async def test_everything_was_suspended(idp, upstream):
    """A machine that slept: nobody is blamed for the time in which the supervisor did not run either."""
    async with Fleet(config(idp, upstream, **TWO, worker_timeout="1500ms")) as gateway:
        before = await gateway.pids()
        for pid in gateway.processes():
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(2.5)  # what is waited for is time itself
        for pid in gateway.processes():
            os.kill(pid, signal.SIGCONT)

        async def looked_twice():
            return all(worker["state"] == "serving" for worker in (await gateway.workers()).values())

        uptime = (await gateway.workers())[1]["uptime"]
        await until(looked_twice, "the workers")

        async def later():
            return (await gateway.workers())[1]["uptime"] > uptime + 1.5

        await until(later, "the watchdog's next looks")
        assert await gateway.pids() == before


async def test_a_worker_is_told_to_end_by_somebody_else(idp, repeater):
    """SIGTERM to a worker: it ends when another serves, and loses nothing."""
    async with Fleet(config(idp, repeater, **TWO)) as gateway:
        before = await gateway.pids()
        async with Ledger(gateway.port, kept=8, closing=4) as ledger:
            await ledger.answered(200)
            os.kill(before[1], signal.SIGTERM)
            after = await gateway.serving(2, without={before[1]})
            await ledger.answered(500)
        assert after[2] == before[2]
        assert ledger.lost == []


async def test_the_process_that_makes_workers_is_killed(idp, repeater):
    """The workers go on, another takes its place, and a worker that is killed then is replaced by it."""
    async with Fleet(config(idp, repeater, **TWO)) as gateway:
        before = await gateway.pids()
        (zygote,) = gateway.named("fastgate-zygote")
        async with Ledger(gateway.port, kept=4, closing=4) as ledger:
            os.kill(zygote, signal.SIGKILL)

            async def another():
                return [pid for pid in gateway.named("fastgate-zygote") if pid != zygote]

            await until(another, "another zygote")
            assert await gateway.pids() == before
            assert ledger.lost == []
            os.kill(before[2], signal.SIGKILL)
            await gateway.serving(2, without={before[2]})
            await ledger.answered(200)
        assert ledger.lost_as(*HARMED) == ledger.lost


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_supervisor_is_killed(idp, upstream, workers):
    """P2: workers finish what is open, then end; no orphan holds the port; nothing of the gateway is left."""
    held = asyncio.Event()
    gateway = await Fleet(config(idp, upstream, workers=workers)).start()
    upstream.will(held, answer(200, b"late"))
    async with await gateway.connect() as waiting:
        await waiting.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
        await upstream.head()
        os.kill(gateway.process.pid, signal.SIGKILL)

        async def refused():
            return not answers(gateway.port)

        await until(refused, "a free port")
        held.set()
        got = await waiting.answer()
        assert (got.status, got.body, got.header("connection")) == (200, b"late", "close")

    async def nothing():
        return not gateway.processes()

    await until(nothing, "the end of every process")


async def test_workers_that_cannot_begin(idp, upstream):
    """P1: a post is tried again with longer and longer pauses, the log says what to do, the others serve for it."""
    gateway = Fleet(config(idp, upstream, **TWO))
    leaf = trustme.CA().issue_cert("gateway.test")
    certificate = gateway.folder / "both.pem"
    certificate.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    secure = {"address": f"127.0.0.1:{free_port()}", "tls": {"certificate": "both.pem", "key": "both.pem"}}
    gateway.config["listen"] = [gateway.config["listen"], secure]
    async with gateway:
        before = await gateway.pids()
        certificate.write_text("-----BEGIN CERTIFICATE-----\nbroken\n-----BEGIN PRIVATE KEY-----")
        os.kill(before[1], signal.SIGKILL)

        third = (await gateway.logged("worker cannot be kept", 3))[2]
        assert third["next_try_in"] > 0
        assert "fastgate check" in third["advice"]
        assert "listen[1].tls" in third["problem"]
        assert (await gateway.readiness()) == (200, {"status": "ready", "missing": ["worker 1 is not running"]})
        assert await gateway.metric("fastgate_workers", state="starting") == 1
        for _ in range(20):
            assert (await gateway.get("/public")).status == 200
        certificate.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
        after = await gateway.serving(2)
        assert after[2] == before[2]


async def test_metrics_are_those_of_all(idp, repeater):
    """Counters and histograms are added up, also those of workers that have ended; gauges are of those that live."""
    async with Fleet(config(idp, repeater, **TWO)) as gateway:
        asked = 0
        for times in (60, 40):
            async with Ledger(gateway.port, kept=2, closing=10) as ledger:
                await ledger.answered(times)
            asked += ledger.count

            async def counted():
                return await gateway.metric("fastgate_requests_total") == asked  # noqa: B023 - asked before it changes

            assert await counted()
            assert await gateway.metric("fastgate_upstream_seconds_count") == asked
            assert await gateway.metric("fastgate_upstream_seconds_bucket", le="+Inf") == asked
            before = await gateway.pids()
            gateway.process.signal(signal.SIGUSR2)
            await gateway.serving(2, without=set(before.values()))

            async def alone():
                former = len((await gateway.status())["workers"]) - 2
                return not former and len(gateway.named("fastgate-zygote")) == 1

            await until(alone, "the end of the former workers")
            assert await counted()
        assert await gateway.metric("fastgate_connections") == 0
        # Every worker asked once, and each of its successors once more.
        hits, asked_idp = await gateway.metric("fastgate_cache_hits_total"), len(idp.questions)
        assert hits + await gateway.metric("fastgate_cache_misses_total") >= asked
        assert await gateway.metric("fastgate_introspections_total") == asked_idp
        memory = await gateway.metric("process_resident_memory_bytes")
        assert memory == pytest.approx(sum(rss(pid) for pid in gateway.processes()), rel=0.1)


async def test_lines_of_several_workers(idp, repeater, tmp_path):
    """P8: on one pipe no line is mixed with another's; each says which worker wrote it."""
    long = "x" * 1500 + "%22" * 200
    gateway = Fleet(config(idp, repeater, route("/", "none"), **TWO, log={"access": True}))
    gateway.write()
    command = [sys.executable, "-m", "fastgate", "run", "-c", str(gateway.file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(  # noqa: ASYNC220 - it only starts
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        reading = asyncio.create_task(asyncio.to_thread(process.stdout.read))

        async def up():
            return answers(gateway.port) and answers(gateway.admin_port)

        await until(up, "the gateway")
        await fetch(gateway.admin_port, "GET", "/livez")
        async with Ledger(gateway.port, kept=6, closing=6, path=f"/{long}/") as ledger:
            await ledger.answered(1500)
        process.send_signal(signal.SIGTERM)
        lines = (await reading).splitlines()
        assert process.wait(30) == 0
    assert ledger.lost == []
    events = [json.loads(line) for line in lines if not line.startswith(b"warning: ")]
    access = [event for event in events if "outcome" in event]
    assert len(access) == ledger.count
    assert {event["worker"] for event in access} == {1, 2}


async def test_one_worker_has_no_number_in_its_lines(idp, repeater):
    """Where there is one, lines need not say which."""
    async with Fleet(config(idp, repeater, log={"access": True})) as gateway, await gateway.connect() as client:
        await client.request("GET", "/public")
    lines = [json.loads(line) for line in gateway.last.out.read_text().splitlines()]
    assert [("worker" in line) for line in lines] == [False]


async def test_an_upstream_of_nobody(idp, upstream):
    """The workers share no connection: each has its own, and the status page adds them up."""
    async with Fleet(config(idp, upstream, **TWO, services=[service(upstream, route("/", "none"))])) as gateway:
        for _ in range(30):
            assert (await gateway.get("/x")).status == 200
        status = (await gateway.status())["upstreams"]["upstream"]
        assert status[f"127.0.0.1:{upstream.port}"]["open_connections"] == 2


async def test_redis_is_loaded_once_for_all_of_them(idp, upstream):
    """Figure 19: 20 MiB that every worker would have otherwise; who does not use it does not load it."""
    unreachable = {"redis": {"url": "redis://127.0.0.1:9/0", "secrets": ["a-secret-that-seals-what-lies-in-redis"]}}
    async with Fleet(config(idp, upstream, **TWO)) as gateway:
        (zygote,) = gateway.named("fastgate-zygote")
        assert "/hiredis/" not in mapped(zygote)
        gateway.write({"cache": unreachable})
        gateway.process.signal(signal.SIGHUP)
        (reloaded,) = await gateway.logged("configuration reloaded")
        assert reloaded["renewed"] == ["cache"]
        inherited = [line for line in mapped(zygote).splitlines() if "/hiredis/" in line]
        assert inherited
        status = await gateway.status()
        assert status["cache"]["shared"]["reachable"] is False
        # Where the zygote has it, not where each of them would have put it.
        assert all(set(inherited) <= set(mapped(pid).splitlines()) for pid in (await gateway.pids()).values())


def mapped(pid):
    """List the files that a process has loaded, and where."""
    return Path(f"/proc/{pid}/maps").read_text()
