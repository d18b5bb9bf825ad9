"""What a drill's files and PostgreSQL say: the checker's verdict, and how long deliveries took."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import attrs

from chaos.checker import (
    CloseLine,
    FaultWindow,
    Journal,
    Right,
    Violation,
    check_acks,
    check_applied_once,
    check_closes,
    check_history,
    check_journal,
    check_memory,
    check_rights,
    read_acks,
    read_lines,
)
from chaos.checks.closes import LOST
from chaos.drills.memory_samples import MEMORY_BOUNDS
from chaos.drills.publisher import KIND
from chaos.drills.rereader import KEPT_PASSES
from chaos.journal_reader import journal_of, journal_query
from khala_contracts.reason_codes import REGISTRY, UNAVAILABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from chaos.drills.client_process import FollowerProcess
    from chaos.drills.client_setup import ClientSetup
    from chaos.load.system_under_test import SystemUnderTest
    from chaos.transcripts import AckLine, SampleLine

__all__ = ["Deliveries", "Verdict", "judge", "percentile"]

# No row of the registry has it.
UNKNOWN_CLOSE: Final = 4999
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
        committed_at_s: Unix times of all commits, ascending.
        deliveries_of: The deliveries of each follower, by its name.
        broken_rules: What was found wrong in rights, closes and memory.
    """

    events: int
    broken_histories: list[Violation]
    broken_appends: list[Violation]
    clients: list[Mapping[str, Any]]
    load: Mapping[str, Any]
    deliveries: Deliveries = attrs.field(repr=False)
    committed_at_s: Sequence[float] = attrs.field(default=(), repr=False)
    deliveries_of: Mapping[str, Deliveries] = attrs.field(factory=dict, repr=False)
    broken_rules: list[Violation] = attrs.field(factory=list)

    def commits_per_s(self, begin_s: float, end_s: float) -> float:
        """Return how many events were committed per second in ``begin_s <= t < end_s``."""
        count = bisect_left(self.committed_at_s, end_s) - bisect_left(self.committed_at_s, begin_s)
        return count / max(end_s - begin_s, 0.001)

    @property
    def disconnects(self) -> int:
        """How often followers lost their connections."""
        return sum(client["disconnects"] for client in self.clients)

    @property
    def violations(self) -> list[str]:
        """Everything that was found wrong, one line each."""
        found = self.broken_histories + self.broken_appends + self.broken_rules
        return [str(violation) for violation in found]

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
    rereader: ClientSetup | None,
    began_at_s: float,
    samples: Sequence[SampleLine] = (),
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
    broken_rules: list[Violation] = []
    closed = 0
    latencies: dict[str, list[tuple[float, float]]] = {}
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
                latencies.setdefault(name, []).append((since_s, at_s - since_s))
        clients.append(_facts_of(follower, applied=len(lines)))
        rights = [Right(name, topic) for topic in topics]
        closes = _closes_of(follower)
        broken_rules += check_rights(lines, rights, source=name)
        # Whoever is killed or cut off may be lost at any time; drills that kill no node claim that nobody is.
        broken_rules += check_closes(closes, faults=[FaultWindow(0.0, math.inf)])
        closed += len(closes)
    broken_rules += check_memory(samples, MEMORY_BOUNDS)
    files = [] if rereader is None else [rereader.file(f"pass-{n}.jsonl") for n in range(KEPT_PASSES)]
    passes = [path for path in files if path.exists()]
    for path in passes:
        broken_histories += check_history(
            list(read_lines(path)), journal, source=path.name, is_complete=False
        )
    events = sum(len(lines) for lines in journal.topics.values())
    load = {
        **_load_of(acks, publisher),
        "passes_judged": len(passes),
        "closes": closed,
        "samples": len(samples),
    }
    return Verdict(
        events,
        broken_histories,
        broken,
        clients,
        load,
        Deliveries.of(pair for pairs in latencies.values() for pair in pairs),
        sorted(committed_at_s.values()),
        {name: Deliveries.of(pairs) for name, pairs in latencies.items()},
        broken_rules,
    )


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


def _closes_of(follower: FollowerProcess) -> list[CloseLine]:
    """Return how its connections ended, as its client understood it; it came back each time."""
    closes: list[CloseLine] = []
    for notice in follower.notices:
        if notice["notice"] != "disconnected":
            continue
        row = REGISTRY.get(notice["code"])
        # The client's word for a connection that was lost, or could not be made.
        is_lost = row is not None and row.name == UNAVAILABLE.name
        code = LOST if is_lost or row is None else row.close_code
        closes.append(
            CloseLine(
                follower.setup.name,
                f"connection-{len(closes) + 1}",
                # A code that closes nothing was no reason to close.
                UNKNOWN_CLOSE if code is None else code,
                notice["at_s"],
                error=None if is_lost or row is None else row.name,
                is_resumed=True,
            )
        )
    return closes


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
