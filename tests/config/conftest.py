"""A file written for one test, and what the room says about it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fastgate.config.compile import compile_snapshot
from fastgate.config.load import Config, load
from fastgate.errors import ConfigError
from fastgate.model import Snapshot

ENVIRON = {"SECRET": "hunter2-hunter2"}

PROVIDER = """\
identity_providers:
  idp: {issuer: https://idp.example.com/realms/a, client_id: gate, client_secret: "${SECRET}"}
"""
SERVICE = """\
services:
  - name: api
    url: http://127.0.0.1:9/
    routes:
      - paths: [/]
"""
VALID = PROVIDER + SERVICE


@pytest.fixture
def load_text(tmp_path: Path) -> Callable[..., Config]:
    def load_it(text: str, environ: Mapping[str, str] = ENVIRON) -> Config:
        file = tmp_path / "fastgate.yaml"
        file.write_text(text, encoding="utf-8")
        return load(str(file), environ)

    return load_it


@pytest.fixture
def problems(load_text) -> Callable[..., list[str]]:
    """Every problem as `line path: message`."""

    def tell(text: str, environ: Mapping[str, str] = ENVIRON) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            compile_snapshot(load_text(text, environ))
        return [f"{problem.line} {problem.path}: {problem.message}" for problem in caught.value.problems]

    return tell


@pytest.fixture
def snapshot(load_text) -> Callable[..., Snapshot]:
    def compiled(text: str, environ: Mapping[str, str] = ENVIRON) -> Snapshot:
        return compile_snapshot(load_text(text, environ))

    return compiled
