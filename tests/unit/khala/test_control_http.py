"""Redeeming over HTTP: batches, lost answers asked for once more, and trouble that is no verdict."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import httpx
import pytest
import trio

from khala.adapters.control_http import ATTEMPT_TIMEOUT_S, HttpControlClient
from khala.ports import ControlUnavailableError
from khala_contracts import codec
from khala_contracts import http_messages as m
from khala_service.adapters.http_client import open_service_client
from tests.topic_log import claims_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

LOST, REFUSED, SILENT, BUSY = "lost", "refused", "silent", "busy"


@attrs.define(eq=False)
class FakeControl(httpx.AsyncBaseTransport):
    """Redeems by the rule of control, and then does with the answer what the test says."""

    # What happens to the next answers; then all arrive.
    troubles: list[str] = attrs.field(factory=list)
    spent: dict[str, str] = attrs.field(factory=dict)
    batches: list[int] = attrs.field(factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Redeem a batch."""
        trouble = self.troubles.pop(0) if self.troubles else ""
        if trouble == REFUSED:
            raise httpx.ConnectError("nobody listens")
        if trouble == BUSY:
            error = codec.encode_message(m.Error(code="unavailable", retry_after_ms=500))
            return httpx.Response(503, content=error)
        asked = codec.decode_message_untrusted(m.RedeemRequest, await request.aread())
        self.batches.append(len(asked.redemptions))
        words = {word: number for number, word in m.REDEEM_RESULTS.words.items()}
        results = [
            words[
                "ok" if self.spent.setdefault(one.jti, one.connection_id) == one.connection_id else "replayed"
            ]
            for one in asked.redemptions
        ]
        if trouble == LOST:
            raise httpx.ReadError("the answer is lost")
        if trouble == SILENT:
            await trio.sleep_forever()
        return httpx.Response(200, content=codec.encode_message(m.RedeemResponse(results=results)))


@asynccontextmanager
async def open_client(control: FakeControl) -> AsyncIterator[HttpControlClient]:
    """Run a client of this control."""
    async with (
        open_service_client("http://control", peer="control", transport=control) as http,
        trio.open_nursery() as nursery,
    ):
        client = HttpControlClient(http, "node-1")
        nursery.start_soon(client.run)
        yield client
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("trouble", [LOST, SILENT])
async def test_a_lost_answer_is_asked_for_again(autojump_clock: MockClock, trouble: str) -> None:
    """Control has spent the token and its answer got lost: the second question has the same answer."""
    control = FakeControl([trouble])
    async with open_client(control) as client:
        assert await client.redeem(claims_for(), "con_1") is None
        assert len(control.batches) == 2
        assert trio.current_time() <= ATTEMPT_TIMEOUT_S
        refusal = await client.redeem(claims_for(), "con_2")
        assert refusal is not None
        assert refusal.name == "token_replayed"


@pytest.mark.parametrize("trouble", [LOST, SILENT])
async def test_not_for_ever(autojump_clock: MockClock, trouble: str) -> None:
    """Two lost answers are ``unavailable``, before the hello deadline of 5 s."""
    control = FakeControl([trouble] * 3)
    async with open_client(control) as client:
        with pytest.raises(ControlUnavailableError):
            await client.redeem(claims_for(), "con_1")
        assert len(control.batches) == 2
        assert trio.current_time() < 4.1


@pytest.mark.parametrize("trouble", [REFUSED, BUSY])
async def test_what_was_not_done_is_not_repeated(autojump_clock: MockClock, trouble: str) -> None:
    """Nobody listened, or control said to come back: the client repeats that, with an unspent token."""
    control = FakeControl([trouble])
    async with open_client(control) as client:
        with pytest.raises(ControlUnavailableError):
            await client.redeem(claims_for(), "con_1")
        assert control.spent == {}
        assert await client.redeem(claims_for(), "con_1") is None


async def test_who_waits_travels_together(autojump_clock: MockClock) -> None:
    """While one request is under way the next redemptions gather: a storm is few requests."""
    control = FakeControl()
    async with open_client(control) as client, trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(client.redeem, claims_for(jti=f"jti-{number}"), f"con_{number}")
    assert sum(control.batches) == 300
    assert len(control.batches) <= 4
    assert len(control.spent) == 300
