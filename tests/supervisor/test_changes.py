"""New code and new configuration under load: nobody is refused, nothing is lost, a mistake changes nothing."""

import asyncio
import json
import os
import signal
import socket
import ssl

import pytest
import trustme

from tests.contract.parts import config, route, service
from tests.support.client import RawClient, fetch
from tests.support.gateway import ROOT
from tests.support.ledger import Fate, Ledger
from tests.support.process import answers, free_port
from tests.support.upstream import answer

from .parts import Fleet, until

TWO = {"workers": 2}


async def reload(gateway, **changes):
    """Write a changed file and have it read through the admin listener; returns status and what it says."""
    gateway.write(changes)
    got = await gateway.admin("POST", "/config/reload")
    return got.status, json.loads(got.body)


async def test_new_workers_one_by_one(idp, repeater):
    """P4: SIGUSR2 under load: every process but the supervisor is new, and nothing was lost."""
    async with Fleet(config(idp, repeater, **TWO)) as gateway:
        async with Ledger(gateway.port, kept=8, closing=4) as ledger:
            await ledger.answered(200)
            before, zygotes = await gateway.pids(), gateway.named("fastgate-zygote")
            gateway.process.signal(signal.SIGUSR2)
            await gateway.serving(2, without=set(before.values()))

            async def new_zygote():
                found = gateway.named("fastgate-zygote")
                return len(found) == 1 and found != zygotes

            await until(new_zygote, "one new zygote")
            await ledger.answered(200)
        assert ledger.lost == []
        assert repeater.repeated == []
        assert await gateway.metric("fastgate_worker_restarts_total") == 0


async def test_clients_that_pause(idp, repeater):
    """P4: a kept connection that is quiet when its worker is relieved is not closed under its next request."""
    async with Fleet(config(idp, repeater, **TWO)) as gateway:
        async with Ledger(gateway.port, kept=60, closing=0, pause=0.2) as ledger:
            await ledger.answered(60)
            before = await gateway.pids()
            gateway.process.signal(signal.SIGUSR2)
            await gateway.serving(2, without=set(before.values()))
            await ledger.answered(200)
        assert ledger.lost == []
        assert ledger.connections >= 120


async def test_a_request_that_takes_longer_than_its_worker(idp, upstream):
    """P4: what is under way when a worker is relieved is answered by it; what comes next goes to its successor."""
    held = asyncio.Event()
    async with Fleet(config(idp, upstream)) as gateway:
        upstream.will(held, answer(200, b"late"))
        async with await gateway.connect() as client:
            await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
            await upstream.head()
            before = await gateway.pids()
            gateway.process.signal(signal.SIGUSR2)
            await gateway.serving(1, without=set(before.values()))
            states = [worker["state"] for worker in (await gateway.status())["workers"]]
            assert sorted(states) == ["leaving", "serving"]
            assert (await gateway.get("/public")).status == 200
            held.set()
            got = await client.answer()
            assert (got.body, got.header("connection")) == (b"late", "close")


async def test_reloads_under_load(idp, repeater):
    """P5: good ones are in force in every worker, bad ones in none; nothing is lost, and no worker is new."""
    async with Fleet(config(idp, repeater, **TWO)) as gateway:
        before = await gateway.pids()
        async with Ledger(gateway.port, kept=8, closing=4) as ledger:
            for number in range(4):
                await ledger.answered(100)
                routes = (route("/api", {"scopes_required": ["read"]}), route(f"/new{number}", "none"))
                status, said = await reload(gateway, services=[service(repeater, *routes)])
                assert (status, said["needs_restart"], said["renewed"]) == (200, [], [])
                # Every connection may be another worker's.
                got = [(await gateway.get(f"/new{number}")).status for _ in range(12)]
                assert set(got) == {200}
                assert {(await gateway.get(f"/new{number - 1}")).status for _ in range(12)} == {404}
                version = said["config_version"]
                status, said = await reload(gateway, services=[])
                assert (status, said["message"]) == (422, "nothing was changed")
                workers = (await gateway.workers()).values()
                assert {worker["config_version"] for worker in workers} == {version}
                assert (await gateway.get(f"/new{number}")).status == 200
        assert ledger.lost == []
        assert await gateway.pids() == before
        assert await gateway.metric("fastgate_config_reloads_total", outcome="taken") == 4
        assert await gateway.metric("fastgate_config_reloads_total", outcome="refused") == 4


async def test_a_bad_file_makes_no_new_workers(idp, upstream):
    """P5: SIGUSR2 reads the file as well; a mistake in it is said, and everything goes on as it was."""
    async with Fleet(config(idp, upstream)) as gateway:
        before = await gateway.pids()
        gateway.write({"services": []})
        gateway.process.signal(signal.SIGUSR2)

        async def refused():
            return await gateway.metric("fastgate_config_reloads_total", outcome="refused") == 1

        await until(refused, "the refusal")
        assert await gateway.pids() == before
        assert (await gateway.get("/public")).status == 200


async def test_sizes_need_new_workers(idp, repeater):
    """P5: limits, caches and the log hold from new workers on, which take over without a loss."""
    async with Fleet(config(idp, repeater, **TWO)) as gateway:
        before = await gateway.pids()
        async with Ledger(gateway.port, kept=6, closing=4) as ledger:
            await ledger.answered(100)
            changes = {"limits": {"connections": 20}, "cache": {"memory": {"max_entries": 7}}, "log": {"access": True}}
            status, said = await reload(gateway, **changes)
            assert (status, said["needs_restart"], said["renewed"]) == (200, [], ["limits", "cache", "log"])
            after = await gateway.serving(2, without=set(before.values()))
            await ledger.answered(100)
        assert ledger.lost == []

        async def alone():
            return len((await gateway.status())["workers"]) == 2

        await until(alone, "the end of the former workers")
        # Two workers with 20 connections each at most; of 90 one gets fewer than 20 once in a hundred million times.
        clients = [await gateway.connect() for _ in range(90)]

        async def full():
            return await gateway.metric("fastgate_connections") == 40

        await until(full, "40 connections")
        for client in clients:
            await client.close()
        assert await gateway.pids() == after
    assert '"path":"/api/' in gateway.last.out.read_text()


async def test_more_and_fewer_workers(idp, repeater):
    """P5: `workers` may change; sockets of a number that is no more are served by the others."""
    async with Fleet(config(idp, repeater)) as gateway:
        async with Ledger(gateway.port, kept=6, closing=6) as ledger:
            for workers in (3, 1, 2):
                await ledger.answered(200)
                status, said = await reload(gateway, workers=workers)
                assert (status, said["renewed"]) == (200, ["workers"])
                await gateway.serving(workers)
                await ledger.answered(300)
        assert ledger.lost == []


async def test_another_address(idp, repeater):
    """P5: clients are served where the file says; where it no longer does, those who wait are served, then nobody."""
    async with Fleet(config(idp, repeater, **TWO)) as gateway:
        former, port = gateway.port, free_port()
        async with Ledger(former, kept=4, closing=4) as ledger:
            await ledger.answered(200)
            status, said = await reload(gateway, listen=[f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"])
            assert (status, said["needs_restart"], said["renewed"]) == (200, [], ["listen"])
            assert (await fetch(port, "GET", "/public")).status == 200
            assert not answers(former)
        assert {loss.fate for loss in ledger.lost} <= {Fate.REFUSED}
        gateway.port = port
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            status, said = await reload(gateway, listen=[f"127.0.0.1:{free_port()}", address])
        assert (status, said["message"]) == (422, "nothing was changed")
        assert f"cannot listen on {address}: Address already in use" in said["problems"][0]["message"]
        assert (await gateway.get("/public")).status == 200


async def test_a_new_certificate(idp, upstream):
    """P5: the file of a certificate has a new content under its old name: clients see it from then on."""
    old, new = trustme.CA(), trustme.CA()
    gateway = Fleet(config(idp, upstream, **TWO))
    both = gateway.folder / "both.pem"

    def write(ca):
        both.write_bytes(ca.issue_cert("gateway.test").private_key_and_cert_chain_pem.bytes())

    async def ask(ca):
        trusting = ssl.create_default_context()
        ca.configure_trust(trusting)
        async with await RawClient.connect(gateway.port, tls=trusting, server_hostname="gateway.test") as client:
            return (await client.request("GET", "/public")).status

    write(old)
    gateway.config["listen"] = {
        "address": gateway.config["listen"],
        "tls": {"certificate": str(both), "key": str(both)},
    }
    async with gateway:
        assert await ask(old) == 200
        assert (await reload(gateway))[1]["renewed"] == []
        write(new)
        assert (await reload(gateway))[1]["renewed"] == ["certificates"]
        assert [await ask(new) for _ in range(8)] == [200] * 8
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(old)
        both.write_text("nothing")
        assert (await reload(gateway))[0] == 422
        assert await ask(new) == 200


async def test_the_admin_listener_stays_where_it_is(idp, upstream):
    """P5, T13: its address needs a restart; its token does not, unless it belongs to another address."""
    async with Fleet(config(idp, upstream)) as gateway:
        here = gateway.config["admin"]
        status, said = await reload(gateway, admin={"listen": f"127.0.0.1:{free_port()}", "token": "elsewhere"})
        assert (status, said["needs_restart"]) == (200, ["admin.listen"])
        assert (await gateway.admin("GET", "/status")).status == 200
        assert (await reload(gateway, admin={**here, "token": "adm1n"}))[0] == 200
        assert (await gateway.admin("GET", "/status")).status == 401


SITE = """\
import os, pathlib, sys
version = pathlib.Path(__file__).with_name("version").read_text()
if "fastgate.worker.zygote" in sys.orig_argv:
    if version == "broken":
        os.write(2, b"this version cannot be loaded\\n")
        os._exit(1)
    import fastgate
    fastgate.__version__ = version
"""
"""What Python runs first wherever it finds it: stands for another version of fastgate on disk."""


async def test_new_code(idp, upstream, tmp_path):
    """P4: SIGUSR2 takes the code as it is on disk then; code that cannot be loaded changes nothing, and is said."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    version = tmp_path / "version"
    version.write_text("1.0")
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    async with Fleet(config(idp, upstream), env=path) as gateway:

        async def versions():
            return [worker["version"] for worker in (await gateway.status())["workers"]]

        async def all_new():
            return await versions() == ["2.0"]

        async def reloaded(count):
            async def counted():
                return await gateway.metric("fastgate_config_reloads_total", outcome="taken") == count

            gateway.process.signal(signal.SIGUSR2)
            await until(counted, f"reload {count}")

        assert await versions() == ["1.0"]
        before = await gateway.pids()
        version.write_text("broken")
        await reloaded(1)
        assert await gateway.pids() == before
        assert (await gateway.get("/public")).status == 200
        await gateway.logged("workers not renewed: the old ones go on")
        version.write_text("2.0")
        await reloaded(2)
        await until(all_new, "a worker of the new version alone")
        # A worker that is replaced later comes from the new code as well.
        before = await gateway.pids()
        os.kill(before[1], signal.SIGKILL)
        await gateway.serving(1, without=set(before.values()))
        assert await all_new()
    assert "this version cannot be loaded" in gateway.log()
