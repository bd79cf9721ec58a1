"""What several processes counted, added up."""

import orjson

from fastgate.control.tally import Totals, tally
from fastgate.stats import Counter, Stats


def process(requests, seconds, connections):
    """A process that has counted something, as it tells another."""
    stats = Stats()
    stats.requests.add("api", "200", amount=requests)
    stats.connections.add(amount=connections)
    stats.revocations.add("sub")
    for each in seconds:
        stats.upstream_seconds.observe(each, "service")
    entries = Counter("fastgate_cache_entries", "Entries.", "tier", kind="gauge")
    entries.add("memory", amount=connections)
    return orjson.loads(orjson.dumps(tally(stats, [entries], cpu=1.5)))


def test_the_living_and_the_dead():
    """Counters and histograms of processes that have ended stay; what was measured in them ended with them."""
    own = Stats()
    own.config_reloads.add("taken")
    own.revocations.add("sub")
    totals = Totals(own)
    first, second = process(3, [0.002, 9.0], 5), process(4, [0.002], 7)
    stats, gauges = totals.sum([first, second])
    assert stats.requests.total("api") == 7
    assert stats.connections.total() == 12
    assert stats.config_reloads.total("taken") == 1
    row = stats.upstream_seconds.series["service",]
    assert (sum(row[:-1]), round(row[-1], 6)) == (3, 9.004)
    assert [(gauge.name, gauge.values) for gauge in gauges] == [("fastgate_cache_entries", {("memory",): 12})]
    totals.keep(first)
    assert totals.ended_cpu == 1.5
    # All of them did it on one order.
    assert stats.revocations.total() == 1
    stats, gauges = totals.sum([second])
    assert stats.requests.total("api") == 7
    assert sum(stats.upstream_seconds.series["service",][:-1]) == 3
    assert stats.connections.total() == 7
    assert gauges[0].values == {("memory",): 7}


def test_another_version():
    """A process that counts what we do not know, or does not count what we do, is added as far as we know it."""
    said = process(3, [], 1)
    said["stats"]["fastgate_from_the_future"] = [[[], 1]]
    del said["stats"]["fastgate_connections"]
    stats, _ = Totals(Stats()).sum([said])
    assert stats.requests.total("api") == 3
    assert stats.connections.total() == 0
