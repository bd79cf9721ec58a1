"""The table of cases: nothing that must be shown is missing, and every target speaks of somebody measured."""

import pytest

from bench import report, runner
from bench.cases import CASES
from bench.debian import PACKAGES
from bench.proxies import Gateway

MUST_SHOW = {
    "remembered token, GET": 1.3,
    "headers that differ each time, 10 fields": 1.5,
    "POST 1 KiB JSON": 1.5,
    "10,000 tokens, Zipf": 1.1,
    "remembered inactive token": 0.7,
    "two workers, CPU per request": 1.1,
    "100 MB down": 0.4,
    "100 MB up": 0.6,
    "general lane": 3.5,
    "mod_auth_openidc, same work": 0.5,
    "mod_oauth2, same work": 0.5,
    "10,000 idle connections, memory of each": 20,
    "10,000 idle connections, p99 of live traffic": 2,
    "1 GB to a 1 MB/s reader": 5,
    "cold burst, introspections": 1,
    "cold burst, slowest answer": 450,
    "p99 of hits while the IdP hangs": 2,
    "idle worker": 60,
}
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_everything_that_must_be_shown_is_measured():
    targets = {target.text: target.at_most for case in CASES for target in case.targets}
    assert targets.items() >= MUST_SHOW.items()
    assert len({case.name for case in CASES}) == len(CASES)


@by_name
def test_targets_and_ratios_speak_of_subjects(case):
    names = [subject.name for subject in case.subjects]
    assert len(set(names)) == len(names)
    assert {target.subject for target in case.targets} <= set(names)
    assert {target.against for target in case.targets} - {""} <= set(names)
    assert {subject.against for subject in case.subjects} - {""} <= set(names)
    assert {case.figure, *(target.figure for target in case.targets)} <= set(report.COLUMNS)


@by_name
def test_proxies_are_told_apart_by_their_names(case):
    """The identity provider counts by name."""
    proxies = {subject.proxy for subject in case.subjects}
    assert len({proxy.name for proxy in proxies}) == len(proxies)
    assert {package for proxy in proxies for package in proxy.needs} <= set(PACKAGES)


def test_ratios_that_matter_have_at_least_five_rounds():
    assert {case.name for case in CASES if case.rounds < 5} == {"slow"}


def test_another_checkout_takes_turns_under_the_same_load(tmp_path):
    case = next(case for case in CASES if case.name == "hit")
    added = runner.with_others(case.subjects, [tmp_path])[len(case.subjects) :]
    assert [subject.name for subject in added] == [
        f"{subject.name} ({tmp_path.name})" for subject in case.subjects if isinstance(subject.proxy, Gateway)
    ]
    assert {subject.proxy.tree for subject in added} == {tmp_path}
