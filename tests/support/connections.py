"""Which process has which end of a connection: read from /proc."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Ends(NamedTuple):
    """The ports of a loopback connection, as the process sees them that holds it."""

    near: int
    far: int


def holders(connections: set[Ends], pids: Iterable[int]) -> dict[Ends, int]:
    """Which of these processes holds each of these loopback connections, as /proc says."""
    inodes: dict[str, Ends] = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ends = Ends(*(int(address.rpartition(":")[2], 16) for address in fields[1:3]))
        if ends in connections:
            inodes[f"socket:[{fields[9]}]"] = ends
    found: dict[Ends, int] = {}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                ends = inodes.get(str(entry.readlink()))
                if ends is not None:
                    found[ends] = pid
    return found
