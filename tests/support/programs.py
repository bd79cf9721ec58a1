"""Programs that check what is in deploy/: from Debian, and from the npm registry where Debian has none."""

import shutil
from pathlib import Path

from tests.support import cache

DEBIAN = {
    "haproxy": "haproxy",
    "nginx": "nginx",
    "promtool": "prometheus",
    "redis-server": "redis-server",
    "shellcheck": "shellcheck",
    "systemd-analyze": "systemd",
}
"""Which package has which program."""
_DCLINT = Path(__file__).parent / "dclint"


def program(name: str) -> str:
    """Return the path of a program; raises cache.Missing."""
    return cache.tool(name, f"it checks what is in deploy/ (Debian: apt-get install {DEBIAN[name]})")


def dclint() -> tuple[str, str]:
    """Return the command of the checker of compose files, installing it once per lock file; raises cache.Missing."""
    node = cache.tool("node", "dclint needs Node.js 20 or newer (Debian: apt-get install nodejs)")
    return node, str(cache.npm_modules(_DCLINT, "dclint") / "node_modules" / "dclint" / "bin" / "dclint.cjs")


def checkers() -> None:
    """Have everything; raises cache.Missing with all that is missing."""
    missing = [DEBIAN[name] for name in DEBIAN if shutil.which(name) is None]
    if missing:
        raise cache.Missing(f"what checks deploy/ is not installed: apt-get install {' '.join(missing)}")
    dclint()
