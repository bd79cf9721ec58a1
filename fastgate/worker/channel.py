"""Messages between the supervisor and a worker, over one end of a socket pair: a length, then JSON.

Three kinds: a call (`op` and `id`), its answer (`re`, and `ok` or `error`), and a word that wants no answer (`op`).
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import orjson

from fastgate.errors import FastgateError

Message = dict[str, Any]

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Octets: a hundred thousand revocations and the largest configuration fit."""
MAX_UNREAD: Final = 256 * 1024
"""Octets that wait for a peer who does not read before words to it are left out."""
_LENGTH: Final = 4


class ChannelError(FastgateError):
    """The peer did not do what it was asked; the message says why."""


class GoneError(ChannelError):
    """The peer is gone: its end of the channel is closed."""


class SilentError(ChannelError):
    """The peer did not answer in time."""


class RefusedError(ChannelError):
    """The peer answered that it cannot do this."""

    def __init__(self, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.detail = detail
        """What else it said, in values that JSON knows."""


class Channel(asyncio.Protocol):
    """One end."""

    def __init__(self, received: Callable[[Message], None], lost: Callable[[], None]) -> None:
        """`received` gets every call and word, in order; `lost` is called once when the peer is gone."""
        self._received = received
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    @property
    def open(self) -> bool:
        """Whether the peer is there, as far as is known."""
        return self._transport is not None

    async def call(self, op: str, *, within: float, **what: Any) -> Any:
        """Ask the peer and return what it answers within so many seconds. Raises ChannelError."""
        self._number += 1
        number = self._number
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            self._send({"op": op, "id": number, **what})
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            raise SilentError(f"no answer to {op} within {within:g} s") from None
        finally:
            self._calls.pop(number, None)

    def tell(self, op: str, **what: Any) -> bool:
        """Say something that wants no answer; False: left out, because the peer is gone or does not read."""
        if self._transport is None or self._transport.get_write_buffer_size() > MAX_UNREAD:
            return False
        self._send({"op": op, **what})
        return True

    def answer(self, call: Message, value: Any) -> None:
        """Answer a call; a word is not answered."""
        if "id" in call and self._transport is not None:
            self._send({"re": call["id"], "ok": value})

    def refuse(self, call: Message, message: str, detail: Any = None) -> None:
        """Say that a call cannot be done."""
        if "id" in call and self._transport is not None:
            self._send({"re": call["id"], "error": message, "detail": detail})

    def close(self) -> None:
        """Send what is written, then close; `lost` is called."""
        if self._transport is not None:
            self._transport.close()

    def _send(self, message: Message) -> None:
        if self._transport is None:
            raise GoneError("the process is gone")
        octets = orjson.dumps(message, default=_plain)
        self._transport.write(len(octets).to_bytes(_LENGTH, "big") + octets)

    # --- asyncio.Protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Cut what arrives into messages."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH:
            length = int.from_bytes(buffer[:_LENGTH], "big")
            if length > MAX_MESSAGE:
                raise ValueError("a message on the control channel is larger than any that is ever sent")
            if len(buffer) < _LENGTH + length:
                return
            message = orjson.loads(memoryview(buffer)[_LENGTH : _LENGTH + length])
            del buffer[: _LENGTH + length]
            if "re" in message:
                self._answered(message)
            else:
                self._received(message)

    def _answered(self, message: Message) -> None:
        answer = self._calls.get(message["re"])
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(RefusedError(message["error"], message["detail"]))
        else:
            answer.set_result(message["ok"])

    def connection_lost(self, exc: BaseException | None) -> None:
        """Fail what waits, and say so."""
        del exc
        self._transport = None
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(GoneError("the process is gone"))
        self._lost()


def _plain(value: Any) -> list[Any]:
    """A named tuple as JSON has it."""
    if isinstance(value, tuple):
        return list(value)
    raise TypeError
