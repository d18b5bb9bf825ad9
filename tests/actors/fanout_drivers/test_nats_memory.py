"""What the NATS driver leaves with the library between two messages: nothing."""

from __future__ import annotations

import asyncio

import trio_asyncio
from nats.aio.subscription import Subscription

from fanout_drivers.nats_client import NatsClient, NatsHandler

SUBJECT = "khala.v1.topic"


async def test_a_message_is_handed_over_in_the_step_that_read_it() -> None:
    """CARD-03: nothing waits in the library, which has no task for a topic and no room of its own to fill."""
    taken: list[tuple[str, str, bytes]] = []

    async def receive() -> int:
        client = NatsClient(NatsHandler(lambda *message: taken.append(message)))
        subscription = Subscription(client, id=1, subject=SUBJECT)
        client._subs[1] = subscription
        tasks = len(asyncio.all_tasks())
        for number in range(1_000):
            await client._process_msg(1, SUBJECT.encode(), b"", b"%d" % number, b"")
        await client._process_msg(1, b"other\xff", b"", b"not text", b"")
        await client._process_msg(2, SUBJECT.encode(), b"", b"left meanwhile", b"")
        assert len(asyncio.all_tasks()) == tasks
        return int(subscription.pending_msgs)

    async with trio_asyncio.open_loop():
        assert await trio_asyncio.aio_as_trio(receive)() == 0
    assert taken[:1_000] == [(SUBJECT, SUBJECT, b"%d" % number) for number in range(1_000)]
    assert taken[1_000:] == [(SUBJECT, "other�", b"not text")]
