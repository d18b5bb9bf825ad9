"""The one judge of what clients got: simulation, tests, load, drills and transcripts of production.

Reads lines that surviving processes wrote to disk (transcripts.py), so it needs neither a running
system nor the code under judgement: of the product it imports the contracts alone.

What it judges (chaos/checks), and the rules that a verdict names:

1. the journal: each topic is exactly 1..N, or floor..N where the floor is told, never derived from
   what happens to remain; its chain follows (``loss, gap, duplicate, order, chain``);
2. each history: one contiguous piece of its topic, equal to the journal line by line; if it claims to
   be complete it ends at the head, if it claims the beginning it begins there (``gap, duplicate,
   order, foreign, content, chain, loss``);
3. each acknowledgement: the event is in the journal at that position, with that payload where it is
   told, no key has two and no position has two keys (``lost_ack, ack_chain, ack_content,
   applied_twice, shared_ack``);
4. where producers write their key into each payload: no payload is there twice, also of those whose
   acknowledgement never arrived (``applied_twice``);
5. rights: nobody holds what it might not read, or got it after its right was gone (``unauthorised``);
6. closes: each has a code of the protocol, announced by the right error or go_away, and a connection
   is lost without one only while somebody does harm (``unknown_close, unannounced_close, wrong_close,
   unexplained_close, returned``);
7. memory: no sample above its bound, no bound without a sample (``memory, unmeasured``).

A verdict lists every violation; an empty list means that what was promised was kept. A history that
lies wholly below the floor cannot be compared and is judged by its own chain.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from chaos.checks.acks import check_acks
from chaos.checks.closes import FaultWindow, check_closes
from chaos.checks.histories import History, check_history, check_rights
from chaos.checks.journal import Journal, check_applied_once, check_journal
from chaos.checks.memory import check_memory
from chaos.checks.positions import check_positions
from chaos.checks.violations import Violation
from chaos.transcripts import (
    AckLine,
    BrokenTranscriptError,
    CloseLine,
    Line,
    Right,
    SampleLine,
    read_acks,
    read_closes,
    read_lines,
    read_rights,
    read_samples,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AckLine",
    "BrokenTranscriptError",
    "CloseLine",
    "Evidence",
    "FaultWindow",
    "History",
    "Journal",
    "Line",
    "Right",
    "SampleLine",
    "Violation",
    "check_acks",
    "check_applied_once",
    "check_closes",
    "check_history",
    "check_journal",
    "check_memory",
    "check_positions",
    "check_rights",
    "judge",
    "main",
    "read_acks",
    "read_closes",
    "read_lines",
    "read_rights",
    "read_samples",
]

_NONE: Final[Mapping[str, float]] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class Evidence:
    """Everything that is known of one run; what is left out is not judged.

    Attributes:
        journal: The authority's.
        histories: What clients hold.
        acks: What producers were told, by producer.
        keyed_kind: Kind of the events whose payload is unique; empty: there is none.
        rights: Of all clients, if they are told at all.
        closes: Ends of connections.
        faults: When harm was done, so that connections could be lost.
        samples: Of what is bounded.
        bounds: By name of the samples.
    """

    journal: Journal
    histories: Sequence[History] = ()
    acks: Mapping[str, Sequence[AckLine]] = attrs.field(factory=dict)
    keyed_kind: str = ""
    rights: Sequence[Right] | None = None
    closes: Sequence[CloseLine] = ()
    faults: Sequence[FaultWindow] = ()
    samples: Sequence[SampleLine] = ()
    bounds: Mapping[str, float] = _NONE


def judge(evidence: Evidence, *, source: str = "journal") -> list[Violation]:
    """Return everything that was not kept; ``source`` is the journal's name."""
    journal = evidence.journal
    violations = check_journal(journal, source=source)
    if evidence.keyed_kind:
        violations += check_applied_once(journal, kind=evidence.keyed_kind, source=source)
    for history in evidence.histories:
        violations += check_history(
            history.lines,
            journal,
            source=history.source,
            is_complete=history.is_complete,
            after_seq=history.after_seq,
            topics=history.topics,
        )
        if evidence.rights is not None:
            violations += check_rights(history.lines, evidence.rights, source=history.source)
    for producer, acks in evidence.acks.items():
        violations += check_acks(acks, journal, source=producer)
    violations += check_closes(evidence.closes, faults=evidence.faults)
    return violations + check_memory(evidence.samples, evidence.bounds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge files; print every violation and a summary; return 1 if there was one, 2 if unreadable."""
    options = _parse(arguments)
    try:
        evidence = _evidence_of(options)
        violations = judge(evidence, source=str(options.journal))
    except (BrokenTranscriptError, OSError) as exc:
        sys.stderr.write(f"cannot judge: {exc}\n")
        return 2
    for violation in violations:
        sys.stdout.write(f"{violation}\n")
    events = sum(len(lines) for lines in evidence.journal.topics.values())
    further = ((evidence.closes, "closes"), (evidence.samples, "samples"), (evidence.rights, "rights"))
    sys.stdout.write(
        f"{len(violations)} violations; {events} events, {len(evidence.journal.topics)} topics, "
        f"{len(options.history)} histories, {len(options.acks)} acknowledgement files"
        + "".join(f", {len(found)} {name}" for found, name in further if found)
        + "\n"
    )
    return 1 if violations else 0


def _evidence_of(options: argparse.Namespace) -> Evidence:
    return Evidence(
        journal=Journal.of(read_lines(options.journal), floors=dict(options.floor)),
        histories=[
            History(
                source=name or str(path),
                lines=list(read_lines(path)),
                is_complete=options.complete,
                after_seq=options.after,
                topics=options.topic,
            )
            for name, path in options.history
        ],
        acks={str(path): list(read_acks(path)) for path in options.acks},
        keyed_kind=options.keyed_kind,
        rights=[right for path in options.rights for right in read_rights(path)] if options.rights else None,
        closes=[close for path in options.closes for close in read_closes(path)],
        faults=[FaultWindow(begin_s, end_s) for begin_s, end_s in options.fault],
        samples=[sample for path in options.samples for sample in read_samples(path)],
        bounds=dict(options.bound),
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.checker",
        description="Compare what clients hold with the journal; exit 0, 1 (violations) or 2 (unreadable).",
    )

    def several(option: str, **rest: object) -> None:
        parser.add_argument(option, action="append", default=[], **rest)  # type: ignore[arg-type]

    parser.add_argument("--journal", type=Path, required=True)
    several("--history", type=_parse_history, metavar="[CLIENT=]FILE")
    several("--acks", type=Path)
    parser.add_argument("--complete", action="store_true", help="histories must reach the head")
    parser.add_argument("--after", type=int, metavar="SEQ", help="histories must begin right after SEQ")
    several("--topic", help="a topic that every history follows")
    several(
        "--floor",
        type=_parse_floor,
        metavar="TOPIC=SEQ",
        help="the oldest retained position of a topic that no longer begins at 1",
    )
    parser.add_argument("--keyed-kind", default="", help="each payload of this kind is there once")
    several("--rights", type=Path, help="what each client may read")
    several("--closes", type=Path, help="how connections ended")
    several("--fault", type=_parse_window, metavar="BEGIN:END", help="Unix times between which harm was done")
    several("--samples", type=Path, help="what was kept in memory")
    several("--bound", type=_parse_bound, metavar="NAME=MOST", help="the bound of samples of a name")
    return parser.parse_args(arguments)


def _parse_history(text: str) -> tuple[str, Path]:
    name, _, path = text.rpartition("=")
    return name, Path(path)


def _parse_floor(text: str) -> tuple[str, int]:
    topic, _, seq = text.rpartition("=")
    if not topic:
        raise ValueError
    return topic, int(seq)


def _parse_window(text: str) -> tuple[float, float]:
    begin_s, _, end_s = text.partition(":")
    return float(begin_s), float(end_s)


def _parse_bound(text: str) -> tuple[str, float]:
    name, _, most = text.rpartition("=")
    if not name:
        raise ValueError
    return name, float(most)


if __name__ == "__main__":
    sys.exit(main())
