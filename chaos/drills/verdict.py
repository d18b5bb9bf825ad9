"""What a drill's files and PostgreSQL say: the checker's verdict, and how long deliveries took."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import attrs

from chaos.checker import (
    Journal,
    Violation,
    check_acks,
    check_applied_once,
    check_history,
    check_journal,
    read_acks,
    read_lines,
)
from chaos.drills.publisher import KIND
from chaos.drills.rereader import KEPT_PASSES
from chaos.journal_reader import journal_of, journal_query

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from chaos.drills.client_process import FollowerProcess
    from chaos.drills.client_setup import ClientSetup
    from chaos.load.system_under_test import SystemUnderTest
    from chaos.transcripts import AckLine

__all__ = ["Deliveries", "Verdict", "judge", "percentile"]

_QUERY_TIMEOUT_S: Final = 300.0


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` (0..1) of the values do not exceed; 0.0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


@attrs.define
class Deliveries:
    """Seconds from commit to application, of every event at every follower.

    Invariant: ``committed_at_s`` ascends; ``latencies_s`` belongs to it place by place.
    """

    committed_at_s: list[float]
    latencies_s: list[float]

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Deliveries:
        """Take (committed at, latency) in any order."""
        ordered = sorted(pairs)
        return cls([pair[0] for pair in ordered], [pair[1] for pair in ordered])

    def between(self, begin_s: float, end_s: float) -> list[float]:
        """Return the latencies of what was committed in ``begin_s <= t < end_s``."""
        first = bisect_left(self.committed_at_s, begin_s)
        return self.latencies_s[first : bisect_left(self.committed_at_s, end_s)]


@attrs.frozen
class Verdict:
    """The outcome of a drill's clients.

    Attributes:
        broken_histories: What was found wrong in histories of followers and passes of the rereader.
        broken_appends: What was found wrong in the journal and the acknowledgements.
        clients: Facts for each follower.
        load: Facts of the publisher.
    """

    events: int
    broken_histories: list[Violation]
    broken_appends: list[Violation]
    clients: list[Mapping[str, Any]]
    load: Mapping[str, Any]
    deliveries: Deliveries = attrs.field(repr=False)

    @property
    def gaps_on_the_wire(self) -> int:
        """Frames that arrived above the next one; the promise is that there is none."""
        return sum(client["gaps"] for client in self.clients)


def judge(
    system: SystemUnderTest,
    topics: Sequence[str],
    *,
    publisher: ClientSetup,
    followers: Sequence[FollowerProcess],
    rereader: ClientSetup,
    began_at_s: float,
) -> Verdict:
    """Compare what the processes wrote with what PostgreSQL holds.

    Raises:
        BrokenTranscriptError: A file is not what it should be.
        SystemFailedError: PostgreSQL does not answer.
    """
    journal, committed_at_s = _read_journal(system, topics)
    broken = check_journal(journal)
    acks = list(read_acks(publisher.file("acks.jsonl")))
    broken += check_acks(acks, journal, source=publisher.name)
    broken += check_applied_once(journal, kind=KIND)
    broken_histories: list[Violation] = []
    latencies: list[tuple[float, float]] = []
    clients: list[Mapping[str, Any]] = []
    for follower in followers:
        name, path = follower.setup.name, follower.setup.file("history.jsonl")
        lines = list(read_lines(path))
        broken_histories += check_history(
            lines, journal, source=name, is_complete=True, after_seq=0, topics=topics
        )
        for line, at_s in zip(lines, _read_times(path), strict=True):
            since_s = committed_at_s.get((line.topic, line.seq), 0.0)
            if since_s >= began_at_s:
                latencies.append((since_s, at_s - since_s))
        clients.append(_facts_of(follower, applied=len(lines)))
    passes = [path for n in range(KEPT_PASSES) if (path := rereader.file(f"pass-{n}.jsonl")).exists()]
    for path in passes:
        broken_histories += check_history(
            list(read_lines(path)), journal, source=path.name, is_complete=False
        )
    events = sum(len(lines) for lines in journal.topics.values())
    load = {**_load_of(acks, publisher), "passes_judged": len(passes)}
    return Verdict(events, broken_histories, broken, clients, load, Deliveries.of(latencies))


def _read_journal(
    system: SystemUnderTest, topics: Sequence[str]
) -> tuple[Journal, Mapping[tuple[str, int], float]]:
    rows: list[tuple[str, str]] = []
    committed_at_s: dict[tuple[str, int], float] = {}
    for topic in topics:
        found = system.query(journal_query([topic]), timeout_s=_QUERY_TIMEOUT_S)
        rows += [(entry, chain) for entry, chain in found]
        times = system.query(
            f"SELECT seq, extract(epoch FROM committed_at) FROM runtime.journal WHERE topic = '{topic}'",  # noqa: S608 - server-made names
            timeout_s=_QUERY_TIMEOUT_S,
        )
        committed_at_s |= {(topic, int(seq)): float(at_s) for seq, at_s in times}
    return journal_of(rows), committed_at_s


def _read_times(path: Path) -> list[float]:
    with path.open("rb") as file:
        return [json.loads(line)["at_s"] for line in file]


def _facts_of(follower: FollowerProcess, *, applied: int) -> Mapping[str, Any]:
    follower.look()
    counts = [notice for notice in follower.notices if notice["notice"] == "counts"]
    return {
        "name": follower.setup.name,
        "applied": applied,
        "connections": follower.count("connected"),
        "disconnects": follower.count("disconnected"),
        "gaps": follower.count("gap"),
        "repeats": sum(count["duplicates"] for count in counts),
    }


def _load_of(acks: Sequence[AckLine], publisher: ClientSetup) -> Mapping[str, Any]:
    attempts: Counter[str] = Counter()
    times: list[float] = []
    with publisher.file("acks.jsonl").open("rb") as file:
        for line in file:
            record = json.loads(line)
            attempts[record["key"]] += record["attempts"]
            times.append(record["at_s"])
    # From the first acknowledgement to the last: what the starts of processes take is no load.
    load_s = max(0.1, times[-1] - times[0])
    return {
        "acknowledgements": len(acks),
        "keys": len(attempts),
        "keys_sent_again": sum(count > 1 for count in attempts.values()),
        "events_per_s": round(len(attempts) / load_s, 1),
        "seconds": round(load_s, 1),
    }
