"""What wrk says at the end."""

import pytest

from bench import wrk

SAID = """\
Running 1s test @ http://127.0.0.1:18000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.44ms  310.00us   9.05ms   93.64%
  42625 requests in 1.00s, 10.37MB read
Requests/sec:  42583.11
measured: {"requests": 42625, "seconds": 1.000984, "lost": 0, "refused": 7, "us": [1440, 1650, 3300, 9050]}
"""


def test_what_came_back_is_read():
    assert wrk.read(SAID) == wrk.Load(42625, 1.000984, 7, 0, {"p50": 1.44, "p90": 1.65, "p99": 3.3, "most": 9.05})


def test_a_run_without_an_end_is_no_measurement():
    with pytest.raises(RuntimeError, match="unable to connect"):
        wrk.read("unable to connect to 127.0.0.1:18000 Connection refused\n")
