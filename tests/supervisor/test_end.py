"""The end: nothing is lost, whoever asked for it."""

import asyncio
import os
import signal

from tests.contract.parts import config
from tests.support.ledger import Fate, Ledger
from tests.support.process import answers
from tests.support.upstream import silence

from .parts import Fleet, until

TWO = {"workers": 2}


async def test_terminate_under_load(idp, repeater):
    """P3: with clients that ask and ask, on kept connections and on new ones, nothing is lost; then nobody listens."""
    gateway = await Fleet(config(idp, repeater, **TWO)).start()
    async with Ledger(gateway.port, kept=12, closing=12) as ledger:
        await ledger.answered(600)
        assert await gateway.stop() == 0
    # Refused: asked after the end, which is no loss.
    assert {loss.fate for loss in ledger.lost} <= {Fate.REFUSED}
    assert repeater.repeated == []
    assert not answers(gateway.port)


async def test_terminate_everybody_at_once(idp, repeater):
    """P3: a service manager signals every process of the service: only the supervisor acts on it."""
    gateway = await Fleet(config(idp, repeater, **TWO)).start()
    async with Ledger(gateway.port, kept=4, closing=4) as ledger:
        await ledger.answered(200)
        gateway.signal_all(signal.SIGTERM)
        assert await gateway.stop() == 0
    assert {loss.fate for loss in ledger.lost} <= {Fate.REFUSED}


async def test_control_c_twice(idp, upstream):
    """The first drains; the second does not wait for what is open. A terminal sends both to every process."""
    gateway = await Fleet(config(idp, upstream, **TWO)).start()
    upstream.will(silence)
    async with await gateway.connect() as client:
        await client.send(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n")
        await upstream.head()

        gateway.signal_all(signal.SIGINT)

        async def draining():
            return (await gateway.readiness())[1].get("reasons") == ["draining"]

        await until(draining, "the beginning of the end")
        assert gateway.process.exit_code is None
        gateway.signal_all(signal.SIGINT)
        assert await asyncio.to_thread(gateway.process._process.wait, 30) == 130
        assert await client.ended()
    assert gateway.processes() == []
    assert "Traceback" not in gateway.log()


async def test_a_worker_that_hangs_in_the_end(idp, upstream):
    """P3: it is not waited for longer than `drain_timeout` and a margin; the status is 0 all the same."""
    changes = {"limits": {"drain_timeout": "200ms"}, "worker_timeout": "2s"}
    gateway = await Fleet(config(idp, upstream, **TWO, **changes)).start()
    pids = await gateway.pids()
    os.kill(pids[1], signal.SIGSTOP)
    assert await gateway.stop() == 0
    assert gateway.processes() == []
