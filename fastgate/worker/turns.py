"""Turns at what one worker does for all of a host: the supervisor knows whose it is."""

from typing import Final

from fastgate.worker.channel import Channel, ChannelError

WITHIN: Final = 0.5
"""Seconds that the supervisor may take to answer; then it is our turn."""


class TurnsOfWorkers:
    """`tokens.turns.Turns` for one worker of several."""

    def __init__(self, channel: Channel, workers: int) -> None:
        self._channel = channel
        self.workers = workers
        """How many there are."""

    async def wait(self, provider: str) -> float:
        """Seconds after which to ask again; 0.0: it is our turn."""
        try:
            return float(await self._channel.call("turn", within=WITHIN, provider=provider))
        except ChannelError:
            return 0.0

    def tell(self, provider: str, *, well: bool) -> None:
        """Have the other workers told; one that is not finds out for itself."""
        self._channel.tell("health", provider=provider, well=well)
