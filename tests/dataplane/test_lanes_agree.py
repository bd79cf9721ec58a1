"""Whatever the express lane takes it treats as the general lane does, octet for octet, upstream and downstream."""

import asyncio
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.lanes import Choices, Conversation, conversation, play

FUZZ = settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def agree(spoken: Conversation) -> int:
    """Play it on both lanes; returns how many requests the express lane took."""

    async def both() -> int:
        general, express = await play(spoken, express=False), await play(spoken, express=True)
        assert express.compared() == general.compared()
        assert not general.express
        return express.express

    return asyncio.run(both())


@FUZZ
@given(st.binary(max_size=300))
def test_both_lanes_agree(octets):
    """N36-N90, C6: the same octets to the upstream, the same answers, counts and access lines; h11 can read them."""
    agree(conversation(Choices(octets)))


def test_the_express_lane_is_tried_by_this():
    """A fuzz that never took the express lane would prove nothing about it."""
    dice = random.Random(9112)
    conversations = [conversation(Choices(dice.randbytes(200))) for _ in range(300)]
    taken = sum(map(agree, conversations))
    assert taken > sum(len(spoken.requests) for spoken in conversations) // 10
