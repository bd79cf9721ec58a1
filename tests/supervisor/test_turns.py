"""Workers of a host take turns to ask an identity provider that is held off from: it is asked once a second by all."""

import os
import signal
import time

import pytest

from fastgate.supervisor.turns import FORGOTTEN, PRECEDENCE, TurnsOfFleet
from tests.contract.parts import READER, bearer, config, provider, route
from tests.support.connections import Ends, holders
from tests.support.idp import Idp, says

from .parts import Fleet, until

WINDOW = 5.0
"""Seconds for which questions are counted."""
AMPLE = 4.0
TRIES = 30
"""New connections, each to any worker: that one of three gets none happens once in sixty thousand times."""


class Worker:
    """What is said to a worker."""

    def __init__(self):
        self.told = []

    def health(self, provider, *, well):
        self.told.append((provider, well))


class Host:
    """Some workers, and a clock that stands still until told otherwise."""

    def __init__(self):
        self.now = 1000.0
        self.workers = [Worker() for _ in range(3)]
        self.turns = TurnsOfFleet(lambda: self.workers, lambda: self.now)

    def ask(self, number, provider="idp"):
        return self.turns.wait(self.workers[number], provider)


@pytest.fixture
def host():
    return Host()


def test_one_question_a_second(host):
    """Figure 16: whoever asks for a turn too early learns when to ask again."""
    assert host.ask(0) == 0.0
    assert host.ask(0) == host.ask(1) == 1.0
    host.now += 0.75
    assert host.ask(2) == 0.25
    host.now += 0.25
    assert host.ask(0) == 0.0
    assert host.ask(1) == 1.0


def test_two_providers(host):
    """Figure 16: each has turns of its own."""
    assert host.ask(0, "one") == host.ask(0, "two") == 0.0
    assert host.ask(1, "one") == host.ask(1, "two") == 1.0


def test_they_take_turns(host):
    """I9: one whose questions alone fail does not keep the others from asking, however quick it is."""
    asked = []
    for _ in range(6):
        asked += [number for number in (0, 1, 2, 0, 1) if not host.ask(number)]
        host.now += 1.0
    assert asked == [0, 1, 2, 0, 1, 2]


def test_one_that_waits_no_longer(host):
    """P1, C7: a turn is kept for a moment for a worker that is gone or hangs, and once."""
    assert host.ask(0) == 0.0
    assert host.ask(1) == 1.0
    host.now += 1.0
    assert host.ask(0) == pytest.approx(PRECEDENCE)
    host.now += PRECEDENCE
    assert host.ask(0) == 0.0
    host.now += 1.0
    assert host.ask(0) == 0.0


def test_what_one_found_out_is_told_to_the_others(host):
    """I3, I9: after an answer nobody waits for a turn any more."""
    one, two, three = host.workers
    host.ask(0)
    host.ask(1)
    host.turns.tell(one, "idp", well=True)
    host.turns.tell(two, "other", well=False)
    first, second = ("idp", True), ("other", False)
    assert (one.told, two.told, three.told) == ([second], [first], [first, second])
    host.now += 1.0
    assert host.ask(2) == 0.0


def test_providers_that_are_gone(host):
    """P7: what a former configuration called them is not kept for ever."""
    for number in range(100):
        host.ask(0, f"idp-{number}")
        host.now += 1.0
    host.now += FORGOTTEN
    host.ask(0)
    assert list(host.turns._turns) == ["idp"]


# --- real ones ----------------------------------------------------------------------------------------------------


class Sick(Idp):
    """Answers 500 to every question, or nothing, until it is well."""

    def __init__(self):
        super().__init__()
        self.well = False
        self.hangs = False
        self.latest = None
        """The conversation of the latest question."""

    async def truth(self, conversation):
        self.latest = conversation
        if self.well:
            await super().truth(conversation)
        elif not self.hangs:
            await conversation.send(says(b"", 500))

    def asker(self, pids):
        """Which process asked the latest question."""
        ends = Ends(self.latest.writer.get_extra_info("peername")[1], self.port)
        return holders({ends}, pids)[ends]

    async def count(self):
        """How often it is asked within WINDOW after a question."""
        await self.asked(len(self.questions) + 1)
        before, end = len(self.questions), time.monotonic() + WINDOW

        async def over():
            return time.monotonic() > end

        await until(over, "the end of the window")
        return len(self.questions) - before


@pytest.fixture
async def sick():
    async with Sick() as started:
        started.tokens["good"] = dict(READER)
        yield started


def unknown():
    return os.urandom(8).hex()


async def held_off(gateway, path="/any", idp="idp", workers=3):
    """Ask about tokens that nobody knows until every worker holds off."""

    async def all_of_them():
        assert (await gateway.get(path, token=unknown())).status == 503
        return await gateway.metric("fastgate_identity_provider_held_off", identity_provider=idp) == workers

    await until(all_of_them, f"{workers} workers that hold off from {idp}")


async def test_a_sick_provider_is_asked_once_a_second(sick, upstream):
    """I3, I9, P1, figures 15 and 16: by all workers together, also when one is killed while it asks."""
    async with Fleet(config(sick, upstream, workers=3)) as gateway:
        async with await gateway.connect() as client:
            for _ in range(5):
                assert (await client.request("GET", "/any", bearer(unknown()))).status == 503
        for _ in range(2):  # asked a second time, the others have heard it
            assert await gateway.metric("fastgate_identity_provider_held_off") == 1
        await held_off(gateway)
        clients = [question for question in sick.questions if len(question.token) == len(unknown())]
        assert len(clients) == 5 + 2
        assert 3 <= await sick.count() <= WINDOW + 1
        sick.hangs = True
        await sick.asked(len(sick.questions) + 1)
        before = set((await gateway.pids()).values())
        killed = sick.asker(before)
        os.kill(killed, signal.SIGKILL)
        sick.hangs = False
        await sick.asked(len(sick.questions) + 3)
        await gateway.serving(3, without={killed})
        await held_off(gateway)
        assert 3 <= await sick.count() <= WINDOW + 1
        sick.well = True
        back = time.monotonic()

        async def nobody_holds_off():
            return not await gateway.metric("fastgate_identity_provider_held_off")

        await until(nobody_holds_off, "every worker to ask again")
        assert time.monotonic() - back < 1.0 + AMPLE
        for _ in range(TRIES):
            assert (await gateway.get("/any", token="good")).status == 200
        # Not each of them found out for itself.
        assert 1 <= await gateway.metric("fastgate_introspections_total", outcome="probe") < 3


async def test_two_sick_providers_and_a_reload(sick, upstream):
    """I3, I9, P5, figure 16: turns and recoveries are those of one provider; a new name is a new beginning."""
    async with Sick() as other:

        def providers(first):
            routes = [route(f"/{name}", {"identity_provider": name}) for name in (first, "other")]
            made = config(sick, upstream, *routes, workers=2)
            return made | {"identity_providers": {first: provider(sick), "other": provider(other)}}

        async with Fleet(providers("idp")) as gateway:
            await held_off(gateway, "/idp", "idp", 2)
            await held_off(gateway, "/other", "other", 2)
            gateway.write(providers("renamed"))
            gateway.process.signal(signal.SIGHUP)
            await gateway.logged("configuration reloaded")
            await held_off(gateway, "/renamed", "renamed", 2)
            others = len(other.questions)
            assert 3 <= await sick.count() <= WINDOW + 1
            assert 3 <= len(other.questions) - others <= WINDOW + 1
            sick.well = True

            async def nobody_holds_off():
                return not await gateway.metric("fastgate_identity_provider_held_off", identity_provider="renamed")

            await until(nobody_holds_off, "every worker to ask again")
            assert (await gateway.get("/renamed", token="good")).status == 200
            assert (await gateway.get("/other", token="good")).status == 503
            assert await gateway.metric("fastgate_identity_provider_held_off", identity_provider="other") == 2


async def test_the_supervisor_hangs(sick, upstream):
    """C7, I9: each worker finds out by itself."""
    async with Fleet(config(sick, upstream, workers=2)) as gateway:
        await held_off(gateway, workers=2)
        gateway.process.signal(signal.SIGSTOP)
        sick.well = True

        async def all_answer():
            return {(await gateway.get("/any", token="good")).status for _ in range(TRIES)} == {200}

        await until(all_answer, "every worker to ask again")
        gateway.process.signal(signal.SIGCONT)
        assert await gateway.metric("fastgate_introspections_total", outcome="probe") == 2
