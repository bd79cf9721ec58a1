"""Runs a case: starts its parts, makes sure that they do their work, and lets the subjects take turns in rounds."""

import http.client
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import parts, traffic
from bench.cases import Case, Subject
from bench.debian import lacking, need
from bench.figures import Figures, Round, shown
from bench.machine import description, progress
from bench.parts import Part, World
from bench.proxies import Gateway, Proxy
from bench.report import Result


def run(case: Case, *, rounds: int, seconds: float, others: Sequence[Path] = ()) -> Result:
    """Measure a case; `others` are checkouts whose gateways take turns with this one's."""
    need("nginx", "wrk")
    subjects, absent = _possible(with_others(case.subjects, others))
    machine = description()
    with ExitStack() as stack:
        origin = stack.enter_context(case.origin())
        idp = stack.enter_context(parts.stub("idp"))
        world = World(origin, idp)
        proxies = dict.fromkeys(subject.proxy for subject in subjects)
        running = {proxy: stack.enter_context(proxy.open(world)) for proxy in proxies}
        for proxy, part in running.items():
            if proxy.guards:
                check(proxy, part)
        for subject in subjects:
            progress(f"  warming up: {subject.name}")
            subject.load.prepare(running[subject.proxy], stack)
        before = _asked(running)
        found = [_round(case, subjects, running, number, rounds, seconds) for number in range(rounds)]
        asked = {name: count - before[name] for name, count in _asked(running).items()}
    if case.remembered and any(asked.values()):
        raise RuntimeError(f"the identity provider was asked about what should have been remembered: {asked}")
    return Result(case, subjects, machine, found, seconds, asked, absent)


def with_others(subjects: Sequence[Subject], trees: Sequence[Path]) -> list[Subject]:
    """Add for every subject that measures this checkout's fastgate one that measures another's."""
    more = [
        replace(subject, name=f"{subject.name} ({tree.name})", proxy=_moved(subject.proxy, tree))
        for tree in trees
        for subject in subjects
        if isinstance(subject.proxy, Gateway)
    ]
    return [*subjects, *more]


def check(proxy: Proxy, part: Part) -> None:
    """Make sure that a proxy does its work: asks once about a token, refuses a bad one and one without the scope."""
    for token, asked in ((traffic.TOKEN, 1), (traffic.TOKEN, 0), (traffic.INACTIVE, 1), (traffic.NARROW, 1)):
        before = part.asked
        status = _status(part, token)
        told = part.asked - before
        good = status == 200 if token == traffic.TOKEN else status in {401, 403}
        if not good or told != asked or (token == traffic.INACTIVE and status != 401):
            raise RuntimeError(f"{proxy.name} answered {token[:12]}... with {status} and asked {told} times")


def _moved(gateway: Gateway, tree: Path) -> Gateway:
    return replace(gateway, name=f"{gateway.name} ({tree.name})", tree=tree.resolve())


def _possible(subjects: Sequence[Subject]) -> tuple[list[Subject], dict[str, str]]:
    """Who can be measured here, and why the others cannot."""
    absent = {}
    for subject in subjects:
        if missing := lacking(subject.proxy.needs):
            absent[subject.name] = f"not installed: {', '.join(missing)}"
            progress(f"  left out: {subject.name} ({absent[subject.name]})")
    return [subject for subject in subjects if subject.name not in absent], absent


def _round(
    case: Case,
    subjects: Sequence[Subject],
    running: Mapping[Proxy, Part],
    number: int,
    rounds: int,
    seconds: float,
) -> Round:
    """Measure every subject once; who goes first changes from round to round."""
    turn = number % len(subjects)
    found: dict[str, Figures] = {}
    for subject in [*subjects[turn:], *subjects[:turn]]:
        found[subject.name] = subject.load.measure(running[subject.proxy], seconds)
    ordered = {subject.name: found[subject.name] for subject in subjects}
    said = ", ".join(f"{name} {shown(each[case.figure])}" for name, each in ordered.items() if case.figure in each)
    progress(f"  round {number + 1} of {rounds}: {said}")
    return ordered


def _asked(running: Mapping[Proxy, Part]) -> dict[str, int]:
    return {proxy.name: part.asked for proxy, part in running.items()}


def _status(part: Part, token: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", part.port, timeout=10)
    try:
        connection.request("GET", "/", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()
