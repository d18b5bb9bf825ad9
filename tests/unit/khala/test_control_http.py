"""Redeeming over HTTP: batches, lost answers asked for once more, and trouble that is no verdict."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import httpx
import pytest
import trio

from khala.adapters.control_http import ATTEMPT_TIMEOUT_S, AUDIT_ROUTE, HttpControlClient
from khala.core.access_audit import (
    AuditAction,
    AuditBatch,
    AuditEvent,
    AuditGap,
    AuditSubject,
    UnwrittenCount,
)
from khala.ports import AuditRefusedError, ControlUnavailableError
from khala_contracts import codec, reason_codes
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
    audited: dict[str, m.AppendAuditRequest] = attrs.field(factory=dict)

    async def _append_audit(self, request: httpx.Request, trouble: str) -> httpx.Response:
        asked = codec.decode_message_untrusted(m.AppendAuditRequest, await request.aread())
        if trouble in ("400", "401"):
            code = {"400": "invalid_argument", "401": "unauthenticated"}[trouble]
            return httpx.Response(int(trouble), content=codec.encode_message(m.Error(code=code)))
        self.audited[asked.batch_id] = asked
        if trouble == LOST:
            raise httpx.ReadError("the answer is lost")
        return httpx.Response(200, content=codec.encode_message(m.AppendAuditResponse(written=1)))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Redeem a batch."""
        trouble = self.troubles.pop(0) if self.troubles else ""
        if trouble == REFUSED:
            raise httpx.ConnectError("nobody listens")
        if trouble == BUSY:
            error = codec.encode_message(m.Error(code="unavailable", retry_after_ms=500))
            return httpx.Response(503, content=error)
        if request.url.path == AUDIT_ROUTE:
            return await self._append_audit(request, trouble)
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


BATCH = AuditBatch(
    "bat_1",
    (
        AuditEvent(
            AuditAction.EVICT_CONNECTION,
            reason_codes.REAUTH_REQUIRED,
            "revoked",
            1_000,
            "con_1",
            "req_1",
            subject=AuditSubject.of(claims_for()),
            positions=(("t", 7),),
            topic_count=2,
        ),
        AuditEvent(AuditAction.SUBSCRIBE, None, "", 1_001, "con_2", "req_2", topic="t"),
    ),
    (UnwrittenCount(AuditAction.HELLO, "token_invalid", AuditGap.RATIONED, 3, 999),),
)


async def test_a_batch_of_audit_events_travels_whole(autojump_clock: MockClock) -> None:
    """Every field arrives, and what an event does not have is absent."""
    control = FakeControl()
    async with open_client(control) as client:
        await client.append_audit(BATCH)
    sent = control.audited["bat_1"]
    evicted, allowed = sent.events
    claims = claims_for()
    assert (sent.node_id, evicted.action, evicted.reason, evicted.cause) == (
        "node-1",
        5,
        "reauth_required",
        "revoked",
    )
    assert (evicted.user_id, evicted.session_id, evicted.jti) == (
        claims.user_id,
        claims.session_id,
        claims.jti,
    )
    assert (evicted.principal_kind, evicted.topic_count) == (m.PRINCIPAL_KIND_PERSON, 2)
    assert [(position.topic, position.seq) for position in evicted.positions] == [("t", 7)]
    assert (allowed.action, allowed.reason, allowed.topic, allowed.noted_at) == (4, "", "t", 1_001)
    assert (allowed.user_id, allowed.principal_kind) == ("", m.PRINCIPAL_KIND_UNSPECIFIED)
    (unwritten,) = sent.unwritten
    assert (unwritten.action, unwritten.gap, unwritten.count, unwritten.since) == (2, 1, 3, 999)


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (LOST, ControlUnavailableError),
        (REFUSED, ControlUnavailableError),
        (BUSY, ControlUnavailableError),
        ("401", ControlUnavailableError),
        ("400", AuditRefusedError),
    ],
)
async def test_only_a_verdict_on_the_batch_gives_it_up(
    autojump_clock: MockClock, trouble: str, error: type[Exception]
) -> None:
    """A wrong credential, an outage and a lost answer are repeated; what is malformed is not."""
    control = FakeControl([trouble])
    async with open_client(control) as client:
        with pytest.raises(error):
            await client.append_audit(BATCH)
        await client.append_audit(BATCH)
    assert list(control.audited) == ["bat_1"]
