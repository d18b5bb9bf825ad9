"""Valid histories for the tests of the checker, and how they look in files."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from chaos.transcripts import AckLine, Line
from khala_contracts.chain import chain_next_hashed, chain_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

TOPIC = "run:run_00000000000000000000000001:events"
OTHER_TOPIC = "run:run_00000000000000000000000002:events"


def history(topic: str = TOPIC, events: Sequence[tuple[str, bytes]] | int = 5) -> list[Line]:
    """Return the lines of a topic with these kinds and payloads, sealed by its chain."""
    if isinstance(events, int):
        events = [("output", b"payload %d" % number) for number in range(events)]
    chain = chain_start(topic)
    lines = []
    for seq, (kind, payload) in enumerate(events, start=1):
        digest = sha256(payload).digest()
        chain = chain_next_hashed(chain, seq, 1, kind, digest)
        lines.append(Line(topic, seq, kind, 1, digest, chain))
    return lines


def acks_of(lines: Iterable[Line]) -> list[AckLine]:
    """Return the acknowledgements that producers of these lines got."""
    return [
        AckLine(
            f"key-{line.topic}-{line.seq}", f"evt_{line.topic}_{line.seq}", line.topic, line.seq, line.chain
        )
        for line in lines
    ]


def write_lines(path: Path, lines: Iterable[Line]) -> Path:
    """Write a journal or history file."""
    records = [
        {
            "topic": line.topic,
            "seq": str(line.seq),
            "kind": line.kind,
            "schema_version": line.schema_version,
            "payload_sha256": line.payload_sha256.hex(),
            "chain": line.chain.hex(),
        }
        for line in lines
    ]
    return _write(path, records)


def write_acks(path: Path, acks: Iterable[AckLine]) -> Path:
    """Write an acknowledgement file."""
    records = [
        {
            "key": ack.key,
            "event_id": ack.event_id,
            "topic": ack.topic,
            "seq": str(ack.seq),
            "chain": ack.chain.hex(),
        }
        for ack in acks
    ]
    return _write(path, records)


def _write(path: Path, records: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
