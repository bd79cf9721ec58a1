"""TLS contexts out of certificate files. OpenSSL reads them, so this module does I/O, like `load.py`."""

import ssl
from pathlib import Path
from typing import Final

from fastgate.config.redis import RedisTls
from fastgate.config.schema import ListenerTls

ALPN: Final = ["http/1.1"]


class TlsTrouble(Exception):  # noqa: N818 - becomes a finding
    """A file that cannot be used: the key that names it and what to do."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
        self.message = message


def server_context(tls: ListenerTls, directory: str) -> ssl.SSLContext:
    """For a listener: TLS 1.2 at least, client certificates demanded where `client_ca` is given (RFC 9325)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    _identify(context, directory, tls.certificate, tls.key)
    if tls.client_ca is not None:
        _trust(context, _readable(directory, tls.client_ca, "client_ca", "CERTIFICATE"), "client_ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(directory: str, ca_file: str | None, *, verify: bool) -> ssl.SSLContext:
    """Towards a service or an identity provider: TLS 1.2 at least, verified unless the file says otherwise."""
    context = _client(directory, ca_file, verify=verify)
    context.set_alpn_protocols(ALPN)
    return context


def redis_context(directory: str, tls: RedisTls) -> ssl.SSLContext:
    """Towards Redis: the same, with a certificate of our own where there is one."""
    context = _client(directory, tls.ca_file, verify=tls.verify)
    if tls.certificate is not None and tls.key is not None:
        _identify(context, directory, tls.certificate, tls.key)
    return context


def _client(directory: str, ca_file: str | None, *, verify: bool) -> ssl.SSLContext:
    if ca_file is None:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _trust(context, _readable(directory, ca_file, "ca_file", "CERTIFICATE"), "ca_file")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _identify(context: ssl.SSLContext, directory: str, certificate_file: str, key_file: str) -> None:
    certificate = _readable(directory, certificate_file, "certificate", "CERTIFICATE")
    key = _readable(directory, key_file, "key", "PRIVATE KEY")
    try:
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise TlsTrouble("key", "is not the private key of the certificate") from None
        message = "cannot be used together with the certificate: is the key encrypted, or one of the files damaged?"
        raise TlsTrouble("key", message) from None


def absolute(directory: str, file: str) -> str:
    """A file of the configuration: relative paths start where the configuration file is."""
    return str(Path(directory, file))


def _trust(context: ssl.SSLContext, file: str, key: str) -> None:
    try:
        context.load_verify_locations(file)
    except (ssl.SSLError, OSError):
        raise TlsTrouble(key, "holds no usable certificates (PEM)") from None


def _readable(directory: str, file: str, key: str, kind: str) -> str:
    path = absolute(directory, file)
    try:
        text = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        hint = "" if Path(file).is_absolute() else f" (relative paths start in {directory})"
        raise TlsTrouble(key, f"names a file that cannot be read: {reason}{hint}") from None
    if f"{kind}-----".encode() not in text:
        raise TlsTrouble(key, f"names a file that holds no {kind.lower()} in PEM form")
    return path
