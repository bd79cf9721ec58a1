"""The text format, read back by prometheus_client's own parser."""

import os
import platform
import subprocess
import sys
from threading import Thread

from prometheus_client.parser import text_string_to_metric_families

from fastgate import __version__
from fastgate.control.metrics import Processes, exposition
from fastgate.stats import SECONDS, Counter, Stats


def parsed(stats, gauges=()):
    return {family.name: family for family in text_string_to_metric_families(exposition(stats, gauges).decode())}


def value(family, name, **labels):
    (found,) = [s.value for s in family.samples if s.name == name and s.labels == labels]
    return found


def test_a_fresh_process():
    """Every family of Stats is announced with its help and type before anything happened."""
    stats = Stats()
    families = parsed(stats)
    for family in stats.families():
        assert families[family.name].documentation == family.help
        assert families[family.name].type == getattr(family, "kind", "histogram")
    assert value(families["fastgate_requests_active"], "fastgate_requests_active") == 0


def test_counters_and_gauges():
    stats = Stats()
    stats.requests.add("anything", "200", amount=3)
    stats.requests.add("anything", "401")
    stats.connections.add(amount=2)
    families = parsed(stats)
    requests = families["fastgate_requests"]
    assert value(requests, "fastgate_requests_total", route="anything", status="200") == 3
    assert value(requests, "fastgate_requests_total", route="anything", status="401") == 1
    assert value(families["fastgate_connections"], "fastgate_connections") == 2


def test_a_histogram():
    """Buckets hold everything up to their bound, +Inf everything, and the sum is in seconds."""
    stats = Stats()
    for seconds in (0.0005, 0.001, 0.02, 99.0):
        stats.upstream_seconds.observe(seconds, "httpbin")
    family = parsed(stats)["fastgate_upstream_seconds"]
    buckets = {float(s.labels["le"]): s.value for s in family.samples if s.name == "fastgate_upstream_seconds_bucket"}
    assert list(buckets) == [*SECONDS, float("inf")]
    assert (buckets[0.001], buckets[0.01], buckets[0.025], buckets[30.0]) == (2, 2, 3, 3)
    assert buckets[float("inf")] == 4
    assert value(family, "fastgate_upstream_seconds_count", service="httpbin") == 4
    assert abs(value(family, "fastgate_upstream_seconds_sum", service="httpbin") - 99.0215) < 1e-9


def test_gauges_that_are_read_when_asked():
    entries = Counter("fastgate_cache_entries", "Remembered.", "tier", "state", kind="gauge")
    entries.add("memory", "active", amount=41)
    family = parsed(Stats(), [entries])["fastgate_cache_entries"]
    assert (family.type, family.samples[0].value) == ("gauge", 41)


def test_a_configured_name_with_quotes():
    """Names come from the configuration and may hold anything; they survive the way there and back."""
    stats = Stats()
    name = 'a "route"\\ with\nlines'
    stats.denials.add(name, "scope")
    assert value(parsed(stats)["fastgate_denials"], "fastgate_denials_total", route=name, reason="scope") == 1


def test_what_is_running():
    families = parsed(Stats())
    (build,) = families["fastgate_build_info"].samples
    assert build.labels["version"] == __version__
    assert build.labels["python"] == platform.python_version()
    assert set(build.labels) == {"version", "python", "aiohttp"}
    assert families["process_resident_memory_bytes"].samples[0].value > 0


def test_several_processes():
    """What processes use is added up, with what those used that have ended; the start is that of the first."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        one, both = (
            {
                sample.name: sample.value
                for family in text_string_to_metric_families(exposition(Stats(), (), processes).decode())
                for sample in family.samples
                if family.name.startswith("process_")
            }
            for processes in (Processes((os.getpid(),)), Processes((os.getpid(), other.pid, 2**22 + 1), spent=1000.0))
        )
        other.communicate(b"\n")
    assert both["process_resident_memory_bytes"] > one["process_resident_memory_bytes"] + 2**20
    assert both["process_cpu_seconds_total"] > one["process_cpu_seconds_total"] + 999
    for name in ("process_start_time_seconds", "process_max_fds"):
        assert both[name] == one[name]


def test_counting_goes_on_while_a_thread_exposes():
    """A scrape beside the counting thread never trips over a label that appears meanwhile."""
    stats = Stats()
    broken: list[Exception] = []

    def scrape():
        try:
            for _ in range(20):
                exposition(stats)
        except Exception as error:  # noqa: BLE001
            broken.append(error)

    thread = Thread(target=scrape)
    thread.start()
    n = 0
    while thread.is_alive() and n < 20_000:
        stats.denials.add(f"route{n % 500}", "scope")
        stats.upstream_seconds.observe(0.01, f"service{n % 50}")
        n += 1
    thread.join()
    assert broken == []
