"""What several workers say, as one."""

import pytest

from fastgate.supervisor.adding_up import added_up


@pytest.mark.parametrize(
    ("said", "merged"),
    [
        ([], None),
        ([None, None], None),
        ([1, None, 2], 3),
        ([True, False], False),
        ([True, True], True),
        (["a", "a"], "a"),
        (["b", "a"], "a, b"),
        ([["x"], ["x", "y"]], ["x", "y"]),
        ([{"a": 1, "b": {"c": True}}, {"a": 2, "b": {"c": True}, "d": "e"}], {"a": 3, "b": {"c": True}, "d": "e"}),
    ],
)
def test_values_of_every_kind(said, merged):
    """Numbers are added, flags hold when they hold for all, mappings are merged, what differs is named."""
    assert added_up(said) == merged
