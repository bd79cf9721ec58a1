"""Requests that are not forwarded because of what they say about forwarding (RFC 9110 section 7.6)."""

import re
from typing import Final

from fastgate.model import NO_BODY, Forwarding, Reply, RequestHead
from fastgate.policy.field_names import (
    END_TO_END,
    KEPT_FROM_TRUSTED,
    REWRITTEN,
    USUAL_CONNECTION,
    is_protected,
    options_of,
)
from fastgate.policy.replies import reply

WEBSOCKET: Final = b"websocket"
"""The only protocol we switch to (RFC 6455); h2c and the like would carry requests past the gate."""

_NOMINATION: Final = reply(400, reason="nominated_field")
_LOOP: Final = reply(508, reason="loop")
_LAST_HOP: Final = reply(200, reason="max_forwards")
_HANDSHAKE: Final = reply(400, reason="websocket_handshake")
_VERSION: Final = reply(
    426,
    reason="websocket_version",
    fields=((b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", b"13")),
)

_LOOKED_AT: Final = frozenset((b"connection", b"via", b"max-forwards"))
_OURS: Final = END_TO_END | REWRITTEN | KEPT_FROM_TRUSTED
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")


def refuse(head: RequestHead, forwarding: Forwarding) -> Reply | None:
    """Find out whether a request may be forwarded at all (RFC 9110 sections 7.6.1 to 7.6.3, RFC 6455 section 4.2).

    400 when Connection nominates a field that is not for this connection only; 508 when Via shows that the request
    has been here; 200 when Max-Forwards says that OPTIONS ends here; 400 or 426 for a WebSocket handshake that no
    upstream could accept.
    """
    for name, _, value in head.fields:
        if name not in _LOOKED_AT:
            continue
        if name == b"connection":
            if value not in USUAL_CONNECTION and _nominates_ours(value, forwarding.protected):
                return _NOMINATION
        elif name == b"via":
            if forwarding.via.lower() in map(_received_by, value.split(b",")):
                return _LOOP
        elif head.method == "OPTIONS" and value.strip(b"0") == b"" != value:
            return _LAST_HOP
    return _refuse_websocket(head) if head.upgrade == WEBSOCKET else None


def _nominates_ours(value: bytes, protected: frozenset[bytes]) -> bool:
    """Tell whether Connection names a field that is for the whole way, or that only we set."""
    return any(option in _OURS or is_protected(option, protected) for option in options_of(value))


def _received_by(entry: bytes) -> bytes:
    """Read who received the request from one entry of Via (RFC 9110 section 7.6.3)."""
    words = entry.split(None, 2)
    return words[1].lower() if len(words) > 1 else b""


def _refuse_websocket(head: RequestHead) -> Reply | None:
    """Check the client's handshake (RFC 6455 sections 4.1 and 4.4)."""
    versions = [value for name, _, value in head.fields if name == b"sec-websocket-version"]
    if versions != [b"13"]:
        return _VERSION
    keys = [value for name, _, value in head.fields if name == b"sec-websocket-key"]
    sound = len(keys) == 1 and _KEY.fullmatch(keys[0]) is not None
    return None if sound and head.method == "GET" and head.framing == NO_BODY else _HANDSHAKE
