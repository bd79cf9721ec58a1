from fastgate.tokens.quiet import QUIET_SECONDS, Quiet


def test_one_line_of_a_kind_now_and_then(clock):
    """T12: whoever can cause lines cannot fill a disk; what was left out is counted."""
    quiet = Quiet(clock)
    assert quiet.suppressed("a") == 0
    assert [quiet.suppressed("a") for _ in range(3)] == [None] * 3
    assert quiet.suppressed("b") == 0
    clock.pass_(QUIET_SECONDS)
    assert quiet.suppressed("a") == 3
    assert quiet.suppressed("a") is None


def test_what_was_told_is_over(clock):
    """The next line is news again."""
    quiet = Quiet(clock)
    quiet.suppressed("a")
    assert quiet.suppressed("over") == 0
    quiet.over("over")
    assert quiet.suppressed("a") == 0
    assert quiet.suppressed("over") is None
