"""Where commands get a token from: a file or standard input, never the command line (it is visible to everybody)."""

import select
import sys
from pathlib import Path
from typing import Final

from fastgate.cli.output import complain, give_up

PATIENCE: Final = 10.0
"""Seconds to wait for the first octet on standard input, which may be a pipe that nobody writes to."""
MAX_TOKEN: Final = 1024 * 1024


def read_token(file: str | None) -> str | None:
    """The token in a file ("-" is standard input), or what is piped in; None when there is none."""
    if file is not None and file != "-":
        try:
            with Path(file).open("rb") as stream:
                return _text(stream.read(MAX_TOKEN))
        except (OSError, ValueError) as error:
            give_up(f"cannot read the token from {file}: {getattr(error, 'strerror', None) or 'not a file'}")
    if sys.stdin is None or (file is None and sys.stdin.isatty()):
        return None
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError):
        return _text(sys.stdin.read(MAX_TOKEN).encode())
    if file is None and not select.select([descriptor], [], [], PATIENCE)[0]:
        complain(f"fastgate: no token came on standard input within {PATIENCE:g} s; going on without")
        return None
    return _text(sys.stdin.buffer.read(MAX_TOKEN))


def _text(octets: bytes) -> str | None:
    # Octets that are not ASCII must arrive where tokens are checked, not end the command.
    return octets.decode("ascii", "backslashreplace").strip() or None
