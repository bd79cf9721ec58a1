"""What is measured: every case with its subjects and what it must show. The one place to add or change a case."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench import parts, streams, traffic
from bench.crowd import Beside, Burst, Crowded
from bench.figures import Target
from bench.loads import Load, Requests
from bench.parts import Part
from bench.proxies import (
    ACCESS_LOG,
    FASTGATE,
    GENERAL_LANE,
    HAPROXY,
    MOD_AUTH_OPENIDC,
    MOD_OAUTH2,
    NGINX,
    NGINX_LUA,
    Gateway,
    Proxy,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is measured under which load."""

    name: str
    proxy: Proxy
    load: Load
    against: str = ""
    """The subject that its ratio is taken to."""


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement: its subjects take turns in rounds."""

    name: str
    title: str
    about: str
    """What is done, for those who read the result."""
    subjects: tuple[Subject, ...]
    targets: tuple[Target, ...]
    figure: str = "cpu_us"
    """The figure that ratios are taken of."""
    rounds: int = 11
    seconds: float = 1.0
    """Of load on each subject per round."""
    origin: Callable[[], AbstractContextManager[Part]] = parts.hello_origin
    remembered: bool = True
    """Whether the identity provider must not be asked during the rounds."""


def _each(load: Load, *proxies: Proxy, against: Proxy = NGINX) -> tuple[Subject, ...]:
    """Put several proxies under the same load."""
    return tuple(Subject(proxy.name, proxy, load, "" if proxy is against else against.name) for proxy in proxies)


def _cpu(text: str, at_most: float, *, subject: str = FASTGATE.name, against: str = NGINX.name) -> Target:
    return Target(text, subject, at_most, "cpu_us", against)


def _moved(name: str, load: Load) -> tuple[Subject, Subject]:
    beside = f"nginx, {name}"
    return (Subject(beside, NGINX, load), Subject(f"fastgate, {name}", FASTGATE, load, beside))


def _moves(text: str, at_most: float, name: str) -> Target:
    return Target(text, f"fastgate, {name}", at_most, "cpu_s_per_gb", f"nginx, {name}")


def _streams_origin() -> AbstractContextManager[Part]:
    return parts.stub("streams")


HIT = Requests(traffic.same)
ONE_TOKEN = Requests(traffic.one_token)
ZIPF = Requests(traffic.zipf, each_once=True)
LIVE = Requests(traffic.same, connections=32, pause_ms=10)
ONE_OF_FOUR = Gateway("fastgate, one of four workers", inactive_rate=50)
# Each of the two asks about a token once: the check that counts questions is for one worker.
TWO_WORKERS = Gateway("fastgate, 2 workers", workers=2, guards=False)
CROWDED = Gateway("fastgate, crowded", connections=12_000)
_MOVES = {
    "down": streams.down,
    "down, chunked": streams.down_chunked,
    "up": streams.up,
    "up, chunked": streams.up_chunked,
}

CASES = (
    Case(
        "hit",
        "CPU per request of a remembered token",
        "GET with one token that is known already, 64 connections, an answer of 85 octets. nginx and HAProxy only pass "
        "it on; all others verify the token and require a scope.",
        _each(
            HIT,
            NGINX,
            FASTGATE,
            GENERAL_LANE,
            ACCESS_LOG,
            HAPROXY,
            NGINX_LUA,
            MOD_AUTH_OPENIDC,
            MOD_OAUTH2,
        ),
        (
            _cpu("remembered token, GET", 1.3),
            _cpu("the same, nginx + Lua doing the same work", 1.0, against=NGINX_LUA.name),
            _cpu("general lane", 3.5, subject=GENERAL_LANE.name),
            _cpu("mod_auth_openidc, same work", 0.5, against=MOD_AUTH_OPENIDC.name),
            _cpu("mod_oauth2, same work", 0.5, against=MOD_OAUTH2.name),
        ),
    ),
    Case(
        "varied",
        "CPU per request when the header differs every time",
        "GET with ten header fields, of which Traceparent, Tracestate and X-Request-Id are new in every request.",
        _each(Requests(traffic.varied), NGINX, FASTGATE, GENERAL_LANE, HAPROXY),
        (_cpu("headers that differ each time, 10 fields", 1.5),),
    ),
    Case(
        "post",
        "CPU per request of a small POST",
        "POST of 1024 octets of JSON; the origin reads all of it before it answers.",
        _each(Requests(traffic.post), NGINX, FASTGATE, GENERAL_LANE, HAPROXY),
        (_cpu("POST 1 KiB JSON", 1.5),),
        origin=parts.reading_origin,
    ),
    Case(
        "tokens",
        "CPU per request of many tokens",
        f"GET with {traffic.TOKENS:,} tokens, the k-th used 1/k times as often as the first; each was used before.",
        (
            Subject("one token", FASTGATE, ONE_TOKEN),
            Subject("10,000 tokens, Zipf", FASTGATE, ZIPF, "one token"),
        ),
        (_cpu("10,000 tokens, Zipf", 1.1, subject="10,000 tokens, Zipf", against="one token"),),
    ),
    Case(
        "workers",
        "CPU per request of two workers",
        "GET with one token that is known already, 64 connections for each worker with a pause of 10 ms on average, by "
        "one worker and by two that share a core. All processes of the gateway are in the figures.",
        (
            Subject("fastgate", FASTGATE, Requests(traffic.same, pause_ms=10)),
            Subject(
                "fastgate, 2 workers", TWO_WORKERS, Requests(traffic.same, connections=128, pause_ms=10), "fastgate"
            ),
        ),
        (_cpu("two workers, CPU per request", 1.1, subject="fastgate, 2 workers", against="fastgate"),),
    ),
    Case(
        "inactive",
        "CPU per request of a token that is remembered as inactive",
        "GET, refused with 401, beside the same GET with an active token, which is passed on.",
        (
            Subject("active: passed on", FASTGATE, HIT),
            Subject("inactive: 401", FASTGATE, Requests(traffic.inactive, refused=True), "active: passed on"),
        ),
        (_cpu("remembered inactive token", 0.7, subject="inactive: 401", against="active: passed on"),),
    ),
    Case(
        "streams",
        "CPU per gigabyte of large bodies",
        "100 MB each way, plaintext, one at a time; SHA-256 is compared at the other end.",
        tuple(subject for name, move in _MOVES.items() for subject in _moved(name, streams.Transfer(move))),
        (
            _moves("100 MB down", 0.4, "down"),
            _moves("100 MB up", 0.6, "up"),
        ),
        figure="cpu_s_per_gb",
        seconds=0,
        origin=_streams_origin,
    ),
    Case(
        "events",
        "Age of server-sent events at their arrival",
        "A hundred events, twenty milliseconds apart.",
        _each(streams.Events(), NGINX, FASTGATE),
        (),
        figure="p99_ms",
        rounds=5,
        seconds=0,
        origin=_streams_origin,
    ),
    Case(
        "slow",
        "Memory while a slow client reads",
        "1 GB to a client that reads 1 MB/s for the time given, then the rest as fast as it comes; SHA-256 is "
        "compared. The gateway's resident memory at every reading, against what it was after 20 MB to such a client.",
        (Subject("fastgate", FASTGATE, streams.SlowReader()),),
        (Target("1 GB to a 1 MB/s reader", "fastgate", 5, "rss_growth_mb", unit="MB of RSS more", worst=True),),
        figure="rss_growth_mb",
        rounds=1,
        seconds=45,
        origin=_streams_origin,
    ),
    Case(
        "idle",
        "10,000 idle connections",
        "GET over 32 connections with a pause of 10 ms on average, by two gateways: one has nobody else, the other "
        "10,000 kept-alive connections that have had one answer each. Memory is the gateway's, without the kernel's "
        "buffers.",
        (
            Subject("nobody else", FASTGATE, Crowded(LIVE, 0)),
            Subject("10,000 idle", CROWDED, Crowded(LIVE, 10_000), "nobody else"),
        ),
        (
            Target("10,000 idle connections, memory of each", "10,000 idle", 20, "kib_each", unit="KiB"),
            Target("10,000 idle connections, p99 of live traffic", "10,000 idle", 2, "p99_ms", "nobody else"),
            Target("idle worker", "nobody else", 60, "rss_mb", unit="MB of RSS"),
        ),
        figure="p99_ms",
        seconds=2,
    ),
    Case(
        "burst",
        "One unknown token, many requests at once",
        "500 requests at once with a token about which the identity provider thinks 400 ms; time to the last answer.",
        (
            Subject("all stay", FASTGATE, Burst(500, 400)),
            Subject("the first leaves", FASTGATE, Burst(500, 400, one_leaves=True)),
        ),
        (
            Target("cold burst, introspections", "all stay", 1, "introspections", worst=True),
            Target("cold burst, slowest answer", "all stay", 450, "slowest_ms", unit="ms"),
            Target("cold burst, the first leaves", "the first leaves", 1, "introspections", worst=True),
        ),
        figure="slowest_ms",
        rounds=5,
        seconds=0,
        remembered=False,
    ),
    Case(
        "hanging",
        "Live traffic while the identity provider hangs",
        "GET with a remembered token over 32 connections with a pause of 10 ms on average: alone, and while 200 others "
        "at any time wait for answers about tokens of which the identity provider says nothing.",
        (
            Subject("quiet", FASTGATE, LIVE),
            Subject("200 wait", FASTGATE, Beside(LIVE, traffic.cold, 300, 1000), "quiet"),
        ),
        (Target("p99 of hits while the IdP hangs", "200 wait", 2, "p99_ms", "quiet"),),
        figure="p99_ms",
        seconds=2,
        remembered=False,
    ),
    Case(
        "flood",
        "Live traffic beside a flood of invented tokens",
        "GET with a remembered token over 32 connections with a pause of 10 ms on average: alone, and while 250 others "
        "send 1,250 requests a second, each with a token of its own that nobody has issued: what one of four workers "
        "gets of 5,000 a second, and of the 200 questions that are the default. Then all of these at one worker. What "
        "the load generator does to itself is seen where the others send one token that is remembered as inactive.",
        (
            Subject("quiet", ONE_OF_FOUR, LIVE),
            Subject("as many, one inactive token", ONE_OF_FOUR, Beside(LIVE, traffic.inactive, 250, 200), "quiet"),
            Subject("its share of 5,000 a second", ONE_OF_FOUR, Beside(LIVE, traffic.invented, 250, 200), "quiet"),
            Subject("all 5,000 a second", FASTGATE, Beside(LIVE, traffic.invented, 250, 50), "quiet"),
        ),
        (Target("p99 of hits beside invented tokens", "its share of 5,000 a second", 2, "p99_ms", "quiet"),),
        figure="p99_ms",
        seconds=2,
        remembered=False,
    ),
)
