"""The configuration file, read: the only module of the room that opens files (`tls.py` lets OpenSSL do so)."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fastgate.config.checks import relation_findings
from fastgate.config.document import Document, Finding, parse, standing
from fastgate.config.document import Path as KeyPath
from fastgate.config.interpolation import interpolate
from fastgate.config.known import items, value_of
from fastgate.config.problems import placed, schema_findings
from fastgate.config.provider import Provider
from fastgate.config.redis import Redis
from fastgate.config.redis_url import redis_url
from fastgate.config.schema import Cache, Listener, Root, listeners
from fastgate.config.service import ConfiguredService
from fastgate.config.tls import TlsTrouble, client_context, redis_context, server_context
from fastgate.errors import ConfigError, Problem

MAX_FILE: Final = 8 * 1024 * 1024
"""Octets of a configuration file."""
MAX_SECRET_FILE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration without problems, and where it came from."""

    file: str
    directory: str
    """Where relative paths start."""
    root: Root
    version: str
    """Digest of everything but the secrets: those could be guessed from a digest that is shown."""
    document: Document = field(repr=False)
    """For the lines of problems that show up later."""
    data: Any = field(repr=False)
    """What `root` was made of: the file with its references filled in, secrets and all."""


def load(file: str, environ: Mapping[str, str]) -> Config:
    """Read and check a configuration file. Raises ConfigError with every problem, in the order of the file."""
    document = parse(_text(file))
    return _checked(file, str(Path(file).absolute().parent), document, environ)


def from_environment(environ: Mapping[str, str], upstream: str, listen: str | None = None) -> Config:
    """The configuration of `fastgate run` without a file: one service behind one protected route.

    Reads ISSUER, CLIENT_ID and CLIENT_SECRET. Raises ConfigError that names the variables and options.
    """
    missing = [
        Problem(name, "is not set; set it, or give a configuration file with -c")
        for name in _VARIABLES.values()
        if not environ.get(name)
    ]
    # What is missing gets a value that is valid anywhere, so that the rest is checked all the same.
    provider = {key: environ.get(name) or "https://missing.invalid" for key, name in _VARIABLES.items()}
    data: dict[str, Any] = {
        "identity_providers": {"default": provider},
        "services": [{"name": "upstream", "url": upstream, "routes": [{"name": "all", "paths": ["/"]}]}],
    }
    if listen is not None:
        data["listen"] = listen
    try:
        config = _checked("environment", str(Path.cwd()), Document(data), None)
    except ConfigError as error:
        problems = [Problem(_typed(problem.path), problem.message) for problem in error.problems]
        raise ConfigError(error.file, missing + problems) from None
    if missing:
        raise ConfigError(config.file, missing)
    return config


_VARIABLES: Final = {"issuer": "ISSUER", "client_id": "CLIENT_ID", "client_secret": "CLIENT_SECRET"}


def _typed(path: str) -> str:
    """What somebody without a file typed for what stands at a key path."""
    names = {f"identity_providers.default.{key}": name for key, name in _VARIABLES.items()}
    names |= {"services[0].url": "--upstream", "listen": "--listen", "listen[0].address": "--listen"}
    return names.get(path, path)


def _checked(file: str, directory: str, document: Document, environ: Mapping[str, str] | None) -> Config:
    findings = list(document.findings)
    data = document.data
    unknown: set[KeyPath] = set()
    if environ is not None and not (data is None and findings):
        put_in = interpolate(data, environ, lambda path: _secret(Path(directory, path)))
        data, unknown = put_in.data, put_in.unknown
        findings += put_in.findings
    if data is not None or not findings:
        later = [*schema_findings(data), *relation_findings(data), *_tls_findings(data, directory)]
        findings += [found for found in later if standing(document.lines, found.path) not in unknown]
    if findings:
        raise ConfigError(file, placed(findings, document))
    root = Root.model_validate(data)
    return Config(file, directory, root, _version(root), document, data)


def _version(root: Root) -> str:
    return hashlib.sha256(root.model_dump_json().encode()).hexdigest()[:16]


def _text(file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            raw = stream.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name is not valid"
        raise ConfigError(file, [Problem("", f"cannot be read: {reason}")]) from None
    if len(raw) > MAX_FILE:
        raise ConfigError(file, [Problem("", f"is larger than {MAX_FILE // 1024**2} MiB")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(file, [Problem("", "is not UTF-8 text", line)]) from None


def _secret(path: Path) -> str:
    """The content of a file that `${file:...}` names, without its last line end."""
    with path.open("rb") as stream:
        raw = stream.read(MAX_SECRET_FILE + 1)
    if len(raw) > MAX_SECRET_FILE:
        raise ValueError(f"it is larger than {MAX_SECRET_FILE // 1024} KiB")
    try:
        return raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None


def _tls_findings(data: Any, directory: str) -> Iterator[Finding]:
    """Certificates that cannot be used. They are loaded again when the snapshot is compiled."""
    if not isinstance(data, dict):
        return
    many = isinstance(data.get("listen"), list)
    for index, written in enumerate(listeners(data.get("listen", []))):
        yield from _listener_findings(("listen", index) if many else ("listen",), written, directory)
    for key in ("admin", "events"):
        section = data.get(key)
        if isinstance(section, dict):
            yield from _listener_findings((key, "listen"), section.get("listen"), directory)
    yield from _redis_findings(value_of(Cache, data.get("cache"), "redis"), directory)
    providers = data.get("identity_providers")
    for name, raw in (providers if isinstance(providers, dict) else {}).items():
        if value_of(Provider, raw, "ssl_verify"):
            ca_file = value_of(Provider, raw, "ca_file")
            yield from _ca_findings(("identity_providers", name), ca_file, directory)
    for index, raw in enumerate(items(data.get("services"))):
        tls = value_of(ConfiguredService, raw, "tls")
        if tls is not None and tls.verify:
            yield from _ca_findings(("services", index, "tls"), tls.ca_file, directory)


def _listener_findings(path: KeyPath, written: Any, directory: str) -> Iterator[Finding]:
    tls = value_of(Listener, written, "tls")
    if tls is not None:
        try:
            server_context(tls, directory)
        except TlsTrouble as trouble:
            yield Finding((*path, "tls", trouble.key), trouble.message)


def _redis_findings(redis: Redis | None, directory: str) -> Iterator[Finding]:
    if redis is not None and redis_url(redis.url.get_secret_value()).tls:
        try:
            redis_context(directory, redis.tls)
        except TlsTrouble as trouble:
            yield Finding(("cache", "redis", "tls", trouble.key), trouble.message)


def _ca_findings(path: KeyPath, ca_file: str | None, directory: str) -> Iterator[Finding]:
    if ca_file is not None:
        try:
            client_context(directory, ca_file, verify=True)
        except TlsTrouble as trouble:
            yield Finding((*path, trouble.key), trouble.message)
