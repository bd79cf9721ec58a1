"""Users of an API behind fastgate, for locust; README.md says how to run it. What is expected counts as a success.

    customers   use a token of their own, or one of a shared set, some far more often than others; when it has expired
                they are refused (401), get a new one and repeat what they wanted
    strangers   come without a token, with an invented one (401), or with one that lacks the scope (403)
    leavers     log in, work, and have their token revoked: a second later every answer must be 401

Anything else is a failure, and a headless run with failures ends with exit status 1. Nothing here knows how many
gateways answer. The API speaks httpbin's words: /bytes/N, /stream-bytes/N, /anything. This file imports nothing of its
folder, so that locust can send it to the machines that make the load (`locust -f - --worker`).
"""

import json
import random
import secrets
import time
from collections.abc import Callable
from functools import cache, partial
from itertools import accumulate
from math import inf
from typing import Any
from urllib.parse import urlencode

from locust import FastHttpUser, events, task
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS
from locust.exception import RescheduleTask, StopUser
from locust.runners import WorkerRunner

SMALL, LARGE, CHUNK = 256, 100 * 1024, 8 * 1024
"""Octets of the bodies that are asked for."""
JSON, UPLOAD = 1024, 64 * 1024
"""Octets of the bodies that are sent."""
ROUNDING = 1.0
"""Seconds by which a token's end is uncertain: `exp` has whole seconds (RFC 7662 section 2.2)."""
SEEN_WITHIN = 1.0
"""Seconds after which a revocation must hold everywhere."""


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    """What can be chosen, on the command line, in the environment and in the web UI; workers get it from the master."""
    argument = parser.add_argument
    argument("--token-url", env_var="TOKEN_URL", default="http://127.0.0.1:8002/token", help="gives tokens to clients")
    argument("--client-id", env_var="CLIENT_ID", default="bench", help="who asks for tokens")
    argument("--client-secret", env_var="CLIENT_SECRET", default="bench", help="of the client", is_secret=True)
    argument("--scope", env_var="SCOPE", default="bench.read", help="what the API's route requires")
    argument("--other-scope", env_var="OTHER_SCOPE", default="bench.other", help="what is not enough for it")
    argument("--admin-url", env_var="ADMIN_URL", default="http://127.0.0.1:8001", help='of fastgate; "": no leavers')
    argument("--admin-token", env_var="ADMIN_TOKEN", default="", help="if that listener asks for it", is_secret=True)
    argument("--lifetime", env_var="LIFETIME", type=int, default=20, help="seconds of a token, where the IdP lets us")
    argument("--shared-tokens", env_var="SHARED_TOKENS", type=int, default=1000, help="in the set of each process")
    argument("--pause", env_var="PAUSE", type=float, default=0.1, help="mean seconds between two tasks of a user")


@events.quitting.add_listener
def nothing_is_no_success(environment: Any, **_: Any) -> None:
    """A headless run that asked nothing must not look like one in which everything went well."""
    asked = environment.stats.total.num_requests
    if not (asked or environment.web_ui or isinstance(environment.runner, WorkerRunner)):
        environment.process_exit_code = 1


class Token:
    """An access token, and when its life ends as far as its holder can know (seconds, monotonic)."""

    def __init__(self, value: str, end: str, *, good_until: float = -inf, bad_from: float = -inf) -> None:
        """What is answered before `good_until` must not be refused; what is sent after `bad_from` must be."""
        self.value = value
        self._end = end
        self._good_until = good_until
        self._bad_from = bad_from

    @property
    def refusal(self) -> str:
        """Name in the statistics for a refusal that was due."""
        return f"401 {self._end} token"

    def may_be_refused(self, answered: float) -> bool:
        """Whether a refusal that came then is in order."""
        return answered >= self._good_until

    def may_pass(self, sent: float) -> bool:
        """Whether a request that left then may succeed."""
        return sent < self._bad_from

    def revoked(self, asked: float, answered: float) -> None:
        """Note when its revocation was asked for, and when it was confirmed."""
        self._end = "revoked"
        self._good_until = min(self._good_until, asked)
        self._bad_from = min(self._bad_from, answered + SEEN_WITHIN)

    def wait_for_end(self) -> None:
        """Sleep until it must be refused."""
        time.sleep(max(0.0, self._bad_from - time.monotonic()))


class Grant:
    """Somebody's right to tokens with a scope: gives one until that was refused, then the next."""

    def __init__(self, scope: str, lifetime: int) -> None:
        self._scope = scope
        self._lifetime = lifetime
        self._token: Token | None = None

    def token(self, mint: Callable[[str, int], Token]) -> Token:
        """The current one, minted if there is none."""
        if self._token is None:
            self._token = mint(self._scope, self._lifetime)
        return self._token

    def refused(self, token: Token) -> None:
        """Forget it, unless another user of this grant has done so meanwhile."""
        if self._token is token:
            self._token = None


@cache
def shared_grants(number: int, scope: str, lifetime: int) -> tuple[list[Grant], list[float]]:
    """The grants that the customers of this process share, with cumulated weights: the n-th is used 1/n as often."""
    grants = [Grant(scope, random.randint(lifetime, 3 * lifetime)) for _ in range(number)]
    return grants, list(accumulate(1 / rank for rank in range(1, number + 1)))


class User(FastHttpUser):
    """What all of them do: get tokens, send requests, judge the answers."""

    abstract = True
    host = "http://127.0.0.1:8000"
    max_redirects = 0
    network_timeout = connection_timeout = 10.0

    @property
    def options(self) -> Any:
        """What was chosen."""
        return self.environment.parsed_options

    def wait_time(self) -> float:
        """Seconds of rest between two tasks."""
        return random.expovariate(1 / self.options.pause) if self.options.pause else 0.0

    def mint(self, scope: str, lifetime: int) -> Token:
        """Get a token from the identity provider; `lifetime` is a wish, `expires_in` counts (RFC 6749 section 5.1)."""
        form = urlencode({"grant_type": "client_credentials", "scope": scope, "lifetime": lifetime})
        form_type = {"Content-Type": "application/x-www-form-urlencoded"}
        client = (self.options.client_id, self.options.client_secret)
        asked = time.monotonic()
        granted = self._post(self.options.token_url, "new token (IdP)", data=form, headers=form_type, auth=client)
        lives, answered = granted.get("expires_in", inf), time.monotonic()
        end = {"good_until": asked + lives - ROUNDING, "bad_from": answered + lives + ROUNDING}
        return Token(granted["access_token"], "expired", **end)

    def revoke(self, token: Token) -> None:
        """Have fastgate refuse it from now on."""
        bearer = {"Authorization": f"Bearer {self.options.admin_token}"} if self.options.admin_token else {}
        asked = time.monotonic()
        url = f"{self.options.admin_url}/tokens/revoke"
        self._post(url, "revoke (admin)", json={"token": token.value}, headers=bearer)
        token.revoked(asked, time.monotonic())

    def _post(self, url: str, name: str, **what: Any) -> Any:
        """What comes as JSON; without it the task cannot go on."""
        with self.client.post(url, name=name, catch_response=True, **what) as answer:
            if answer.status_code == 200:
                return json.loads(answer.content)
            answer.failure(f"{answer.status_code or answer.error!r} instead of 200")
        raise RescheduleTask

    def ask_with(self, grant: Grant, name: str, method: str, path: str, **more: Any) -> None:
        """Ask with a token of this grant; when that has expired, once more with a new one."""
        token = grant.token(self.mint)
        if not self.ask(token, name, method, path, **more):
            grant.refused(token)
            self.ask(grant.token(self.mint), name, method, path, **more)

    def ask(
        self,
        token: Token,
        name: str,
        method: str,
        path: str,
        *,
        body: str | None = None,
        success: int = 200,
        correct: Callable[[bytes], bool] = lambda _: True,
    ) -> bool:
        """Send one request and judge its answer; returns False when the token was rightly refused."""
        headers = {"Authorization": f"Bearer {token.value}"} if token.value else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        sent = time.monotonic()
        due, name = (success, name) if token.may_pass(sent) else (401, token.refusal)
        what = {"name": name, "headers": headers, "data": body}
        with self.client.request(method, path, **what, stream=True, catch_response=True) as answer:
            status, content, problem = answer.status_code, b"", ""
            try:
                # Read here: what breaks on the way is this request's failure, and the body belongs to its time.
                content = bytes(answer.stream.read()) if status else b""
            except FAILURE_EXCEPTIONS as error:
                problem = f"{status}, then {error!r}"
            answered = time.monotonic()
            answer.request_meta |= {"response_time": (answered - sent) * 1000, "response_length": len(content)}
            refused = status == 401 and token.may_be_refused(answered)
            if refused:
                answer.request_meta["name"] = token.refusal
                if not answer.headers.get("www-authenticate", "").startswith("Bearer"):
                    problem = "401 without a Bearer challenge (RFC 6750 section 3)"
            elif status != due:
                problem = f"{status or answer.error!r} instead of {due}"
            elif not (problem or correct(content)):
                problem = f"{status} with another body of {len(content)} octets"
            if problem:
                answer.failure(problem)
            else:
                answer.success()
        return not refused


class Customer(User):
    """Uses the API; two of three requests carry a token of the shared set."""

    weight = 8

    def on_start(self) -> None:
        """Come with the right to tokens."""
        self._own = Grant(self.options.scope, self.options.lifetime)
        self._shared = shared_grants(self.options.shared_tokens, self.options.scope, self.options.lifetime)

    def call(self, name: str, method: str, path: str, **more: Any) -> None:
        """Ask with the token of the moment."""
        grants, weights = self._shared
        shared = grants and random.random() < 2 / 3
        grant = random.choices(grants, cum_weights=weights)[0] if shared else self._own
        self.ask_with(grant, name, method, path, **more)

    @task(12)
    def get_small(self) -> None:
        """Most requests are this small."""
        self.call("small", "GET", f"/bytes/{SMALL}", correct=partial(_has, SMALL))

    @task(2)
    def get_large(self) -> None:
        """An answer of known length."""
        self.call("100 KiB", "GET", f"/bytes/{LARGE}", correct=partial(_has, LARGE))

    @task(1)
    def download(self) -> None:
        """A stream whose length nobody knows before its end."""
        self.call("streamed", "GET", f"/stream-bytes/{LARGE}?chunk_size={CHUNK}", correct=partial(_has, LARGE))

    @task(4)
    def post_json(self) -> None:
        """The API repeats what it got."""
        body = _json_of(JSON)
        self.call("1 KiB JSON", "POST", "/anything/orders", body=body, correct=partial(_repeats, body))

    @task(1)
    def put_upload(self) -> None:
        """The same with more than one read can hold."""
        body = _json_of(UPLOAD)
        self.call("64 KiB", "PUT", "/anything/files/1", body=body, correct=partial(_repeats, body))


class Stranger(User):
    """Is refused, in three ways."""

    weight = 1

    def on_start(self) -> None:
        """Come with the right to the wrong tokens."""
        self._useless = Grant(self.options.other_scope, self.options.lifetime)
        self._invented = _invented()

    @task
    def no_token(self) -> None:
        """Forget it."""
        self.ask(Token("", "no"), "small", "GET", f"/bytes/{SMALL}")

    @task
    def invented_token(self) -> None:
        """Try each some four times."""
        if random.random() < 1 / 4:
            self._invented = _invented()
        self.ask(self._invented, "small", "GET", f"/bytes/{SMALL}")

    @task
    def wrong_scope(self) -> None:
        """Try one that is good for something else."""
        self.ask_with(self._useless, "403 wrong scope", "GET", f"/bytes/{SMALL}", success=403)


class Leaver(User):
    """Logs in, works, logs out."""

    weight = 1

    @task
    def log_out(self) -> None:
        """For a second after the revocation either answer is right, then only 401 is."""
        if not self.options.admin_url:
            raise StopUser
        token = self.mint(self.options.scope, 10 * self.options.lifetime)
        self._get(token)
        self.revoke(token)
        self._get(token)
        token.wait_for_end()
        for _ in range(5):
            self._get(token)

    def _get(self, token: Token) -> None:
        self.ask(token, "small", "GET", f"/bytes/{SMALL}", correct=partial(_has, SMALL))


def _invented() -> Token:
    return Token(secrets.token_urlsafe(32), "invented")


def _has(octets: int, content: bytes) -> bool:
    return len(content) == octets


def _repeats(body: str, content: bytes) -> bool:
    """Compare without reading the JSON around it: the body's own quotes stand in it with backslashes."""
    return json.dumps(body).encode() in content


def _json_of(octets: int) -> str:
    """A JSON object of that length, never twice the same."""
    empty = json.dumps({"id": secrets.token_hex(8), "text": ""})
    return empty[:-2] + "x" * (octets - len(empty)) + empty[-2:]
