"""The one decision: what becomes of a request, from its head and what is remembered.

Rule: `admit` is synchronous, total and quick: no await, no log, no try, nothing made that is not the answer.
The numbers are the steps of a request's way (see ARCHITECTURE.md). Steps 2 to 5 depend on the head and the snapshot
alone: who meets the same head once more keeps the `Admission` and asks for the rest, which is decided every time.
"""

from collections.abc import Callable
from functools import partial
from math import inf

from fastgate.clock import Clock
from fastgate.errors import IntrospectionError
from fastgate.model import (
    INACTIVE,
    Access,
    AccessToken,
    Denial,
    Forward,
    Reply,
    RequestHead,
    Route,
    Snapshot,
    TokenState,
)
from fastgate.policy import bearer, forwarding, replies, routing, verification
from fastgate.policy.digest import token_key
from fastgate.tokens.memory import Entry
from fastgate.tokens.resolver import Tokens


class Admission:
    """A head with an access token, in one snapshot; and the last answer to it, as long as that holds."""

    __slots__ = (
        *("access", "answer", "begins", "ends", "entry", "fingerprints", "fresh_until", "head", "hits", "key", "route"),
        *("snapshot", "token"),
    )

    def __init__(self, snapshot: Snapshot, head: RequestHead, route: Route, access: Access, token: AccessToken) -> None:
        self.snapshot = snapshot
        self.head = head
        self.route = route
        self.access = access
        self.token = token
        self.key = token_key(access.provider, token.value)
        """Under which the token is remembered."""
        self.answer: Forward | Reply | None = None
        """Holds while `entry` is current, before `fresh_until` (monotonic), from `begins` to `ends` (wall seconds)."""
        self.entry: Entry | None = None
        self.fingerprints: tuple[bytes, ...] = ()
        """Under which the token would be revoked; once it was looked for."""
        self.fresh_until = self.begins = self.ends = 0.0
        self.hits: list[int] = []
        """The counter of hits of this kind."""


class Gate:
    """Holds one snapshot; a request sees the one that was current when it was admitted."""

    __slots__ = ("_clock", "_revoked", "_tokens", "snapshot")

    def __init__(self, snapshot: Snapshot, tokens: Tokens, clock: Clock) -> None:
        self.snapshot = snapshot
        """What is in force."""
        self._tokens = tokens
        self._revoked = tokens.revoked
        self._clock = clock

    def swap(self, snapshot: Snapshot) -> None:
        """Put another configuration in force, for requests admitted from now on."""
        self.snapshot = snapshot

    def admit(self, head: RequestHead) -> "Forward | Reply | Pending":
        """Decide now, or return what is to be settled first. Pure but for counters and the recency of entries."""
        considered = self.consider(head)
        if not isinstance(considered, Admission):
            return considered
        return self.again(considered) or Pending(self, considered)

    def consider(self, head: RequestHead) -> "Admission | Forward | Reply | Pending":
        """Find route and token of a head: the same for equal heads as long as this snapshot is in force."""
        snapshot = self.snapshot  # 2
        terms = snapshot.settings.forwarding
        route = routing.match(snapshot.table, head)  # 3
        if isinstance(route, Reply):
            return route
        access = route.access
        if access is None:  # 4
            return forwarding.refuse(head, terms) or Forward(route, None, terms)
        if bearer.wants_form(access.extraction, head):
            # A token in the form is no excuse for a second one elsewhere: all places are looked at together.
            return PendingForm(self, snapshot, head, route, access)
        token = bearer.extract(access.extraction, head)  # 5
        if isinstance(token, Denial):
            return route.denials[token.reason]
        return Admission(snapshot, head, route, access, token)

    def consider_like(self, admission: Admission, authorization: bytes) -> Admission | Reply:
        """Find the token of a head that is like the one of `admission` but for the value of Authorization.

        For routes that take tokens from there alone.
        """
        token = bearer.from_header(authorization, admission.access.extraction.max_length)  # 5
        if isinstance(token, Denial):
            return admission.route.denials[token.reason]
        return Admission(admission.snapshot, admission.head, admission.route, admission.access, token)

    def again(self, admission: Admission) -> Forward | Reply | None:
        """Decide on what is remembered, or that nobody may be asked now.

        None: the token is to be asked about, or the snapshot is no longer in force.
        """
        if admission.snapshot is not self.snapshot:
            return None
        entry = admission.entry
        if (
            entry is not None
            and entry.current
            and self._clock.monotonic() < admission.fresh_until
            and admission.begins <= self._clock.now() < admission.ends
            and not (self._revoked and self._is_revoked(admission))
        ):
            # Neither the facts have changed since this answer was given, nor anything that time does to them.
            entry.used = True
            admission.hits[0] += 1
            return admission.answer
        entry = self._tokens.recall(admission.key, admission.token)  # 6
        answer = None if entry is None else self._decide_anew(admission, entry)
        if answer is not None:
            return answer
        error = self._tokens.refusal(admission.access, admission.key, entry)
        return None if error is None else replies.introspection_failed(error, admission.route.name)

    def _is_revoked(self, admission: Admission) -> bool:
        if not admission.fingerprints:
            admission.fingerprints = self._tokens.fingerprints(admission.token)
        return any(each in self._revoked for each in admission.fingerprints)

    def _decide_anew(self, admission: Admission, entry: Entry) -> Forward | Reply | None:
        access = admission.access
        state = self._tokens.fresh(access, entry, admission.token)
        if state is None:
            return None  # 7
        begins, ends = (0.0, inf) if state is INACTIVE else verification.window(state, access.policy)
        admission.answer = answer = self.decide(admission, state)
        admission.entry = entry if begins <= self._clock.now() < ends else None
        admission.begins, admission.ends = begins, ends
        admission.fresh_until = self._tokens.settled_until(access, entry)
        admission.hits = hits = self._tokens.hits_of(entry)
        hits[0] += 1
        return answer

    def decide(self, admission: Admission, state: TokenState) -> Forward | Reply:
        """Hold a token's state against what the route requires, now: on every request, remembered or not."""
        route, terms = admission.route, admission.snapshot.settings.forwarding
        decision = verification.verify(state, admission.token, admission.access, self._clock.now())  # 10
        if isinstance(decision, Denial):
            return route.denials[decision.reason]  # 11
        return forwarding.refuse(admission.head, terms) or Forward(route, decision, terms)  # 12

    def hopeless(self, admission: Admission) -> bool:
        """Whether only other workers may know the token, as nobody would be asked about it now."""
        return self._tokens.hopeless(admission.access, admission.key)

    def glance(self, admission: Admission, then: Callable[[Reply | None], None]) -> None:
        """See whether others know a hopeless token: `then` is told, soon, what the answer is; None: `settle`."""
        self._tokens.glance(admission.access, admission.key, partial(_glanced, admission.route.name, then))

    async def settle(self, admission: Admission) -> Forward | Reply:
        """Learn the token's state, then decide. Never raises: not knowing is an answer too (503)."""
        try:
            state = await self._tokens.resolve(admission.access, admission.token)  # 8, 9
        except IntrospectionError as error:
            return replies.introspection_failed(error, admission.route.name)
        return self.decide(admission, state)


def _glanced(route: str, then: Callable[[Reply | None], None], error: IntrospectionError | None) -> None:
    then(None if error is None else replies.introspection_failed(error, route))


class Pending:
    """A request whose token is not known yet."""

    __slots__ = ("_admission", "_gate")
    wants_form = False
    """The token may stand in the body: `settle` needs it."""

    def __init__(self, gate: Gate, admission: Admission) -> None:
        self._gate = gate
        self._admission = admission

    def hopeless(self) -> bool:
        """Tell whether to `glance` first: only other workers may know the token."""
        return self._gate.hopeless(self._admission)

    def glance(self, then: Callable[[Reply | None], None]) -> None:
        """See whether others know the token: `then` is told, soon, what the answer is; None: `settle`.

        `then` must not raise.
        """
        self._gate.glance(self._admission, then)

    async def settle(self, form: bytes | None = None) -> Forward | Reply:
        """Decide as soon as the token is known. Never raises."""
        del form
        return await self._gate.settle(self._admission)


class PendingForm(Pending):
    """A request whose token may stand in a form that was not read yet."""

    __slots__ = ("_access", "_head", "_route", "_snapshot")
    wants_form = True

    def hopeless(self) -> bool:
        """Nobody knows yet."""
        return False

    def __init__(self, gate: Gate, snapshot: Snapshot, head: RequestHead, route: Route, access: Access) -> None:
        self._gate = gate
        self._snapshot = snapshot
        self._head = head
        self._route = route
        self._access = access

    async def settle(self, form: bytes | None = None) -> Forward | Reply:
        """Decide as soon as the token is found and known. Never raises."""
        token = bearer.extract(self._access.extraction, self._head, form)
        if isinstance(token, Denial):
            return self._route.denials[token.reason]
        admission = Admission(self._snapshot, self._head, self._route, self._access, token)
        return self._gate.again(admission) or await self._gate.settle(admission)
