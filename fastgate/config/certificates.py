"""The certificate files that a configuration names: their content belongs to it, although the file does not change."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fastgate.config.load import Config
from fastgate.config.tls import absolute


def certificates(config: Config) -> str:
    """Digest every certificate and key that is loaded when a worker begins."""
    digest = hashlib.sha256()
    for file in _files(config):
        digest.update(f"{file}\0".encode())
        with suppress(OSError):  # said when the snapshot was compiled, or gone since
            digest.update(hashlib.sha256(Path(absolute(config.directory, file)).read_bytes()).digest())
    return digest.hexdigest()


def _files(config: Config) -> Iterator[str]:
    root = config.root
    listeners = [*root.listen, *(each.listen for each in (root.admin, root.events) if each is not None)]
    for tls in (listener.tls for listener in listeners):
        if tls is not None:
            yield from filter(None, (tls.certificate, tls.key, tls.client_ca))
    for provider in root.identity_providers.values():
        if provider.ca_file is not None:
            yield provider.ca_file
    for service in root.services:
        if service.tls.ca_file is not None:
            yield service.tls.ca_file
