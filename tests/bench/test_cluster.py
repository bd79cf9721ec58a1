"""The cluster's cases: how they judge, and each of them once, in its smallest size."""

import argparse
import hashlib
from collections import Counter

import pytest

from bench import tokens
from bench.cluster import QUICK, STEPS, add_arguments
from bench.cluster_report import Report, page
from bench.judging import Fate, Tally, Trouble, Window, judged, percentile, request
from bench.soaking import slope
from tests.conftest import real
from tests.support.redis import server

NOTHING = hashlib.sha256(b"").hexdigest()
SMALL = {
    # A machine that is busy with other tests makes Redis late, too.
    "cold": ("--tries", "1", "--redis-timeout", "1s"),
    "poison": ("--requests", "64"),
    "redis": ("--fault", "FLUSHALL", "--seconds", "0.3"),
    "idp": ("--fault", "5xx", "--seconds", "0.6"),
    "posts": ("--requests", "100"),
    "secrets": ("--seconds", "0.5"),
    "crosstalk": ("--requests", "300"),
    "soak": ("--seconds", "1"),
}
"""The others take as long as timeouts do, or need wrk."""


def answer(status, body=b""):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def fate(token, *said, target="/r/7", body=b""):
    return judged(answer(*said), target, token, body)[0]


def test_a_good_token():
    """Only its own answer will do: path, subject and body."""
    token = tokens.good(5)
    assert fate(token, 200, f"/r/7\nuser-5\n{NOTHING}".encode()) is Fate.RIGHT
    assert fate(token, 200, f"/r/7\nuser-6\n{NOTHING}".encode()) is Fate.WRONG
    assert fate(token, 200, f"/r/8\nuser-5\n{NOTHING}".encode()) is Fate.WRONG
    assert fate(token, 200, f"/r/7\nuser-5\n{NOTHING}".encode(), body=b"x") is Fate.WRONG
    assert fate(token, 401) is Fate.WRONG
    assert fate(token, 503) is Fate.UNSERVED
    assert fate(token, 502) is Fate.LOST


@pytest.mark.parametrize(
    ("token", "right"),
    [(None, 401), (tokens.bad("inactive", 1), 401), (tokens.bad("expired", 1), 401), (tokens.bad("narrow", 1), 403)],
)
def test_a_bad_token(token, right):
    """It is refused for its own reason, or nobody can know; whatever lets it in is wrong."""
    assert fate(token, right) is Fate.RIGHT
    assert fate(token, 503) is Fate.UNSERVED
    assert fate(token, 200, f"/r/7\nuser-1\n{NOTHING}".encode()) is Fate.WRONG
    assert fate(token, 404) is Fate.WRONG


def test_a_token_after_its_end():
    """It may be refused then, and not before."""
    assert fate(tokens.until(1, 5), 401) is Fate.RIGHT
    assert fate(tokens.until(1 << 40, 5), 401) is Fate.WRONG


def test_what_the_identity_provider_says_of_tokens():
    """Of their names; those that are not active say nothing else."""
    assert tokens.claims(tokens.good(3), now=10.0)["sub"] == tokens.subject(tokens.good(3)) == "user-3"
    assert tokens.claims(tokens.bad("inactive", 3)) == tokens.claims("invented") == {"active": False}
    assert tokens.claims(tokens.bad("expired", 3), now=100.0)["exp"] < 100
    assert tokens.claims(tokens.bad("narrow", 3))["scope"] == "bench.other"
    assert tokens.claims(tokens.until(20, 3), now=19.9)["exp"] == 20
    assert tokens.claims(tokens.until(20, 3), now=20.0) == {"active": False}
    assert tokens.thinks(tokens.slow(60, 3)) == 0.06
    assert len({next(each) for each in [tokens.fresh()] * 9}) == 9


def test_requests_are_composed():
    assert request("/r/1", None) == b"GET /r/1 HTTP/1.1\r\nHost: bench\r\n\r\n"
    with_body = request("/r/1", "t", body=b"ab", keep=False)
    assert with_body.startswith(b"POST /r/1 HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer t\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab" in with_body


def test_a_tally_tells_windows_apart():
    """A request belongs to the time in which it began; one under way at a moment was affected by it."""
    tally = Tally()
    tally.began.extend([1.0, 2.0, 3.0])
    tally.took.extend([0.1, 1.5, 0.2])
    tally.troubles.append(Trouble(2.0, Fate.LOST, ""))
    assert tally.count(Window(2.0, 3.0)) == 1
    assert tally.milliseconds(Window(0.0, 2.5)) == [100.0, 1500.0]
    assert sorted(tally.under_way(3.1, 3.5)) == [200.0, 1500.0]
    assert tally.fates(Window(1.0, 2.0)) == Counter()
    assert tally.fates() == {Fate.LOST: 1}
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0


def test_what_must_be_and_is_not():
    """A count fails the step, a latency is only shown; both stand in the page."""
    report = Report("Title", "About.")
    report.must("1", "let in", 0)
    report.must("13", "introspections", 3, 2, of=500)
    report.must_be("18", "counted", 9, 10)
    report.felt("17", "p99", 3.0, 2, "x quiet")
    report.rows.append({"fault": "killed", "requests": 12, "wrong": 0})
    assert report.failures == ["13 introspections: 3 of 500, not <= 2", "18 counted: 9, not 10"]
    text = page(report, {"cores": 2})
    assert text.count("| NO ") == 3
    assert "| killed |       12 |     0 |" in text


def test_slopes():
    assert slope([0.0, 1.0, 2.0], [5.0, 7.0, 9.0]) == pytest.approx(2.0)
    assert slope([1.0, 1.0], [5.0, 7.0]) == 0.0


@pytest.mark.parametrize("step", SMALL)
async def test_the_step(step):
    """It runs to its end, and everything that must be is so."""
    real(server)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    report = await STEPS[step](parser.parse_args([step, *SMALL[step]]))
    assert report.figures
    assert report.failures == []
    assert page(report, {})


def test_quick_steps_are_steps():
    assert set(QUICK) <= STEPS.keys()
