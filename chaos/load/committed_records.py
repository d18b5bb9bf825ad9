"""Rows that are committed before they are published: what a feed at full speed hands to the driver.

The rows are written by ``append_v1`` with the runtime's role, past the runtime's HTTP, which would be what
is measured otherwise. Payloads are those of ``known_payloads``. The records are sealed with the system's
own fan-out key, so that the node checks seal and chain as always. A position check would fetch what the
feed is about to publish; a benchmark that uses this raises ``heal_delay_s`` and says so.

Subscribe before ``commit_records``: who subscribes later begins at a head that is not published yet.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import attrs

from chaos.load.known_payloads import DIGITS, payload_of_seq
from chaos.load.system_under_test import SystemFailedError
from khala.cli.up_secrets import FANOUT_KEY_ID
from khala.core.websocket_frames import frame_message
from khala_contracts.chain import chain_next, chain_start
from khala_contracts.codec import EntryTemplate
from khala_contracts.fanout_records import FanoutRecord, RecordSigner
from khala_contracts.topics import parse_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.load.rig import Rig

__all__ = ["KIND", "CommittedRecord", "TopicWriter"]

KIND: Final = "output"
ROLE: Final = "khala_runtime"
# One call of append_v1; a chunk of this many rows of 200 bytes takes a quarter of a second.
_ROWS_PER_CALL: Final = 5_000
_TIMEOUT_S: Final = 120.0
# The n-th event of this call has seq {before} + n. Letters as known_payloads.py says.
_APPEND: Final = """
SELECT r.seqs_before[1], encode(substr(r.chains, octet_length(r.chains) - 31), 'hex')
FROM (
    SELECT array_agg(
        convert_to(
            lpad(to_hex(s), {digits}, '0')
            || substr(repeat('abcdefghijklmnopqrstuvwxyz', {size} / 26 + 2), ((s + {digits}) % 26)::integer + 1, {size} - {digits}),
            'UTF8'
        ) ORDER BY s
    ) AS payloads
    FROM generate_series({before}::bigint + 1, {before}::bigint + {count}) AS s
) AS p
CROSS JOIN LATERAL runtime.append_v1(
    (SELECT generation FROM runtime.generation),
    ARRAY['{topic}'], ARRAY['{topic_class}'], ARRAY[{owner}], ARRAY['{org_id}'], ARRAY[{count}],
    array_fill('evt_00000000000000000000000000'::text, ARRAY[{count}]),
    array_fill('{kind}'::text, ARRAY[{count}]),
    p.payloads,
    array_fill(1::bigint, ARRAY[{count}]),
    array_fill('usr_00000000000000000000000000'::text, ARRAY[{count}]),
    array_fill('req_00000000000000000000000000'::text, ARRAY[{count}]),
    array_fill(NULL::text, ARRAY[{count}])
) AS r;
"""


@attrs.frozen
class CommittedRecord:
    """One record that is in the journal and was not published yet.

    Attributes:
        first_seq: Of its first frame.
        last_seq: Of its last frame.
        sealed: What a driver carries.
        message: What the node sends for it to one subscriber: one WebSocket frame.
        body: That without the header of the frame.
    """

    first_seq: int
    last_seq: int
    sealed: bytes = attrs.field(repr=False)
    message: bytes = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


class TopicWriter:
    """Commits to one topic of a rig, and keeps its chain. Nobody else may write to the topic."""

    def __init__(self, rig: Rig, topic: str) -> None:
        """Take a topic of the rig's org as it is now; ``app:{org}:{name}`` need not exist yet."""
        parsed = parse_topic(topic)
        self._rig = rig
        self.topic = parsed.name
        self._topic_class = parsed.topic_class.name
        self._template = EntryTemplate(topic)
        self._signer = RecordSigner(FANOUT_KEY_ID, bytes.fromhex(rig.secret("fanout_key")))
        ((self._lineage,),) = rig.system.query("SELECT id FROM runtime.lineage WHERE is_current")
        rows = rig.system.query(
            f"SELECT head_seq, encode(head_chain, 'hex') FROM runtime.topic_heads WHERE topic = '{topic}'"  # noqa: S608 - of the registry's grammar
        )
        self.head_seq = int(rows[0][0]) if rows else 0
        self._chain = bytes.fromhex(rows[0][1]) if rows else chain_start(topic)

    def commit(self, records: int, *, frames_per_record: int, payload_bytes: int) -> list[CommittedRecord]:
        """Commit ``records * frames_per_record`` events; return the records that announce them.

        Raises:
            SystemFailedError: The journal has another chain than these records.
        """
        frames, first = records * frames_per_record, self.head_seq + 1
        made = [self._make(frames_per_record, payload_bytes) for _ in range(records)]
        written = 0
        while written < frames:
            count = min(_ROWS_PER_CALL, frames - written)
            chain = self._append(first + written - 1, count, payload_bytes)
            written += count
        if chain != self._chain.hex():
            raise SystemFailedError(f"the journal of {self.topic} has another chain at {self.head_seq}")
        return made

    def _make(self, frames: int, payload_bytes: int) -> CommittedRecord:
        first, before = self.head_seq + 1, self._chain
        entries = tuple(self._entries(frames, payload_bytes))
        record = FanoutRecord(
            topic=self.topic,
            lineage=self._lineage,
            first_seq=first,
            last_seq=self.head_seq,
            chain_before=before,
            chain_after=self._chain,
            entries=entries,
            committed_at_us=time.time_ns() // 1_000,
        )
        body = b"".join(entries)
        return CommittedRecord(first, self.head_seq, self._signer.seal(record), frame_message(body), body)

    def _entries(self, frames: int, payload_bytes: int) -> Iterator[bytes]:
        for _ in range(frames):
            self.head_seq += 1
            payload = payload_of_seq(self.head_seq, payload_bytes)
            self._chain = chain_next(self._chain, self.head_seq, 1, KIND, payload)
            yield self._template.entry(self.head_seq, KIND, payload, 1)

    def _append(self, before: int, count: int, payload_bytes: int) -> str:
        sql = _APPEND.format(
            digits=DIGITS,
            size=payload_bytes,
            before=before,
            count=count,
            topic=self.topic,
            topic_class=self._topic_class,
            owner="NULL",
            org_id=self._rig.org_id,
            kind=KIND,
        )
        ((seq_before, chain),) = self._rig.system.query(sql, role=ROLE, timeout_s=_TIMEOUT_S)
        if int(seq_before) != before:
            raise SystemFailedError(
                f"{self.topic} was at {seq_before}, not at {before}: somebody else writes"
            )
        return chain
