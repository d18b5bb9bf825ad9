"""The model of one topic's history, as the authority keeps it: what every test of the node compares with.

Pure. Tests append to it and ask it for what the journal would answer and for what the runtime would
publish; ``FakeJournal`` serves several of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from khala.core.classification import CursorRow, HeadRights, Observation
from khala.core.pages import Page
from khala_contracts.chain import chain_next, chain_start
from khala_contracts.codec import EntryTemplate, StaleReason
from khala_contracts.fanout_records import FanoutRecord
from khala_contracts.sync_claims import GrantBasis, PrincipalKind, Surface, SyncClaims, TopicGrant
from khala_contracts.topics import parse_topic

if TYPE_CHECKING:
    from khala_contracts.topics import ParsedTopic

USER = f"usr_{1:026d}"
OTHER_USER = f"usr_{2:026d}"
ORG = f"org_{1:026d}"
DEVICE = "dev_00000001"
LINEAGE = f"lin_{1:026d}"
OTHER_LINEAGE = f"lin_{2:026d}"
KIND = "thought"
# Wall time of every test, in Unix seconds.
WALL_S = 1_700_000_000


def run_topic(number: int = 1) -> ParsedTopic:
    """Return the topic of the events of run ``number``."""
    return parse_topic(f"run:run_{number:026d}:events")


def claims_for(
    *topics: ParsedTopic, basis: GrantBasis = GrantBasis.OWNER, user_id: str = USER, jti: str = "jti-1"
) -> SyncClaims:
    """Return the claims of a person who was granted these topics by one right."""
    org_id = None if basis in {GrantBasis.OWNER, GrantBasis.DEVICE} else ORG
    return SyncClaims(
        session_id=f"ses_{1:026d}",
        device_id=DEVICE,
        user_id=user_id,
        org_ids=(ORG,),
        principal_kind=PrincipalKind.PERSON,
        principal_id=user_id,
        surface=Surface.WEB,
        jti=jti,
        issued_at_s=WALL_S,
        expires_at_s=WALL_S + 300,
        grants=tuple(TopicGrant(topic.name, basis, org_id) for topic in topics),
    )


@attrs.define
class TopicLog:
    """Frames ``1..head_seq`` of one topic; those below ``floor_seq`` are not retained.

    Invariant: ``len(entries) == head_seq`` and ``len(chains) == len(bytes_totals) == head_seq + 1``.
    """

    topic: ParsedTopic = attrs.field(factory=run_topic)
    lineage: str = LINEAGE
    rights: HeadRights = attrs.field(factory=lambda: HeadRights(USER, ORG))
    floor_seq: int = 1
    floor_reason: StaleReason = StaleReason.RETENTION_EXPIRED
    entries: list[bytes] = attrs.field(factory=list)
    chains: list[bytes] = attrs.field(init=False)
    bytes_totals: list[int] = attrs.field(factory=lambda: [0])

    def __attrs_post_init__(self) -> None:
        """Begin with the chain of an empty topic."""
        self.chains = [chain_start(self.topic.name)]

    @property
    def head_seq(self) -> int:
        """Newest frame."""
        return len(self.entries)

    def append(self, count: int = 1, *, payload: bytes = b"x") -> FanoutRecord:
        """Commit ``count`` frames of this payload; return what the runtime publishes about them."""
        template = EntryTemplate(self.topic.name)
        first = self.head_seq + 1
        for seq in range(first, first + count):
            entry = template.entry(seq, KIND, payload, 1)
            self.entries.append(entry)
            self.chains.append(chain_next(self.chains[-1], seq, 1, KIND, payload))
            self.bytes_totals.append(self.bytes_totals[-1] + len(entry))
        return self.record(first, self.head_seq)

    def record(self, first: int, last: int) -> FanoutRecord:
        """Return the record of committed frames ``first..last``."""
        return FanoutRecord(
            topic=self.topic.name,
            lineage=self.lineage,
            first_seq=first,
            last_seq=last,
            chain_before=self.chains[first - 1],
            chain_after=self.chains[last],
            entries=tuple(self.entries[first - 1 : last]),
            committed_at_us=WALL_S * 1_000_000,
        )

    def hint(self, first: int, last: int) -> FanoutRecord:
        """Return the record that only says that the frames exist."""
        return attrs.evolve(self.record(first, last), entries=())

    def observe(self) -> Observation:
        """Return what a statement sees now."""
        head = self.head_seq
        return Observation(
            topic=self.topic.name,
            lineage=self.lineage,
            exists=True,
            head_seq=head,
            head_chain=self.chains[head],
            head_bytes_total=self.bytes_totals[head],
            floor_seq=self.floor_seq,
            floor_chain=self.chains[self.floor_seq - 1],
            floor_bytes_total=self.bytes_totals[self.floor_seq - 1],
            floor_reason=self.floor_reason,
            rights=self.rights,
        )

    def row(self, seq: int) -> CursorRow | None:
        """Return the journal row at ``seq``; rows below the floor have been deleted."""
        if not max(1, self.floor_seq) <= seq <= self.head_seq:
            return None
        return CursorRow(self.chains[seq], self.bytes_totals[seq])

    def page(self, after_seq: int, *, max_frames: int = 2_000, max_bytes: int = 512 * 1024) -> Page:
        """Return the retained frames after ``after_seq``: at least one, then within both bounds."""
        taken: list[bytes] = []
        size = 0
        if after_seq + 1 >= self.floor_seq:
            for entry in self.entries[after_seq : after_seq + max_frames]:
                size += len(entry)
                if taken and size > max_bytes:
                    break
                taken.append(entry)
        return Page.from_sizes(
            after_seq,
            b"".join(taken),
            [len(entry) for entry in taken],
            last_chain=self.chains[after_seq + len(taken)] if taken else b"",
            observation=self.observe(),
        )

    def copy(self) -> TopicLog:
        """Return an independent copy: a history that may fork."""
        copied = TopicLog(
            self.topic,
            self.lineage,
            self.rights,
            self.floor_seq,
            self.floor_reason,
            list(self.entries),
            list(self.bytes_totals),
        )
        copied.chains = list(self.chains)
        return copied

    def cut(self, head_seq: int) -> None:
        """Lose everything after ``head_seq``, as a restore of an older copy does."""
        del self.entries[head_seq:]
        del self.chains[head_seq + 1 :]
        del self.bytes_totals[head_seq + 1 :]
