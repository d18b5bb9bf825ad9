"""What PostgreSQL holds of a drill's topics, for the judgement of clients that the stage does not know."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import attrs

from chaos.drills.verdict import Deliveries
from chaos.journal_reader import journal_of, journal_query
from chaos.transcripts import Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.checker import Journal
    from chaos.load.system_under_test import SystemUnderTest

__all__ = ["Committed", "frame_of", "read_committed"]

_QUERY_TIMEOUT_S: Final = 120.0
_UNKNOWN_HASH: Final = bytes(32)


@attrs.frozen
class Committed:
    """The journal of some topics.

    Attributes:
        journal: For the checker.
        committed_at_s: Unix times by topic and seq.
    """

    journal: Journal
    committed_at_s: Mapping[tuple[str, int], float]
    _crcs: Mapping[tuple[str, int], int]

    def line_of_crc(self, topic: str, seq: int, crc: int) -> Line:
        """Return the line of a frame of which a client has kept the CRC-32.

        If that is not the journal's frame at this place, the line is one that the checker refuses.
        """
        line = self.journal.find(topic, seq)
        if line is not None and self._crcs[topic, seq] == crc:
            return line
        return Line(topic, seq, "unknown", 1, _UNKNOWN_HASH, _UNKNOWN_HASH)

    def deliveries(self, received: Iterable[tuple[str, int, float]], *, since_s: float) -> Deliveries:
        """Return the times from commit to client of (topic, seq, received at) committed from ``since_s`` on."""
        pairs = ((self.committed_at_s.get((topic, seq), 0.0), at_s) for topic, seq, at_s in received)
        return Deliveries.of((since, at_s - since) for since, at_s in pairs if since >= since_s)


def read_committed(system: SystemUnderTest, topics: Sequence[str]) -> Committed:
    """Read the topics.

    Raises:
        SystemFailedError: PostgreSQL does not answer.
    """
    rows: list[tuple[str, str]] = []
    crcs: dict[tuple[str, int], int] = {}
    committed_at_s: dict[tuple[str, int], float] = {}
    for topic in topics:
        found = system.query(journal_query([topic]), timeout_s=_QUERY_TIMEOUT_S)
        rows += [(entry, chain) for entry, chain in found]
        times = system.query(
            "SELECT seq, extract(epoch FROM committed_at) FROM runtime.journal "  # noqa: S608 - server-made names
            f"WHERE topic = '{topic}' ORDER BY seq",
            timeout_s=_QUERY_TIMEOUT_S,
        )
        for (entry, _), (seq, at_s) in zip(found, times, strict=True):
            committed_at_s[topic, int(seq)] = float(at_s)
            crcs[topic, int(seq)] = zlib.crc32(frame_of(bytes.fromhex(entry)))
    return Committed(journal_of(rows), committed_at_s, crcs)


def frame_of(entry: bytes) -> bytes:
    """Return an entry of ``ServerMessage.frames`` without its tag and length."""
    at = 1
    while entry[at] & 0x80:
        at += 1
    return entry[at + 1 :]
