"""What the supervisor and the zygote agree on."""

import signal
from typing import Final

PROTOCOL: Final = 1
"""Of everything that supervisors, zygotes and workers say to each other. A supervisor has no use for another."""
MAX_DESCRIPTORS: Final = 200
"""In one packet; Linux takes 253."""
MAX_PACKET: Final = 64 * 1024
"""Octets."""
NOT_FOR_WORKERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What a terminal sends to a whole process group, and systemd to a whole service: the supervisor acts on them."""
