"""The programs that check what is in deploy/, and what they say."""

import subprocess
from pathlib import Path

import pytest

from tests.support import programs

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"


@pytest.fixture(scope="session")
def deploy():
    """Give the folder that is checked."""
    return DEPLOY


@pytest.fixture(scope="session")
def checked(part):
    """Give a way to run a program that must end with 0; returns what it said."""

    def run(name, *arguments, cwd=None, stdin=None):
        command = [part(lambda: programs.program(name)), *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said

    return run
