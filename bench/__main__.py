"""`python -m bench NAME [options]`: one measurement; `python -m bench NAME --help` says what can be chosen."""

import argparse
import signal
import sys

from bench import burst, hit, idle, load, profile, streams
from bench.machine import NotPossibleError, settle

MEASUREMENTS = {"hit": hit, "burst": burst, "streams": streams, "idle": idle, "profile": profile, "load": load}


def main() -> int:
    """Run what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure fastgate.")
    commands = parser.add_subparsers(metavar="NAME", required=True)
    for name, module in MEASUREMENTS.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").partition("\n")[0])
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args()
    # However it is told to end, it ends what it started.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        settle()
        arguments.run(arguments)
    except NotPossibleError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
