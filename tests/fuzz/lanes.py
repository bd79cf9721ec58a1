"""`python -m tests.fuzz.lanes [SECONDS]`: the two lanes must agree on every conversation that coverage leads to.

As in tests/dataplane/test_lanes_agree.py, but found by atheris (libFuzzer) instead of Hypothesis. What
fails is left in the working directory as crash-HASH; `python -m tests.fuzz.lanes crash-HASH` plays it again.
"""

import asyncio
import atexit
import sys

import atheris
import structlog

with atheris.instrument_imports(include=["fastgate.dataplane", "fastgate.gate", "fastgate.policy"]):
    from tests.support.lanes import Choices, conversation, play

_PLAYED = {"conversations": 0, "requests": 0, "express": 0}


def main(written: list[str]) -> None:
    """Fuzz for so many seconds (default 60), or play one file."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    runner = asyncio.Runner()

    def once(octets: bytes) -> None:
        spoken = conversation(Choices(octets))
        general = runner.run(play(spoken, express=False))
        express = runner.run(play(spoken, express=True))
        assert express.compared() == general.compared(), f"the lanes differ:\n{spoken}\n{general}\n{express}"
        _PLAYED["conversations"] += 1
        _PLAYED["requests"] += len(spoken.requests)
        _PLAYED["express"] += express.express

    given = written[0] if written else "60"
    what = [f"-max_total_time={given}", "-max_len=400", "-len_control=0"] if given.isdigit() else [given]
    atheris.Setup(["lanes", *what], once)
    atexit.register(lambda: print(f"the lanes agreed on {_PLAYED}"))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
