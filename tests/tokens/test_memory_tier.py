import pytest

from fastgate.model import INACTIVE, Remembered
from fastgate.tokens.memory import MemoryTier
from tests.tokens.parts import active

GOOD = Remembered(active(sub="alex"), 1.0)
BAD = Remembered(INACTIVE, 1.0)


def key(number):
    return number.to_bytes(32, "big")


def test_a_million_random_tokens_neither_grow_memory_nor_push_out_a_good_one():
    """T25, I11: inactive tokens have a bound of their own."""
    memory = MemoryTier(max_entries=10, max_inactive=5)
    memory.put(b"good", GOOD)
    for number in range(1_000_000):
        memory.put(key(number), BAD)
    assert (memory.active, memory.inactive, len(memory)) == (1, 5, 6)
    assert memory.get(b"good") is GOOD
    assert memory.get(key(999_999)) is BAD
    assert memory.get(key(0)) is None


def test_a_token_that_was_not_used_makes_room():
    """T25: bounded by count; what was used since it was put, or passed over, stays."""
    memory = MemoryTier(max_entries=3, max_inactive=3)
    for number in range(3):
        memory.put(key(number), GOOD)
    memory.get(key(0))
    memory.put(key(3), GOOD)
    assert [memory.get(key(number)) is not None for number in range(4)] == [True, False, True, True]


def test_an_inactive_token_that_was_not_used_makes_room():
    """T25: a bad token that keeps coming stays remembered among others that do not."""
    memory = MemoryTier(max_entries=3, max_inactive=2)
    memory.put(key(0), BAD)
    memory.put(key(1), BAD)
    memory.get(key(0))
    memory.put(key(2), BAD)
    assert [memory.get(key(number)) is not None for number in range(3)] == [True, False, True]


@pytest.mark.parametrize(("first", "then", "counts"), [(GOOD, BAD, (0, 1)), (BAD, GOOD, (1, 0))])
def test_a_newer_answer_takes_the_place_of_an_older_one_of_the_other_kind(first, then, counts):
    """N18, I12: a token is never remembered as active and as inactive."""
    memory = MemoryTier(3, 3)
    memory.put(b"k", first)
    memory.put(b"k", then)
    assert memory.get(b"k") is then
    assert (memory.active, memory.inactive) == counts


def test_putting_again_replaces_and_does_not_count_twice():
    """T3: a refresh replaces the shared entry."""
    memory = MemoryTier(2, 2)
    newer = Remembered(active(sub="alex"), 2.0)
    memory.put(b"k", GOOD)
    memory.put(b"k", newer)
    assert memory.get(b"k") is newer
    assert memory.active == 1


def test_dropping_says_whether_an_active_token_was_known():
    """T24: dropping forgets either kind."""
    memory = MemoryTier(2, 2)
    memory.put(b"good", GOOD)
    memory.put(b"bad", BAD)
    assert memory.drop(b"good") is True
    assert memory.drop(b"good") is False
    assert memory.drop(b"bad") is False
    assert len(memory) == 0


def test_dropping_by_claim_takes_exactly_the_covered_ones():
    """T24: a claim revocation drops what it covers and counts it."""
    memory = MemoryTier(10, 10)
    for number, sub in enumerate(["alex", "sam", "alex"]):
        memory.put(key(number), Remembered(active(sub=sub), 1.0))
    memory.put(key(9), BAD)
    assert memory.drop_if(lambda state: state.claims["sub"] == "alex") == 2
    assert memory.get(key(1)) is not None
    assert memory.get(key(9)) is BAD
    assert memory.active == 1


def test_no_room_at_all_remembers_nothing():
    """T27: a memory of size 0 is allowed."""
    memory = MemoryTier(0, 0)
    memory.put(b"k", GOOD)
    memory.put(b"l", BAD)
    assert len(memory) == 0


def test_clearing_forgets_both_kinds():
    """T25: everything can be forgotten at once."""
    memory = MemoryTier(2, 2)
    memory.put(b"k", GOOD)
    memory.put(b"l", BAD)
    memory.clear()
    assert len(memory) == 0


def test_its_repr_shows_counts_and_no_claim():
    """N26, T12: what is observable holds no fact about a token."""
    memory = MemoryTier(2, 2)
    memory.put(b"k", GOOD)
    assert repr(memory) == "<MemoryTier active=1 inactive=0>"
    assert "alex" not in repr(GOOD)


def test_room_is_found_when_everything_is_in_use():
    """T25: the bound holds, and no `put` looks through more than a few entries."""
    memory = MemoryTier(1000, 10)
    for number in range(1000):
        memory.put(key(number), GOOD)
        memory.get(key(number))
    for number in range(1000, 1010):
        memory.put(key(number), GOOD)
    assert memory.active == 1000
    assert sum(memory.get(key(number)) is None for number in range(200)) == 10


def test_whoever_holds_on_to_an_entry_sees_that_it_is_no_longer_current():
    """T24, N18: dropped, replaced, pushed out or cleared, it may not be used."""
    memory = MemoryTier(2, 2)
    entries = []
    for end in (
        lambda: memory.drop(b"k"),
        lambda: memory.put(b"k", BAD),
        lambda: (memory.put(b"l", GOOD), memory.put(b"m", GOOD)),
        lambda: memory.drop_if(bool),
        memory.clear,
    ):
        memory.clear()
        memory.put(b"k", GOOD)
        entry = memory.entry(b"k")
        entries.append(entry)
        assert entry.current
        entry.used = False
        end()
        assert not entry.current
    assert len({id(entry) for entry in entries}) == 5
