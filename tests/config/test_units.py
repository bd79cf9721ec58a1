"""Durations and sizes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgate.config.units import LONGEST, duration, positive_duration, show_duration, show_size, size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("5s", 5.0), ("1m", 60.0), ("1h", 3600.0), ("1.5s", 1.5), (2, 2.0), (0.25, 0.25), ("7", 7.0)],
)
def test_durations_as_the_interface_writes_them(written, seconds):
    """A duration is `500ms`, `5s`, `1m`, `1h` or a number of seconds."""
    assert duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "5 s",
        "5S",
        "-1s",
        -1,
        "1d",
        "1h30m",
        "\u0661s",
        "1e3",
        "5s\n",
        True,
        None,
        [],
        math.inf,
        math.nan,
        1e300,
        10**400,
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(written):
    """Anything else is refused, unit typos and infinities too, by a sentence that says what to write."""
    with pytest.raises(ValueError, match="must be a duration"):
        duration(written)


@given(st.floats(min_value=0, max_value=LONGEST) | st.integers(0, int(LONGEST)))
def test_a_number_of_seconds_is_itself(seconds):
    """A number means seconds, exactly."""
    assert duration(seconds) == seconds


@given(st.integers(0, 5000), st.sampled_from(["ms", "s", "m", "h"]))
def test_showing_a_duration_and_reading_it_again(count, unit):
    """What the reference page shows as a default means the same when it is written."""
    seconds = duration(f"{count}{unit}")
    assert duration(show_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@given(st.text(max_size=12) | st.integers() | st.floats() | st.booleans() | st.none())
def test_any_input_gives_a_bounded_duration_or_a_value_error(written):
    """Never a crash, never a negative, infinite or endless timer."""
    try:
        seconds = duration(written)
    except ValueError:
        return
    assert 0 <= seconds <= LONGEST


def test_zero_where_a_timer_needs_time():
    """A timeout of nothing is refused; a cache lifetime of nothing is not."""
    assert duration("0s") == 0
    with pytest.raises(ValueError, match="longer than 0"):
        positive_duration("0s")


@pytest.mark.parametrize(
    ("written", "octets"), [("64KiB", 65536), ("10MiB", 10485760), (4096, 4096), ("1GiB", 1024**3)]
)
def test_sizes_as_the_interface_writes_them(written, octets):
    """A size is `64KiB`, `10MiB` or a number of bytes."""
    assert size(written) == octets


@pytest.mark.parametrize("written", ["64KB", "64k", "1.5MiB", -1, 0, True, None, 1.5, "99999GiB", ""])
def test_what_is_no_size_is_refused_with_an_example(written):
    """Decimal units are refused instead of guessed at."""
    with pytest.raises(ValueError, match="must be a size"):
        size(written)


@given(st.integers(1, 1024**4))
def test_showing_a_size_and_reading_it_again(octets):
    """What the reference page shows as a default means the same when it is written."""
    assert size(show_size(octets)) == octets
