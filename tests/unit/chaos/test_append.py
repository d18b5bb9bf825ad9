"""The append benchmark gives no figure for appends that were not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.load.append import check_answers
from chaos.load.append_client import Answer
from chaos.load.system_under_test import SystemFailedError
from khala_contracts import http_messages as m
from khala_contracts.chain import chain_after, chain_start
from khala_contracts.codec import encode_entry
from khala_contracts.frames import Frame
from khala_contracts.topics import Seq, parse_topic

if TYPE_CHECKING:
    from collections.abc import Callable

RUN_ID = "run_00000000000000000000000001"
TOPIC = parse_topic(f"run:{RUN_ID}:events").name


def rows(events: int) -> list[tuple[str, str]]:
    """Return the journal of a run with its start and so many events after it."""
    chain, found = chain_start(TOPIC), []
    for seq in range(1, events + 2):
        frame = Frame(TOPIC, Seq(seq), "run.started" if seq == 1 else "output", b"", 1)
        chain = chain_after(chain, frame)
        found.append((encode_entry(frame).hex(), chain.hex()))
    return found


def answer(first_seq: int, events: int = 2, key: str | None = None) -> Answer:
    """Return the answer to a batch that was written at this position."""
    kept = rows(10)
    acks = [
        m.Ack(event_id=f"evt_{seq}", topic=TOPIC, seq=seq, chain=bytes.fromhex(kept[seq - 1][1]))
        for seq in range(first_seq, first_seq + events)
    ]
    body = m.AppendEventsResponse(acks=acks).SerializeToString()
    return Answer(RUN_ID, key or f"key-{first_seq}", body, 0.01)


def test_every_acknowledged_event_is_there_and_no_other() -> None:
    """The start of the run is nobody's append."""
    check_answers([answer(2), answer(4)], rows(4))


@pytest.mark.parametrize(
    ("answers", "journal", "reason"),
    [
        (lambda: [answer(2), answer(4)], lambda: rows(3), "lost_ack"),
        (lambda: [answer(2)], lambda: rows(4), "2 events are in the journal of which nobody was told"),
        (lambda: [answer(2), answer(2, key="other")], lambda: rows(2), "shared_ack"),
        (lambda: [answer(2), answer(4, key="key-2")], lambda: rows(4), "applied_twice"),
        (lambda: [answer(2)], lambda: [rows(2)[0], rows(2)[2]], "gap"),
    ],
    ids=["lost", "unexpected", "twice told", "key applied twice", "hole"],
)
def test_what_was_not_kept_is_a_failure(
    answers: Callable[[], list[Answer]], journal: Callable[[], list[tuple[str, str]]], reason: str
) -> None:
    """By the checker's rules, with the rule in the message."""
    with pytest.raises(SystemFailedError, match=reason):
        check_answers(answers(), journal())
