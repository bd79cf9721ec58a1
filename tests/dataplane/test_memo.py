from fastgate.dataplane.memo import Memo


def test_what_is_asked_for_stays_and_the_rest_goes():
    """T25: a flood of other keys turns the memo over, but never what is in use; its size is bounded."""
    memo = Memo(10)
    memo.put(b"used", 1)
    memo.put(b"unused", 2)
    for number in range(1000):
        memo.put(number, number)
        assert len(memo) <= 20
        assert memo.get(b"used") == 1
    assert memo.get(b"unused") is None


def test_putting_again_replaces():
    """The newest value counts, also where an older one is still around."""
    memo = Memo(2)
    memo.put("a", 1)
    memo.put("b", 2)
    memo.put("a", 3)
    assert memo.get("a") == 3


def test_clearing_forgets_everything():
    memo = Memo(2)
    for key in "abc":
        memo.put(key, key)
    memo.clear()
    assert len(memo) == 0
    assert memo.get("a") is None
