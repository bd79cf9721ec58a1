"""`fastgate revoke`: asks a running gateway, through its admin listener, to forget and refuse tokens."""

import json
import ssl
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from fastgate.errors import FastgateError

DEADLINE: Final = 10.0
"""Seconds."""
MAX_ANSWER: Final = 64 * 1024


class RevokeError(FastgateError):
    """The gateway did not revoke; the message is a sentence that says what to do."""


class _NoRedirect(HTTPRedirectHandler):
    """The admin token goes where the command says and nowhere else."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Follow none."""
        del req, fp, code, msg, headers, newurl
        return None


def revoke(admin: str, what: dict[str, Any], *, admin_token: str | None, ca_file: str | None) -> int:
    """Ask the admin listener at the URL `admin`; returns how many entries it dropped. Raises RevokeError."""
    request = Request(  # noqa: S310 - the caller checked that it is http or https
        f"{admin.rstrip('/')}/tokens/revoke",
        data=json.dumps(what).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    if admin_token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {admin_token}")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError:
        raise RevokeError("the file given with --admin-ca-file holds no usable certificates") from None
    # No proxy of the environment: the token to be revoked is still valid.
    opener = build_opener(ProxyHandler({}), _NoRedirect(), HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=DEADLINE) as answer:
            return _revoked(answer.read(MAX_ANSWER))
    except HTTPError as error:
        raise RevokeError(_refused(error)) from None
    except URLError as error:
        raise RevokeError(_unreachable(admin, error.reason)) from None
    except (OSError, HTTPException):
        raise RevokeError(_unreachable(admin, "no answer that is HTTP")) from None


def _revoked(body: bytes) -> int:
    try:
        revoked = json.loads(body)["revoked"]
    except (ValueError, KeyError, TypeError):
        revoked = None
    if not isinstance(revoked, int):
        raise RevokeError("what answered is not the admin listener of fastgate; check --admin")
    return revoked


def _refused(error: HTTPError) -> str:
    with error:
        body = error.read(MAX_ANSWER)
    if error.code == 401:  # noqa: PLR2004 - Unauthorized
        return "the admin listener wants its token; give --admin-token-file"
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = "check --admin"
    return f"the admin listener answered {error.code}: {message}"


def _unreachable(admin: str, reason: object) -> str:
    text = reason.strerror or type(reason).__name__ if isinstance(reason, OSError) else str(reason)
    return f"cannot reach the admin listener at {admin}: {text}; is the gateway running?"
