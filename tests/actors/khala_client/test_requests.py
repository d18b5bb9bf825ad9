"""Publishing to app topics and minting for users of one's own: one request, repeated until answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from khala_client.errors import Forbidden, KhalaError, Unavailable
from khala_contracts import http_messages as m
from khala_contracts import reason_codes
from khala_contracts.topics import format_app
from tests.actors.khala_client.loops import on_both_loops
from tests.actors.khala_client.world import World, problem
from tests.unit.khala_client.node_model import topic_number

if TYPE_CHECKING:
    from khala_client.ring.khala import Khala

ORG_ID = f"org_{1:026d}"
ORDERS = format_app(ORG_ID, "orders")
NO_ANSWER = httpx.ReadTimeout("no answer")
DEVICE = "dev_00000017"


@on_both_loops
async def test_an_app_event_is_published_once(world: World, khala: Khala) -> None:
    """Its answer is lost twice: one key, one body, one event; then a second one of its own."""
    world.add(ORDERS)
    world.lost_answers = 2
    ack = await khala.publish(ORDERS, "custom", name="order.paid", data={"id": 7})
    assert (ack.topic, ack.seq) == (ORDERS, 1)
    assert (await khala.publish(ORDERS, "custom", {"name": "order.sent"})).seq == 2
    keys = [call.headers["Idempotency-Key"] for call in world.calls("/events")]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert len({call.content for call in world.calls("/events")[:3]}) == 1
    assert [frame.kind for frame in world.logs[ORDERS].frames] == ["custom", "custom"]


@on_both_loops
async def test_what_was_published_can_be_followed(world: World, khala: Khala) -> None:
    """An app topic is a topic like any other."""
    world.add(ORDERS)
    for number in range(3):
        await khala.publish(ORDERS, "custom", name=f"order.{number}")
    async with khala.subscribe(ORDERS) as events:
        assert [(await events.__anext__()).data["name"] for _ in range(3)] == [
            "order.0", "order.1", "order.2",
        ]  # fmt: skip


@pytest.mark.parametrize("topic", [topic_number(1), "app:nonsense", f"app:org_{2:026d}:orders"])
@on_both_loops
async def test_only_ones_own_app_topics_are_published_to(world: World, khala: Khala, topic: str) -> None:
    """A run's topic and a name outside the grammar are refused here, a foreign org by the runtime."""
    with pytest.raises(KhalaError) as refused:
        await khala.publish(topic, "custom", name="x")
    assert refused.value.code in {"topic_invalid", "not_found"}
    assert len(world.calls("/events")) == (refused.value.code == "not_found")


@on_both_loops
async def test_publishing_is_given_up_after_five_minutes(world: World, khala: Khala) -> None:
    """Not before: the application has the event only here."""
    world.add(ORDERS)
    world.http_troubles.extend([NO_ANSWER] * 200)
    with pytest.raises(Unavailable):
        await khala.publish(ORDERS, "custom", name="x")
    assert len(world.calls("/events")) > 10


@on_both_loops
async def test_a_token_for_a_user_of_ones_own(world: World, khala: Khala) -> None:
    """For that user on that device, with where to take it; asked for again if control restarts."""
    world.http_troubles.extend([NO_ANSWER, problem(reason_codes.UNAVAILABLE)])
    minted = await khala.mint(user_id="customer-17", device_id=DEVICE, topics=[ORDERS], ttl_s=120)
    body = m.SyncTokenRequest.FromString(world.calls("/api/sync/token")[-1].content)
    assert (body.subject.user_id, body.subject.device_id) == ("customer-17", DEVICE)
    assert (list(body.topics), body.ttl_s, body.device_id) == ([ORDERS], 120, "")
    assert minted.topics == (ORDERS,)
    assert minted.sync_url == world.settings.sync_url
    assert minted.expires_at_s == 1_300.0
    assert minted.token.startswith("token-")
    assert minted.token not in repr(minted)


@on_both_loops
async def test_a_topic_that_may_not_be_granted(world: World, khala: Khala) -> None:
    """Refused at once, by name."""
    world.forbidden.add(ORDERS)
    with pytest.raises(Forbidden) as refused:
        await khala.mint(user_id="customer-17", device_id=DEVICE, topics=[ORDERS])
    assert refused.value.topic == ORDERS
    assert len(world.calls("/api/sync/token")) == 1
