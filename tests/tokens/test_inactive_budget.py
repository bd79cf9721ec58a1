import pytest

from fastgate.tokens.budget import InactiveBudget


@pytest.fixture
def budget(clock):
    return InactiveBudget(rate=10.0, burst=20.0, monotonic=clock.monotonic)


def charge(budget):
    """Ask, and get an inactive answer."""
    budget.asked()
    budget.answered(inactive=True)


def spend(budget, most):
    """Ask as often as the budget allows, every answer being inactive."""
    asked = 0
    while asked < most and budget.wait() == 0.0:
        charge(budget)
        asked += 1
    return asked


def test_a_flood_is_capped_at_the_rate(clock, budget):
    """T25, I11: the burst at first, then the rate, however many come."""
    assert spend(budget, 1000) == 20
    assert budget.wait() == pytest.approx(0.1)
    total = 0
    for _ in range(100):
        clock.pass_(0.1)
        total += spend(budget, 1000)
    assert total == pytest.approx(100, abs=1)


def test_the_debt_of_questions_under_way_is_paid_in_bounded_time(clock, budget):
    """T25: a thousand late answers do not lock unknown tokens out for minutes."""
    for _ in range(1000):
        charge(budget)
    assert budget.wait() == pytest.approx(2.1)
    clock.pass_(2.2)
    assert budget.wait() == 0.0


def test_rest_fills_it_up_to_the_burst_only(clock, budget):
    """T25: an hour of quiet does not save up for a flood."""
    clock.pass_(3600)
    assert spend(budget, 1000) == 20


def test_a_rate_below_one_still_lets_one_through(clock):
    """T25: a burst is at least one answer."""
    budget = InactiveBudget(rate=0.5, burst=0.5, monotonic=clock.monotonic)
    assert spend(budget, 10) == 1
    clock.pass_(2)
    assert spend(budget, 10) == 1


def test_questions_under_way_count_for_what_they_will_cost(clock, budget):
    """T25: a flood is not let through in bursts, as long as its answers take."""
    spend(budget, 1000)
    asked = 0
    for _ in range(1000):
        clock.pass_(0.01)
        while budget.wait() == 0.0 and asked < 1000:
            budget.asked()  # and no answer comes
            asked += 1
    assert asked == pytest.approx(20 / 0.75, abs=8)
    for _ in range(asked):
        budget.answered(inactive=None)


def test_good_tokens_by_the_thousand(budget):
    """T25: after a restart everybody comes with a token that is not known yet."""
    for _ in range(1000):
        budget.asked()
    assert budget.wait() == 0.0
    for _ in range(1000):
        budget.answered(inactive=False)
    assert budget.wait() == 0.0


def test_many_at_the_same_moment(clock, budget):
    """T25: what comes in one turn of the loop is let in only as far as it may ask."""
    spend(budget, 1000)
    clock.pass_(0.5)
    assert [budget.admit() for _ in range(100)].count(0.0) == pytest.approx(5 / 0.75, abs=2)
    clock.pass_(0.1)  # nobody has asked: all of it is there again, and more
    assert [budget.admit() for _ in range(100)].count(0.0) == pytest.approx(6 / 0.75, abs=2)
    assert budget.wait() == 0.0
