"""The configuration that is measured: one protected route to one origin."""

from collections.abc import Mapping
from typing import Any

TOKEN = "bench-token-0123456789abcdef0123456789abcdef"
"""Any token that begins with "bench" is active at the bench's identity provider."""
SERVICE = "origin"
PROVIDER = "bench"


def gateway_config(
    *, port: int, origin: int, idp: int, access_log: bool, limits: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write it down; all ports are on loopback."""
    provider = {
        "introspection_endpoint": f"http://127.0.0.1:{idp}/introspect",
        "client_id": "bench",
        "client_secret": "bench",
        "cache_ttl_max": "1h",
    }
    service = {
        "name": SERVICE,
        "url": f"http://127.0.0.1:{origin}",
        "auth": {"scopes_required": ["bench.read"]},
        "routes": [{"name": "all", "paths": ["/"]}],
    }
    return {
        "listen": f"127.0.0.1:{port}",
        "admin": False,
        "identity_providers": {PROVIDER: provider},
        "services": [service],
        "limits": dict(limits or {}),
        "log": {"format": "json", "access": access_log},
    }
