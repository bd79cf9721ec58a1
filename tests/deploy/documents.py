"""Reading what is in deploy/ as the tests need it."""

import re
from pathlib import Path
from typing import Any

import trustme
import yaml

from fastgate.config.compile import compile_snapshot
from fastgate.config.load import load
from fastgate.model import Snapshot

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
_FILES = re.compile(r"\$\{file:([^}]+)\}")
_AUTHORITIES = re.compile(r"\bca_file: [\w/.-]+")
_NAMES = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def several(file: Path) -> list[dict[str, Any]]:
    """Return every document of a YAML file."""
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def uncommented(file: Path) -> str:
    """Return a text without its comments."""
    return re.sub(r"(?m)(^|\s)#.*$", "", file.read_text())


def secret_files(file: Path) -> set[str]:
    """Return which files a configuration reads."""
    return set(_FILES.findall(uncommented(file)))


def variables(file: Path) -> set[str]:
    """Return which variables a configuration needs: those without a default."""
    return set(_NAMES.findall(uncommented(file)))


def compiled(file: Path, folder: Path, **environ: str) -> Snapshot:
    """Compile a configuration with invented secrets and authorities in `folder`; raises ConfigError."""
    trustme.CA().cert_pem.write_to_path(folder / "ca.pem")
    text = _AUTHORITIES.sub(rf"ca_file: {folder}/ca.pem", file.read_text())
    for number, path in enumerate(sorted(secret_files(file))):
        secret = folder / f"secret-{number}"
        secret.write_text(f"{number}invented-for-a-test-and-long-enough")
        text = text.replace(f"${{file:{path}}}", f"${{file:{secret}}}")
    copy = folder / file.name
    copy.write_text(text)
    return compile_snapshot(load(str(copy), environ))
