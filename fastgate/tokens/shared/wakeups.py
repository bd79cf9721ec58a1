"""Messages for flights of ours that wait for another worker's answer."""

import asyncio
from collections import OrderedDict
from typing import Final

RECENT_MAX: Final = 64
"""Messages kept that nobody waits for: one may come before its flight knows whom it waits for."""
MESSAGE_MAX: Final = 96 * 1024
"""Octets; whatever is longer is none of ours."""
OWNER_SIZE: Final = 16


class Wakeups:
    """By the owner of a lease, who waits for its message. Nothing in a message is believed here."""

    __slots__ = ("_recent", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._recent: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def received(self, message: bytes) -> None:
        """A message came; it begins with the owner that it is from."""
        owner, body = message[:OWNER_SIZE], message[OWNER_SIZE:]
        waiting = self._waiting.pop(owner, None)
        if waiting is not None:
            waiting.set_result(body)
        elif len(message) <= MESSAGE_MAX:
            self._recent[owner] = body
            if len(self._recent) > RECENT_MAX:
                self._recent.popitem(last=False)

    def expect(self, owner: bytes) -> asyncio.Future[bytes]:
        """The message of this owner, as soon as it is there; `forget` it when it is waited for no more."""
        waiting = self._waiting.get(owner)
        if waiting is None:
            waiting = asyncio.get_running_loop().create_future()
            if owner in self._recent:
                waiting.set_result(self._recent.pop(owner))
            else:
                self._waiting[owner] = waiting
        return waiting

    def forget(self, owner: bytes) -> None:
        """Nobody waits for this owner any more."""
        self._waiting.pop(owner, None)
