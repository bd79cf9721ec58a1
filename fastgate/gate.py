"""The one decision: what becomes of a request, from its head and what is remembered.

Rule: `admit` is synchronous, total and quick: no await, no log, no try, nothing made that is not the answer.
The numbers are the steps of a request's way (see ARCHITECTURE.md).
"""

from collections.abc import Callable

from fastgate.errors import IntrospectionError
from fastgate.model import (
    Access,
    AccessToken,
    Denial,
    Forward,
    Forwarding,
    Reply,
    RequestHead,
    Route,
    Snapshot,
    TokenState,
)
from fastgate.policy import bearer, forwarding, replies, routing, verification
from fastgate.tokens.resolver import Tokens


class Gate:
    """Holds one snapshot; a request sees the one that was current when it was admitted."""

    __slots__ = ("_now", "_snapshot", "_tokens")

    def __init__(self, snapshot: Snapshot, tokens: Tokens, now: Callable[[], float]) -> None:
        self._snapshot = snapshot
        self._tokens = tokens
        self._now = now

    @property
    def snapshot(self) -> Snapshot:
        """What is in force."""
        return self._snapshot

    def swap(self, snapshot: Snapshot) -> None:
        """Put another configuration in force, for requests admitted from now on."""
        self._snapshot = snapshot

    def admit(self, head: RequestHead) -> "Forward | Reply | Pending":
        """Decide now, or return what is to be settled first. Pure but for counters and the recency of entries."""
        snapshot = self._snapshot  # 2
        terms = snapshot.settings.forwarding
        route = routing.match(snapshot.table, head)  # 3
        if isinstance(route, Reply):
            return route
        access = route.access
        if access is None:  # 4
            return forwarding.refuse(head, terms) or Forward(route, None, terms)
        if bearer.wants_form(access.extraction, head):
            # A token in the form is no excuse for a second one elsewhere: all places are looked at together.
            return Pending(self, head, route, access, terms, None)
        token = bearer.extract(access.extraction, head)  # 5
        if isinstance(token, Denial):
            return route.denials[token.reason]
        state = self._tokens.peek(access, token)  # 6
        if state is None:
            return Pending(self, head, route, access, terms, token)  # 7
        return self.decide(head, route, access, terms, token, state)

    def decide(
        self,
        head: RequestHead,
        route: Route,
        access: Access,
        terms: Forwarding,
        token: AccessToken,
        state: TokenState,
    ) -> Forward | Reply:
        """Hold a token's state against what the route requires, now: on every request, remembered or not."""
        decision = verification.verify(state, token, access, self._now())  # 10
        if isinstance(decision, Denial):
            return route.denials[decision.reason]  # 11
        return forwarding.refuse(head, terms) or Forward(route, decision, terms)  # 12

    def peek(self, access: Access, token: AccessToken) -> TokenState | None:
        """What is remembered of a token."""
        return self._tokens.peek(access, token)

    async def resolve(self, access: Access, token: AccessToken) -> TokenState:
        """Learn a token's state. Raises IntrospectionError."""
        return await self._tokens.resolve(access, token)  # 8, 9


class Pending:
    """A request whose token is not known yet, or stands in a form that was not read yet."""

    __slots__ = ("_access", "_gate", "_head", "_route", "_terms", "_token")

    def __init__(
        self,
        gate: Gate,
        head: RequestHead,
        route: Route,
        access: Access,
        terms: Forwarding,
        token: AccessToken | None,
    ) -> None:
        self._gate = gate
        self._head = head
        self._route = route
        self._access = access
        self._terms = terms
        self._token = token

    @property
    def wants_form(self) -> bool:
        """The token may stand in the body: `settle` needs it."""
        return self._token is None

    async def settle(self, form: bytes | None = None) -> Forward | Reply:
        """Decide as soon as the token is known. Never raises: not knowing is an answer too (503)."""
        token = self._token
        if token is None:
            found = bearer.extract(self._access.extraction, self._head, form)
            if isinstance(found, Denial):
                return self._route.denials[found.reason]
            token = found
        try:
            state = self._gate.peek(self._access, token) if form is not None else None
            if state is None:
                state = await self._gate.resolve(self._access, token)
        except IntrospectionError as error:
            return replies.introspection_failed(error, self._route.name)
        return self._gate.decide(self._head, self._route, self._access, self._terms, token, state)
