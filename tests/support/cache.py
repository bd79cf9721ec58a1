"""Where downloaded parts live between runs, and how they get there once although several test runs may want them."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class Missing(Exception):  # noqa: N818 - reads as a statement
    """A real part cannot be had here; the message is one sentence that says why and what would help."""


def root() -> Path:
    """Return the folder of everything downloaded: `fastgate` in XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fastgate"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Return `folder`, calling `fill` with an empty folder to fill when it is not there yet; all or nothing."""
    if folder.is_dir():
        return folder
    with _locked(folder):
        if folder.is_dir():
            return folder
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            fill(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(folder)
    return folder


def tool(name: str, hint: str) -> str:
    """Return the path of a program; raises Missing with `hint` when there is none."""
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not installed: {hint}")
    return path


def run(what: str, *command: str, cwd: Path | None = None, timeout: float = 600) -> str:
    """Run a program to its end and return its output; raises Missing, naming `what`, when it fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{what}: no end after {timeout:.0f} s ({' '.join(command[:3])} ...)") from None
    if done.returncode:
        program = Path(command[0]).name
        raise Missing(f"{what}: {program} ended with {done.returncode}: {_why(done.stdout + done.stderr)}")
    return done.stdout


def npm_modules(folder: Path, what: str) -> Path:
    """Return a folder with the `node_modules` of the lock file in `folder`, installed once; raises Missing.

    `what` is installed there.
    """
    npm = tool("npm", f"{what} needs Node.js 20 or newer with npm (Debian: apt-get install nodejs npm)")
    lock = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()[:16]

    def install(into: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, into)
        run(
            f"{what} cannot be installed from the npm registry",
            *(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"),
            cwd=into,
        )

    return once(root() / f"npm-{lock}", install)


def _why(said: str) -> str:
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or "error" in line] or lines
    return errors[0][:300] if errors else "without a word"
