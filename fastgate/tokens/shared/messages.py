"""The one connection on which messages come: for flights that wait, and of revocations."""

import math
from collections.abc import Callable, Mapping
from typing import Final

from redis.asyncio.connection import AbstractConnection

Receive = Callable[[bytes], None]
MESSAGE: Final = b"message"
PONG: Final = b"pong"


class Messages:
    """A subscription over a raw connection: nothing reconnects behind our back, as messages would be missed then."""

    __slots__ = ("_connection", "_receivers", "_unanswered")

    def __init__(self, receivers: Mapping[str, Receive]) -> None:
        """`receivers` by channel."""
        self._receivers = {channel.encode(): receive for channel, receive in receivers.items()}

    async def subscribe(self, connection: AbstractConnection) -> None:
        """Subscribe, and wait until it is so. The caller owns the deadline; raises what redis-py raises."""
        self._connection = connection
        self._unanswered = False
        await connection.send_command("SUBSCRIBE", *self._receivers)
        for _ in self._receivers:
            await connection.read_response()

    async def listen(self) -> None:
        """Hand on what comes, until the connection is lost: raises what redis-py raises."""
        while True:
            said = await self._connection.read_response(timeout=math.inf)
            if not isinstance(said, list) or len(said) < 2:  # noqa: PLR2004 - a kind and a content
                continue
            if said[0] == PONG:
                self._unanswered = False
            elif said[0] == MESSAGE and said[1] in self._receivers:
                self._receivers[said[1]](said[2])

    async def ping(self) -> None:
        """See that the connection lives. Raises TimeoutError when the ping before was not answered."""
        if self._unanswered:
            raise TimeoutError
        self._unanswered = True
        await self._connection.send_command("PING")
