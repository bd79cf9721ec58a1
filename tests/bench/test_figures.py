"""Ratios, verdicts and tables of the bench."""

from bench.figures import Spread, Target, figures, judge, ratios, shown, spread, table

ROUNDS = [
    {"nginx": {"cpu_us": 20.0, "p99_ms": 1.0}, "fastgate": {"cpu_us": 30.0, "p99_ms": 4.0}},
    {"nginx": {"cpu_us": 40.0, "p99_ms": 1.0}, "fastgate": {"cpu_us": 44.0, "p99_ms": 2.0}},
    {"nginx": {"cpu_us": 10.0, "p99_ms": 2.0}, "fastgate": {"cpu_us": 13.0, "p99_ms": 2.0}},
]
CPU = Target("remembered token", "fastgate", 1.3, "cpu_us", "nginx")


def test_a_ratio_is_taken_within_each_round():
    """The median of the ratios (1.3), not the ratio of the medians (1.5)."""
    assert ratios(ROUNDS, "fastgate", "nginx", "cpu_us") == [1.5, 1.1, 1.3]
    assert judge(CPU, ROUNDS).found == Spread(1.3, 1.1, 1.5)


def test_a_target_is_met_up_to_its_bound():
    assert judge(CPU, ROUNDS).met is True
    assert judge(Target("stricter", "fastgate", 1.29, "cpu_us", "nginx"), ROUNDS).met is False


def test_the_worst_round_counts_where_that_is_the_target():
    assert judge(Target("median", "fastgate", 2, "p99_ms"), ROUNDS).met is True
    assert judge(Target("worst", "fastgate", 2, "p99_ms", worst=True), ROUNDS).met is False


def test_who_was_not_measured_is_neither_good_nor_bad():
    assert judge(Target("absent", "fastgate", 1, "cpu_us", "Apache"), ROUNDS).met is None
    assert judge(Target("absent", "Apache", 1, "cpu_us", "nginx"), ROUNDS).found is None
    assert figures(ROUNDS, "Apache", "cpu_us") == []
    assert spread([]) is None


def test_a_target_says_what_it_compares():
    assert CPU.bound == "<= 1.3 x nginx"
    assert Target("memory", "fastgate", 20, "kib_each", unit="KiB").bound == "<= 20 KiB"


def test_figures_are_shown_with_the_digits_that_count():
    assert [shown(value) for value in (0.061, 1.304, 13.04, 130.4, 21261.2)] == ["0.06", "1.30", "13.0", "130", "21261"]
    assert str(Spread(1.3, 1.1, 1.5)) == "1.30 (1.10-1.50)"
    assert str(Spread(2.0, 2.0, 2.0)) == "2.00"


def test_a_table_can_be_read_as_it_is():
    assert table(["proxy", "us", "met"], [["nginx", "20.1", "yes"], ["fastgate", "9", "NO"]]) == (
        "| proxy    |   us | met |\n|----------|-----:|----:|\n| nginx    | 20.1 | yes |\n| fastgate |    9 |  NO |\n"
    )
    assert table(["a"], [["b"]], words=1) == "| a |\n|---|\n| b |\n"
