"""Ports of the node without their services: what is measured is then the engine alone.

Used where a database or control would be measured instead. The engine above the ports is the
product's own; its sockets, framing, MAC check, chain check and authorisation are real.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from khala.core.classification import CursorRow, HeadRights, Observation
from khala.core.pages import Page
from khala.ports import ObservedTopic
from khala_contracts.chain import chain_next, chain_start
from khala_contracts.codec import EntryTemplate, StaleReason
from khala_contracts.fanout_records import FanoutRecord
from khala_contracts.sync_claims import (
    GrantBasis,
    PrincipalKind,
    Surface,
    SyncClaims,
    TopicGrant,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala_contracts.reason_codes import ReasonCode
    from khala_contracts.topics import TopicName

LINEAGE = "lin_00000000000000000000000000"
USER_ID = "usr_00000000000000000000000000"
DEVICE_ID = "dev_benchmark"
PAGE_MAX_FRAMES = 2_000


@attrs.define(eq=False)
class InMemoryJournal:
    """The journal of one topic in a list; answers at once."""

    topic: TopicName
    entries: list[bytes] = attrs.field(factory=list)
    chains: list[bytes] = attrs.field(init=False)
    totals: list[int] = attrs.field(factory=lambda: [0])
    # Frames that exist for readers; the rest has been prepared but not "committed" yet.
    visible: int = 0

    def __attrs_post_init__(self) -> None:
        """Begin with the chain of an empty topic."""
        self.chains = [chain_start(self.topic)]

    def prepare(self, payloads: Sequence[bytes], *, kind: str = "output") -> FanoutRecord:
        """Add frames that readers do not see yet; return the record that announces them."""
        template = EntryTemplate(self.topic)
        before = len(self.entries)
        for payload in payloads:
            seq = len(self.entries) + 1
            entry = template.entry(seq, kind, payload, 1)
            self.entries.append(entry)
            self.chains.append(chain_next(self.chains[-1], seq, 1, kind, payload))
            self.totals.append(self.totals[-1] + len(entry))
        return FanoutRecord(
            topic=self.topic,
            lineage=LINEAGE,
            first_seq=before + 1,
            last_seq=len(self.entries),
            chain_before=self.chains[before],
            chain_after=self.chains[-1],
            entries=tuple(self.entries[before:]),
            committed_at_us=0,
        )

    def _observe(self) -> Observation:
        head = self.visible
        return Observation(
            topic=self.topic,
            lineage=LINEAGE,
            exists=True,
            head_seq=head,
            head_chain=self.chains[head],
            head_bytes_total=self.totals[head],
            floor_seq=1,
            floor_chain=self.chains[0],
            floor_bytes_total=0,
            floor_reason=StaleReason.RETENTION_EXPIRED,
            rights=HeadRights(USER_ID, None),
        )

    async def observe(self, asked: Sequence[tuple[TopicName, int]]) -> list[ObservedTopic]:
        """Return the one topic for each name asked."""
        await trio.lowlevel.checkpoint()
        return [
            ObservedTopic(
                self._observe(),
                CursorRow(self.chains[seq], self.totals[seq]) if seq <= self.visible else None,
            )
            for _, seq in asked
        ]

    async def read_heads(
        self, topics: Sequence[TopicName], known: Sequence[Observation | None] = ()
    ) -> list[Observation]:
        """Return the head for each name asked."""
        del known
        await trio.lowlevel.checkpoint()
        return [self._observe() for _ in topics]

    async def read_page(self, topic: TopicName, after_seq: int) -> Page:
        """Return up to ``PAGE_MAX_FRAMES`` frames."""
        await trio.lowlevel.checkpoint()
        assert topic == self.topic
        last = min(after_seq + PAGE_MAX_FRAMES, self.visible)
        entries = self.entries[after_seq:last]
        return Page.from_sizes(
            after_seq,
            b"".join(entries),
            [len(entry) for entry in entries],
            last_chain=self.chains[last],
            observation=self._observe(),
        )


@attrs.frozen
class AnyTokenVerifier:
    """Takes every token for one user who may follow the one topic."""

    topic: TopicName

    async def verify(self, token: str) -> SyncClaims:
        """Return claims; the token is not looked at."""
        await trio.lowlevel.checkpoint()
        return SyncClaims(
            session_id="ses_00000000000000000000000000",
            device_id=DEVICE_ID,
            user_id=USER_ID,
            org_ids=(),
            principal_kind=PrincipalKind.PERSON,
            principal_id=USER_ID,
            surface=Surface.SERVICE,
            jti=token,
            issued_at_s=0,
            expires_at_s=1 << 39,
            grants=(TopicGrant(self.topic, GrantBasis.OWNER),),
        )


@attrs.frozen
class AnyRedeemer:
    """Redeems every token."""

    async def redeem(self, claims: SyncClaims, connection_id: str) -> ReasonCode | None:
        """Say yes."""
        del claims, connection_id
        await trio.lowlevel.checkpoint()
        return None
