"""`fastgate check --connect`: whether everything that the configuration names can be reached from here."""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable
from typing import Final, NamedTuple

from fastgate.clock import SystemClock
from fastgate.errors import Cannot, IntrospectionError
from fastgate.model import IdentityProvider, Redis, Service, Snapshot, Target
from fastgate.stats import Stats
from fastgate.tokens.introspector import Introspector
from fastgate.tokens.keys import Keys
from fastgate.tokens.notifications import notifiers

ADVICE: Final = {
    Cannot.TIMEOUT: "is it reachable from here? `timeout` may be too short",
    Cannot.UNAVAILABLE: "is it running, and reachable from here?",
    Cannot.MALFORMED: "is this the issuer, or the introspection endpoint, of an authorization server (RFC 7662)?",
    Cannot.REJECTED: "check client_id, client_secret and client_auth, and that this client may introspect",
    Cannot.OVERLOADED: "try again",
}
KEYS_ADVICE: Final = {
    Cannot.UNAVAILABLE: "is it running, and reachable from here? is `jwks_uri` right?",
    Cannot.MALFORMED: "is this the address of a key set (RFC 7517)? see `jwks_uri`",
}


class Finding(NamedTuple):
    """One thing that was tried."""

    subject: str
    trouble: str
    """What went wrong and what to do; empty when nothing did."""
    advice: str = ""
    """What works, and should be known."""


async def findings(snapshot: Snapshot) -> list[Finding]:
    """Try everything at once; each has its own deadline."""
    tries: list[Awaitable[Finding]] = [_provider(provider) for provider in snapshot.providers.values()]
    tries += [
        _keys(provider, jwks_uri)
        for provider in snapshot.providers.values()
        for jwks_uri in dict.fromkeys(notifier.jwks_uri for _, notifier in notifiers(provider))
    ]
    if snapshot.settings.redis is not None:
        tries.append(_redis(snapshot.settings.redis))
    tries += [_target(service, target) for service in snapshot.services.values() for target in service.targets]
    return list(await asyncio.gather(*tries))


async def _provider(provider: IdentityProvider) -> Finding:
    """Discovery and our credentials: a question about a token that nobody issued."""
    introspector = Introspector(provider, SystemClock(), Stats())
    trouble = ""
    try:
        await introspector.probe()
    except IntrospectionError as error:
        trouble = f"{error.detail}; {ADVICE[error.kind]}"
    finally:
        await introspector.close()
    where = provider.introspection_endpoint or provider.issuer
    return Finding(f"identity provider {provider.name} ({where})", trouble)


async def _keys(provider: IdentityProvider, jwks_uri: str | None) -> Finding:
    """The keys that verify logout tokens and security events."""
    keys = Keys(provider, jwks_uri, SystemClock())
    trouble = ""
    try:
        await keys.current()
    except IntrospectionError as error:
        trouble = f"{error.detail}; {KEYS_ADVICE.get(error.kind, ADVICE[error.kind])}"
    finally:
        await keys.close()
    return Finding(f"keys of identity provider {provider.name} ({jwks_uri or provider.issuer})", trouble)


async def _redis(redis: Redis) -> Finding:
    """Everything that the shared tier does, in small."""
    from fastgate.tokens.shared.probing import probe  # noqa: PLC0415 - loads redis

    where = redis.path or ",".join(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in redis.addresses
    )
    return Finding(f"redis {redis.kind} ({where})", *await probe(redis))


async def _target(service: Service, target: Target) -> Finding:
    """A connection, and TLS where the service has it."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    subject = f"service {service.name} ({service.scheme}://{host}:{target.port})"
    try:
        async with asyncio.timeout(service.connect_timeout):
            _, writer = await asyncio.open_connection(
                target.host,
                target.port,
                ssl=service.tls,
                server_hostname=service.server_name if service.tls is not None else None,
            )
    except TimeoutError:
        return Finding(subject, f"no connection within {service.connect_timeout:g} s; is it reachable from here?")
    except ssl.SSLCertVerificationError as error:
        return Finding(subject, f"its certificate is refused: {error.verify_message}; see `tls` of the service")
    except ssl.SSLError:
        return Finding(subject, "the TLS handshake failed; does it speak TLS on this port?")
    except OSError as error:
        return Finding(subject, f"cannot connect: {_reason(error)}; is it running, and is the address right?")
    writer.close()
    return Finding(subject, "")


def _reason(error: OSError) -> str:
    """The system's words for a failure; asyncio's repeat the address."""
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    return os.strerror(error.errno).lower() if error.errno else "none of its addresses answers"
