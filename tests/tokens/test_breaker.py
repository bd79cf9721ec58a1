"""An identity provider that fails every time is left alone, and used again as soon as it answers."""

import asyncio
import time
from functools import partial

import pytest
import structlog

from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import INACTIVE, ActiveToken
from fastgate.tokens import breaker
from fastgate.tokens.breaker import HeldOffError
from fastgate.tokens.introspectors import Introspectors
from tests.support.client import PATIENCE
from tests.support.idp import says
from tests.support.upstream import RESET
from tests.tokens.parts import access_to, bearer, provider_at

AMPLE = 4.0
TROUBLE = says(b"", 503)


@pytest.fixture
def brisk(monkeypatch):
    """Let a probe follow the one before at once."""
    monkeypatch.setattr(breaker, "PROBE_SECONDS", 0.02)


@pytest.fixture
def patient(monkeypatch):
    """Let no probe follow the first one."""
    monkeypatch.setattr(breaker, "PROBE_SECONDS", 1000.0)


async def fails(introspector, times=1, **how):
    """Ask so often; returns the last error."""
    for _ in range(times):
        with pytest.raises(IntrospectionError) as caught:
            await introspector.introspect("t", **how)
    return caught.value


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.002)


def always(idp, *steps):
    """Answer every question like this, until `idp.well` is true again."""
    truth = idp.truth

    async def sick(conversation):
        if idp.well:
            await truth(conversation)
            return
        for step in steps:
            await conversation._take(step)

    idp.well = False
    idp.truth = sick


async def test_it_is_held_off_after_some_failures_in_a_row(idp, introspector_of, stats, patient):
    """I3, figure 16: then nobody's question is sent, each is refused at once, and it is said once."""
    always(idp, TROUBLE)
    introspector = introspector_of(provider_at(idp, failures=5))
    with structlog.testing.capture_logs() as logs:
        await fails(introspector, 5)
        await idp.asked(6)
        for _ in range(20):
            error = await fails(introspector)
            assert isinstance(error, HeldOffError)
            assert (error.kind, error.retry_after) == (Cannot.UNAVAILABLE, 1000.0)
    assert len(idp.questions) == 6  # five, and a probe
    assert idp.questions[5].token != "t"
    assert introspector.status()["held_off"] is True
    assert stats.held_off.values == {("idp",): 1}
    assert stats.introspections.values["idp", "held_off"] == 20
    assert [line["event"] for line in logs] == ["identity_provider_failed", "identity_provider_held_off"]


async def test_it_answers_again(idp, introspector_of, stats, brisk):
    """I9, figure 15: the first answer, to a probe of ours, lets everybody ask again."""
    always(idp, TROUBLE)
    introspector = introspector_of(provider_at(idp))
    await fails(introspector, 5)
    await until(lambda: stats.introspections.total("idp", "unavailable") >= 5 + 3)  # as long as it is so
    idp.well = True
    await until(lambda: not introspector.status()["held_off"])
    assert stats.introspections.total("idp", "probe") >= 1
    assert await introspector.introspect("t") is INACTIVE
    assert stats.held_off.values == {("idp",): 0}
    assert introspector.reachable is True
    await asyncio.sleep(0.1)  # the probes under way
    asked = len(idp.questions)
    await asyncio.sleep(0.1)
    assert len(idp.questions) == asked  # no more of them


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ((says(b"", 401),), Cannot.REJECTED),
        ((says(b"", 429),), Cannot.UNAVAILABLE),
        ((RESET,), Cannot.UNAVAILABLE),
        ((asyncio.Event(),), Cannot.TIMEOUT),
    ],
)
async def test_what_counts_as_a_failure(idp, introspector_of, patient, steps, kind):
    """I2, I3, I4: whatever keeps every question from being answered; who is refused is told the same."""
    always(idp, *steps)
    introspector = introspector_of(provider_at(idp, failures=3, timeout=0.1 if kind is Cannot.TIMEOUT else 20.0))
    await fails(introspector, 3)
    error = await fails(introspector)
    assert isinstance(error, HeldOffError)
    assert error.kind is kind


async def test_an_answer_in_between(idp, introspector_of):
    """I3: failures now and then are not every time."""
    introspector = introspector_of(provider_at(idp, failures=3))
    for _ in range(5):
        for _ in range(2):
            idp.will(TROUBLE)
            await fails(introspector)
        await introspector.introspect("t")
    assert introspector.status()["held_off"] is False


async def test_a_token_that_makes_it_fail(idp, introspector_of, stats):
    """I11: our own question is answered: it is well, and nobody is kept out for longer than that takes."""
    truth = idp.truth

    async def fragile(conversation):
        if idp.questions[-1].token == "t":
            await conversation._take(TROUBLE)
        else:
            await truth(conversation)

    idp.truth = fragile
    introspector = introspector_of(provider_at(idp, failures=3))
    for _ in range(4):
        await fails(introspector, 3)
        await until(lambda: not introspector.status()["held_off"])
        assert await introspector.introspect("good") is INACTIVE
    assert stats.introspections.total("idp", "probe") == 4


async def test_garbage_holds_nobody_off(idp, introspector_of):
    """I5: it may be about one token only, and our own probe may be answered with garbage, too."""
    always(idp, says(b"<html>"))
    introspector = introspector_of(provider_at(idp, failures=3))
    await fails(introspector, 10)
    assert len(idp.questions) == 10


async def test_our_own_limits_are_not_its_failures(idp, introspector_of):
    """I11: what was never sent says nothing about it."""
    introspector = introspector_of(provider_at(idp, inactive_rate=0.001, failures=3))
    await introspector.introspect("bad")
    for _ in range(5):
        assert (await fails(introspector)).kind is Cannot.OVERLOADED
    assert introspector.status()["held_off"] is False


async def test_a_pause_that_it_asked_for(idp, introspector_of, clock, brisk, stats):
    """I3: probes wait for its end, too."""
    always(idp, says(b"", 503, ("Retry-After", "30")))
    introspector = introspector_of(provider_at(idp, failures=1))
    await fails(introspector)
    await asyncio.sleep(0.1)
    assert (await fails(introspector)).retry_after == 30.0
    assert len(idp.questions) == 1
    idp.well = True
    clock.pass_(30)
    await until(lambda: not introspector.status()["held_off"])


async def test_questions_that_wait_for_their_turn(idp, introspector_of, patient):
    """I3: they are not sent one after the other when it is held off meanwhile."""
    hold = asyncio.Event()
    always(idp, hold, TROUBLE)
    introspector = introspector_of(provider_at(idp, concurrency=2, failures=2))
    asking = [asyncio.ensure_future(introspector.introspect(f"t{number}")) for number in range(20)]
    await idp.asked(2)
    hold.set()
    failures = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(error, HeldOffError) for error in failures) >= 16
    assert len(idp.questions) <= 5


async def test_a_server_that_hung_answers_the_next_probe(idp, introspector_of, brisk):
    """I2: no probe waits for the one before."""
    always(idp, asyncio.Event())
    introspector = introspector_of(provider_at(idp, failures=1, timeout=20.0))
    asking = asyncio.ensure_future(introspector.introspect("t", seconds=0.05))
    with pytest.raises(IntrospectionError):
        await asking
    await idp.asked(3)
    idp.well = True
    await until(lambda: not introspector.status()["held_off"])


async def test_a_known_token_goes_on_while_it_is_held_off(idp, world, clock, patient):
    """I9: `ttl_resurrect` holds for it, as for every other way of being out of reach."""
    idp.tokens["good"] = {}
    access = access_to(provider_at(idp, failures=1, ttl_resurrect=1000.0))
    tokens = world.of(access.provider)
    await world.get(access, "good")
    always(idp, TROUBLE)
    with pytest.raises(IntrospectionError):
        await tokens.resolve(access, bearer("other"))
    clock.pass_(400)
    assert isinstance(await world.get(access, "good"), ActiveToken)


async def test_a_probe_that_breaks(idp, introspector_of, brisk, monkeypatch):
    """I3: a fault of ours does not end the probing."""
    always(idp, TROUBLE)
    introspector = introspector_of(provider_at(idp, failures=1))
    real, calls = introspector._breaker._probe, []

    async def breaks():
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError
        await real()

    introspector._breaker._probe = breaks
    await fails(introspector)
    idp.well = True
    await until(lambda: not introspector.status()["held_off"])


class Others:
    """`Turns` of a worker among others: what they let it do, and what it tells them."""

    workers = 3

    def __init__(self):
        self.mine = False
        self.asked = []
        self.told = []

    async def wait(self, provider):
        self.asked.append(provider)
        return 0.0 if self.mine else 1000.0

    def tell(self, provider, *, well):
        self.told.append((provider, well))


@pytest.fixture
def others():
    return Others()


@pytest.fixture
def among(introspector_of, others):
    """Make introspectors of a worker among others."""
    return partial(introspector_of, turns=others)


async def test_others_ask(idp, among, others, brisk):
    """Figure 16: after the first probe, which finds out at once whether it is well, no other is sent but in turn."""
    always(idp, TROUBLE)
    introspector = among(provider_at(idp, failures=3))
    await fails(introspector, 3)
    await until(lambda: len(others.asked) >= 5)
    assert set(others.asked) == {"idp"}
    assert len(idp.questions) == 4
    others.mine = True
    await idp.asked(6)
    assert others.told == [("idp", False)]
    idp.well = True
    await until(lambda: not introspector.status()["held_off"])
    assert others.told == [("idp", False), ("idp", True)]


async def test_another_was_answered(idp, among, others, stats, patient):
    """I9: it is asked again at once, without a probe; where nobody held off it counts as any answer."""
    always(idp, TROUBLE)
    introspector = among(provider_at(idp, failures=3))
    await fails(introspector, 2)
    introspector.heard(well=True)
    assert introspector.reachable is False
    await fails(introspector, 2)
    assert introspector.status()["held_off"] is False
    await fails(introspector)
    assert introspector.status()["held_off"] is True
    await idp.asked(6)
    idp.well = True
    introspector.heard(well=True)
    assert (introspector.status()["held_off"], introspector.reachable) == (False, True)
    assert stats.held_off.values == {("idp",): 0}
    assert await introspector.introspect("t") is INACTIVE
    assert others.told == [("idp", False)]
    assert stats.introspections.total("idp", "probe") == 0


async def test_another_holds_off(idp, among, patient):
    """I3, figure 16: then one failure here is enough, unless an answer comes first: the other may be to blame."""
    introspector = among(provider_at(idp, failures=3))
    introspector.heard(well=False)
    assert await introspector.introspect("t") is INACTIVE
    always(idp, TROUBLE)
    await fails(introspector, 2)
    assert introspector.status()["held_off"] is False
    introspector.heard(well=False)
    assert introspector.status()["held_off"] is False
    await fails(introspector)
    assert introspector.status()["held_off"] is True


async def test_the_others_do_not_ask_for_a_pause(idp, among, others, clock, brisk):
    """I3: who may not ask takes nobody's turn."""
    others.mine = True
    always(idp, says(b"", 503, ("Retry-After", "30")))
    introspector = among(provider_at(idp, failures=1))
    await fails(introspector)
    await asyncio.sleep(0.1)
    assert (len(idp.questions), others.asked) == (1, [])
    idp.well = True
    clock.pass_(30)
    await until(lambda: others.told == [("idp", False), ("idp", True)])


async def test_it_fails_again_within_a_second(idp, introspector_of, stats, monkeypatch):
    """Figure 16: of several times that it is held off from only the last one is probed."""
    monkeypatch.setattr(breaker, "PROBE_SECONDS", 0.3)
    always(idp, TROUBLE)
    introspector = introspector_of(provider_at(idp, failures=1))
    for _ in range(5):
        await fails(introspector)
        introspector.heard(well=True)
    await fails(introspector)
    before, began = len(idp.questions), time.monotonic()
    await idp.asked(before + 5)
    assert time.monotonic() - began > 3 * 0.3


async def test_two_providers_of_which_one_answers(idp, clock, stats, others, patient):
    """I9: what is told of one is not taken for the other; of one that is not there any more it is nothing."""
    always(idp, TROUBLE)
    one, two = provider_at(idp, name="one", failures=1), provider_at(idp, name="two", failures=1)
    introspectors = Introspectors(clock, stats, others)
    introspectors.swap({"one": one, "two": two})
    for provider in (one, two):
        with pytest.raises(IntrospectionError):
            await introspectors.introspect(provider, "t", known=False, seconds=20.0)
    introspectors.heard("gone", well=True)
    introspectors.heard("two", well=True)
    assert {name: said["held_off"] for name, said in introspectors.status().items()} == {"one": True, "two": False}
    await introspectors.close()


async def test_it_is_closed_while_the_last_questions_fail(idp, introspector_of, brisk):
    """P5, figure 24: nobody probes a provider of a former configuration."""
    hold = asyncio.Event()
    always(idp, hold, TROUBLE)
    introspector = introspector_of(provider_at(idp, failures=1))
    asking = asyncio.ensure_future(introspector.introspect("t"))
    await idp.asked(1)
    closing = asyncio.ensure_future(introspector.close())
    await asyncio.sleep(0)
    hold.set()
    with pytest.raises(IntrospectionError):
        await asking
    await closing
    asked = len(idp.questions)
    await asyncio.sleep(0.2)
    assert len(idp.questions) == asked


async def test_calls_fall_and_come_back(idp, introspector_of):
    """Figures 15 and 16: with every answer a 503, a call a second within five; recovered, answers within a second."""
    always(idp, TROUBLE)
    introspector = introspector_of(provider_at(idp))
    began = time.monotonic()
    counted = None
    while time.monotonic() - began < 3.5:
        await fails(introspector)
        await asyncio.sleep(0.01)
        if counted is None and time.monotonic() - began > 1.0:
            counted = len(idp.questions)
    assert len(idp.questions) - counted <= 4
    idp.well = True
    back = time.monotonic()
    while True:
        try:
            await introspector.introspect("t")
        except HeldOffError:
            await asyncio.sleep(0.01)
        else:
            break
    assert time.monotonic() - back < 1.0 + AMPLE
