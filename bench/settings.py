"""The configuration that is measured: one protected route to one origin."""

from collections.abc import Mapping
from typing import Any

SERVICE = "origin"
PROVIDER = "bench"
SCOPE = "bench.read"
GRANTED = f"{SCOPE} bench.write"
"""The scope that the identity provider tells of."""


def gateway_config(
    *,
    port: int,
    origin: int,
    idp: int,
    access_log: bool,
    limits: Mapping[str, Any] | None = None,
    asks: str = "/introspect",
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write it down; all ports are on loopback. `asks` is where the provider is asked, `more` is top-level."""
    provider = {
        "introspection_endpoint": f"http://127.0.0.1:{idp}{asks}",
        "client_id": "bench",
        "client_secret": "bench",
        "cache_ttl_max": "1h",
        "cache_ttl_neg": "1h",
    }
    service = {
        "name": SERVICE,
        "url": f"http://127.0.0.1:{origin}",
        "auth": {"scopes_required": [SCOPE]},
        "routes": [{"name": "all", "paths": ["/"]}],
    }
    return {
        "listen": f"127.0.0.1:{port}",
        "admin": False,
        "identity_providers": {PROVIDER: provider},
        "services": [service],
        "limits": dict(limits or {}),
        "log": {"format": "json", "access": access_log},
        **(more or {}),
    }
