"""Principals from control: at most a second old, asked for once, and "away" is not "invalid"."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import httpx
import pytest
import trio

from khala_contracts import codec, reason_codes
from khala_contracts import http_messages as m
from khala_contracts.sync_claims import PrincipalKind
from khala_service.adapters.http_client import open_service_client
from khala_service.errors import Unavailable
from khala_service.http_problems import HttpProblem, error_message
from runtime.adapters.principals_http import CREDENTIAL_MAX_BYTES, RESOLVED_LIFETIME_S, HttpPrincipalResolver
from runtime.core.principals import Right
from tests.actors.runtime.rig import KEY, ORG, USER, FixedClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from khala_contracts.reason_codes import ReasonCode


@attrs.define
class StubControl:
    """Control's one internal route, as a transport."""

    asked: list[str] = attrs.field(factory=list)
    refusal: ReasonCode | None = None
    is_away: bool = False
    answers_after_s: float = 0.0
    expires_at_s: float = 4e9

    async def answer(self, request: httpx.Request) -> httpx.Response:
        question = codec.decode_message_untrusted(m.ResolvePrincipalRequest, await request.aread())
        self.asked.append(question.credential)
        await trio.sleep(self.answers_after_s)
        if self.is_away:
            raise httpx.ConnectError("away")
        if self.refusal is not None:
            problem = HttpProblem(self.refusal)
            return httpx.Response(problem.status, content=codec.encode_message(error_message(problem)))
        principal = m.Principal(
            kind=m.PRINCIPAL_KINDS.to_wire(PrincipalKind.SERVICE),
            principal_id=KEY,
            user_id=USER,
            orgs=[m.OrgMembership(org_id=ORG, name="n", role="member")],
            rights=["publish", "read", "a-right-of-tomorrow"],
            topics=["run:*:events"],
            expires_at=int(self.expires_at_s * 1000),
        )
        return httpx.Response(200, content=codec.encode_message(principal))


@asynccontextmanager
async def resolving(
    control: StubControl, clock: FixedClock | None = None
) -> AsyncIterator[HttpPrincipalResolver]:
    """Make a resolver that asks the stub."""
    async with open_service_client(
        "http://control", peer="control", transport=httpx.MockTransport(control.answer)
    ) as client:
        yield HttpPrincipalResolver(client, clock or FixedClock())


async def test_principal_as_control_says(autojump_clock: MockClock) -> None:
    """Everything that the policy looks at comes over; rights that we do not know mean nothing."""
    async with resolving(StubControl()) as resolver:
        principal = await resolver.resolve("khk_x")
    assert principal is not None
    assert (principal.kind, principal.principal_id, principal.user_id) == (PrincipalKind.SERVICE, KEY, USER)
    assert principal.org_roles == {ORG: "member"}
    assert principal.rights == {Right.PUBLISH, Right.READ}
    assert principal.topic_patterns == ("run:*:events",)


async def test_asked_once_a_second(autojump_clock: MockClock) -> None:
    """An answer is used for RESOLVED_LIFETIME_S from the question on, then asked for again."""
    control = StubControl(answers_after_s=0.4)
    async with resolving(control) as resolver:
        await resolver.resolve("a")
        await trio.sleep(RESOLVED_LIFETIME_S - 0.4)
        await resolver.resolve("a")
        assert control.asked == ["a"]
        await trio.sleep(0.01)
        await resolver.resolve("a")
        await resolver.resolve("b")
        assert control.asked == ["a", "a", "b"]


async def test_questions_that_meet_are_one(autojump_clock: MockClock) -> None:
    """Many requests with one credential ask control once."""
    control = StubControl(answers_after_s=0.5)
    async with resolving(control) as resolver, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(resolver.resolve, "a")
    assert control.asked == ["a"]


async def test_whoever_asked_may_leave(autojump_clock: MockClock) -> None:
    """If the asking request is cancelled, one of those that waited with it asks again."""
    control = StubControl(answers_after_s=0.5)
    found: list[object] = []

    async def wait(resolver: HttpPrincipalResolver) -> None:
        found.append(await resolver.resolve("a"))

    async with resolving(control) as resolver, trio.open_nursery() as nursery:
        with trio.move_on_after(0.1):
            async with trio.open_nursery() as leaving:
                leaving.start_soon(resolver.resolve, "a")
                await trio.sleep(0.05)
                for _ in range(3):
                    nursery.start_soon(wait, resolver)
                await trio.sleep_forever()
    assert len(found) == 3
    assert all(found)
    assert control.asked == ["a", "a"]


@pytest.mark.parametrize(
    "refusal",
    [
        reason_codes.UNAUTHENTICATED,
        reason_codes.TOKEN_INVALID,
        reason_codes.TOKEN_EXPIRED,
        reason_codes.REAUTH_REQUIRED,
    ],
)
async def test_invalid_credentials(autojump_clock: MockClock, refusal: ReasonCode) -> None:
    """A credential that opens nothing is None, remembered like any other answer."""
    control = StubControl(refusal=refusal)
    async with resolving(control) as resolver:
        assert await resolver.resolve("a") is None
        assert await resolver.resolve("a") is None
    assert control.asked == ["a"]


async def test_away_is_not_invalid(autojump_clock: MockClock) -> None:
    """While control does not answer, or refuses us, nobody is sent away as unauthenticated."""
    control = StubControl(is_away=True)
    async with resolving(control) as resolver:
        with pytest.raises(Unavailable):
            await resolver.resolve("a")
        control.is_away, control.refusal = False, reason_codes.FORBIDDEN
        with pytest.raises(Unavailable):
            await resolver.resolve("a")
        control.refusal = None
        assert await resolver.resolve("a") is not None


async def test_own_end_of_the_credential(autojump_clock: MockClock) -> None:
    """An answer is not used beyond the time that control gave it."""
    clock = FixedClock(at=100.0)
    control = StubControl(expires_at_s=100.5)
    async with resolving(control, clock) as resolver:
        assert await resolver.resolve("a") is not None
        clock.at = 100.5
        assert await resolver.resolve("a") is None


@pytest.mark.parametrize("over", [0, 1])
async def test_credentials_are_bounded(autojump_clock: MockClock, over: int) -> None:
    """What is longer than any credential of ours is not even asked about."""
    control = StubControl()
    async with resolving(control) as resolver:
        assert (await resolver.resolve("x" * (CREDENTIAL_MAX_BYTES + over)) is None) is bool(over)
    assert len(control.asked) == 1 - over


async def test_no_state_is_left_for_ever(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of different credentials is remembered up to a bound."""
    monkeypatch.setattr("runtime.adapters.principals_http.CREDENTIALS_MAX", 5)
    control = StubControl()
    async with resolving(control) as resolver:
        for number in range(20):
            await resolver.resolve(str(number))
        assert len(resolver._questions) == 5
