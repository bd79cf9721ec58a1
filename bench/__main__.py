"""`python -m bench [NAME ...]`: measure these cases, or all of them; `--help` says what can be chosen."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import cluster, fleet, load, profile, report, runner
from bench.cases import CASES, Case
from bench.machine import NotPossibleError, progress, settle

COMMANDS = {"profile": profile, "load": load, "fleet": fleet, "cluster": cluster}
"""What is not a case; each has options of its own."""


def main(written: Sequence[str]) -> int:
    """Run what the command line names; returns the exit status."""
    # However it is told to end, it ends what it started.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        if written and written[0] in COMMANDS:
            _command(written[0], written[1:])
        else:
            _cases(written)
    except NotPossibleError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _command(name: str, written: Sequence[str]) -> None:
    module = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"python -m bench {name}", description=module.__doc__)
    module.add_arguments(parser)
    arguments = parser.parse_args(written)
    settle()
    module.run(arguments)


def _cases(written: Sequence[str]) -> None:
    arguments = _parser().parse_args(written)
    chosen = [case for case in CASES if case.name in arguments.names] if arguments.names else list(CASES)
    settle()
    lines = []
    for number, case in enumerate(chosen, 1):
        progress(f"{number} of {len(chosen)}: {case.name}: {case.title}")
        rounds, seconds = arguments.rounds or case.rounds, arguments.seconds or case.seconds
        result = runner.run(case, rounds=rounds, seconds=seconds, others=arguments.other)
        report.save(result)
        lines += result.lines
    print(report.summary(lines))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure fastgate beside its peers: these cases, or all of them.",
        epilog="\n".join([_told(case) for case in CASES] + [f"  {name}: --help" for name in COMMANDS]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [case.name for case in CASES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join([*names, *COMMANDS])}")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default: what the case says)")
    parser.add_argument("--seconds", type=float, help="of load on each subject per round")
    parser.add_argument(
        "--other", type=Path, metavar="CHECKOUT", action="append", default=[], help="another fastgate as well"
    )
    return parser


def _told(case: Case) -> str:
    return f"  {case.name:<10} {case.title} ({case.rounds} rounds of {case.seconds:g} s)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
