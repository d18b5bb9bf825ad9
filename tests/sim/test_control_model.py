"""What the simulated control promises: grants by right, one connection for a token, refusals that stay."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest

from chaos.sim.control_model import ControlModel, MintRefused
from chaos.sim.gates import ControlFaults, Latency, WallClock
from khala.core.classification import HeadRights
from khala.core.revocation_view import RevocationKind
from khala.ports import ControlUnavailableError, TokenRefusedError
from khala_contracts import reason_codes
from khala_contracts.sync_claims import GrantBasis, from_claims_untrusted, to_claims
from tests.actors.runtime.memory_journal_store import open_gate
from tests.topic_log import ORG, OTHER_USER, USER, run_topic

if TYPE_CHECKING:
    from trio.testing import MockClock

    from khala_contracts.topics import TopicName

MINE, OURS, THEIRS, ABSENT = (run_topic(number).name for number in (1, 2, 3, 4))
RIGHTS = {
    MINE: HeadRights(USER, None),
    OURS: HeadRights(OTHER_USER, ORG),
    THEIRS: HeadRights(OTHER_USER, None),
}
SESSION = f"ses_{1:026d}"


@attrs.define
class Desk:
    """Control with one person signed in, who is a member of an org."""

    control: ControlModel
    hints: list[int]

    @classmethod
    def open(cls, faults: ControlFaults | None = None) -> Desk:
        def find_rights(topic: TopicName) -> HeadRights | None:
            return RIGHTS.get(topic)

        hints: list[int] = []
        control = ControlModel(
            rng=Random(0), faults=faults or ControlFaults(reply=Latency()), find_rights=find_rights
        )
        control.on_revoked = lambda: hints.append(len(control.log))
        control.sign_in(SESSION, USER, "dev_00000001")
        control.join(ORG, USER)
        return cls(control, hints)


async def test_a_token_grants_what_its_bearer_may_read() -> None:
    """By ownership, by membership, by name and by device; the claims are of the shape that nodes accept."""
    desk = Desk.open()
    lists, inbox, org = f"user:{USER}:runs", "device:dev_00000001:inbox", f"org:{ORG}:runs"
    token = desk.control.mint_now(SESSION, [MINE, OURS, lists, inbox, org])
    claims = await desk.control.open_tokens(open_gate()).verify(token)
    assert [(grant.topic, grant.basis, grant.org_id) for grant in claims.grants] == [
        (MINE, GrantBasis.OWNER, None),
        (OURS, GrantBasis.ORG_MEMBER, ORG),
        (lists, GrantBasis.OWNER, None),
        (inbox, GrantBasis.DEVICE, None),
        (org, GrantBasis.ORG_MEMBER, ORG),
    ]
    assert from_claims_untrusted(to_claims(claims)) == claims
    assert list(desk.control.grants[USER]) == [grant.topic for grant in claims.grants]


@pytest.mark.parametrize("topic", [THEIRS, ABSENT, f"user:{OTHER_USER}:runs", "device:dev_00000002:inbox"])
async def test_what_is_foreign_looks_like_what_is_not(topic: str) -> None:
    """One answer for both, and no part of the token is granted."""
    desk = Desk.open()
    with pytest.raises(MintRefused) as refused:
        desk.control.mint_now(SESSION, [MINE, topic])
    assert (refused.value.reason, refused.value.topic) == (reason_codes.FORBIDDEN, topic)
    assert desk.control.grants == {}


async def test_a_token_opens_one_connection_and_none_after_its_session() -> None:
    """Idempotent per connection; another connection is a replay; an ended session is told first."""
    desk = Desk.open()
    client = desk.control.open_client(open_gate())
    claims = await desk.control.open_tokens(open_gate()).verify(desk.control.mint_now(SESSION, [MINE]))
    outcomes = [await client.redeem(claims, connection) for connection in ("con_1", "con_1", "con_2")]
    assert outcomes == [None, None, reason_codes.TOKEN_REPLAYED]
    desk.control.end_session(SESSION)
    assert await client.redeem(claims, "con_1") is reason_codes.REAUTH_REQUIRED
    with pytest.raises(MintRefused):
        desk.control.mint_now(SESSION, [MINE])


async def test_the_log_of_revocations() -> None:
    """A row for each loss, once, in order; pages continue; each is hinted unless the push is lost."""
    desk = Desk.open()
    desk.control.end_session(SESSION)
    desk.control.end_session(SESSION)
    desk.control.faults.push_loss = 1.0
    desk.control.leave(ORG, USER)
    desk.control.leave(ORG, USER)
    client = desk.control.open_client(open_gate())
    page = await client.read_revocations(0)
    assert [(row.seq, row.kind) for row in page.revocations] == [
        (1, RevocationKind.SESSION),
        (2, RevocationKind.MEMBERSHIP),
    ]
    assert (await client.read_revocations(1)).revocations == page.revocations[1:]
    assert desk.hints == [1]
    assert not await client.is_member(ORG, USER)


@pytest.mark.parametrize(
    ("skew_s", "ttl_s", "reason"),
    [
        (0.0, 300, None),
        (-29.0, 300, None),
        (-31.0, 300, reason_codes.TOKEN_INVALID),
        (329.0, 300, None),
        (331.0, 300, reason_codes.TOKEN_EXPIRED),
    ],
)
async def test_times_are_judged_by_the_nodes_own_clock(
    autojump_clock: MockClock, skew_s: float, ttl_s: int, reason: object
) -> None:
    """SPEC section 2: with thirty seconds of leeway, on both sides."""
    del autojump_clock
    desk = Desk.open()
    token = desk.control.mint_now(SESSION, [MINE], ttl_s=ttl_s)
    gate = open_gate()
    gate.clock = WallClock(skew_s)
    refused: object = None
    try:
        await desk.control.open_tokens(gate).verify(token)
    except TokenRefusedError as error:
        refused = error.reason
    assert refused is reason


async def test_a_lost_reply_was_carried_out(autojump_clock: MockClock) -> None:
    """The token is spent for the connection that asked, which may ask again."""
    del autojump_clock
    desk = Desk.open(ControlFaults(lost_reply=1.0))
    client = desk.control.open_client(open_gate())
    claims = await desk.control.open_tokens(open_gate()).verify(desk.control.mint_now(SESSION, [MINE]))
    with pytest.raises(ControlUnavailableError):
        await client.redeem(claims, "con_1")
    desk.control.faults.lost_reply = 0.0
    assert await client.redeem(claims, "con_2") is reason_codes.TOKEN_REPLAYED
    assert await client.redeem(claims, "con_1") is None
    desk.control.faults.is_down = True
    with pytest.raises(ControlUnavailableError):
        await client.read_revocations(0)
