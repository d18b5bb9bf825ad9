"""Each way in which a promise can be broken is caught, by the rule that names it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from chaos.checker import Journal, check_acks, check_applied_once, check_history, check_journal, main
from tests.unit.chaos.histories import OTHER_TOPIC, TOPIC, acks_of, history, write_acks, write_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chaos.checker import AckLine, Line, Violation

LINES = history()
OTHER_LINES = history(OTHER_TOPIC, [("thought", b"a"), ("action", b"b")])
JOURNAL = Journal.of([*LINES, *OTHER_LINES])
NOTHING = sha256(b"something else").digest()


def judge(held: Sequence[Line], *, after_seq: int | None = 0) -> list[Violation]:
    """Return the verdict on a client that claims to hold all of the topic."""
    return check_history(
        held, JOURNAL, source="client", is_complete=True, after_seq=after_seq, topics=[TOPIC]
    )


def rules(violations: Sequence[Violation]) -> set[str]:
    """Return the rules that were broken."""
    return {violation.rule for violation in violations}


def changed(lines: Sequence[Line], seq: int, **fields: Any) -> list[Line]:
    """Return the lines with other fields at one position."""
    return [attrs.evolve(line, **fields) if line.seq == seq else line for line in lines]


def test_what_was_promised_and_kept_is_no_violation() -> None:
    """A whole history, one that began later, and one of two topics at once."""
    assert check_journal(JOURNAL) == []
    assert judge(LINES) == []
    assert judge(LINES[2:], after_seq=2) == []
    interleaved = [LINES[0], OTHER_LINES[0], *LINES[1:], OTHER_LINES[1]]
    assert judge(interleaved) == []
    assert check_acks(acks_of([*LINES, *OTHER_LINES]), JOURNAL, source="producer") == []


@pytest.mark.parametrize(
    ("corrupt", "rule"),
    [
        pytest.param(lambda lines: [*lines[:2], *lines[3:]], "gap", id="gap"),
        pytest.param(lambda lines: [*lines[:3], *lines[2:]], "duplicate", id="duplicate"),
        pytest.param(lambda lines: [*lines, lines[1]], "order", id="late duplicate"),
        pytest.param(lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "order", id="reorder"),
        pytest.param(
            lambda lines: [*lines, attrs.evolve(lines[-1], seq=6)], "foreign", id="event that nobody wrote"
        ),
        pytest.param(
            lambda lines: [*lines, *history("run:run_00000000000000000000000003:events", 1)],
            "foreign",
            id="topic that nobody wrote",
        ),
        pytest.param(
            lambda lines: changed(lines, 3, payload_sha256=NOTHING), "content", id="altered payload"
        ),
        pytest.param(lambda lines: changed(lines, 3, kind="thought"), "content", id="altered kind"),
        pytest.param(lambda lines: changed(lines, 3, chain=NOTHING), "chain", id="altered chain"),
        pytest.param(lambda lines: changed(lines, 3, schema_version=2), "chain", id="altered version"),
        pytest.param(lambda lines: lines[:-1], "loss", id="lost tail"),
        pytest.param(lambda lines: lines[1:], "loss", id="lost beginning"),
        pytest.param(lambda _: [], "loss", id="lost everything"),
        pytest.param(
            lambda lines: [attrs.evolve(line, topic=OTHER_TOPIC) for line in lines[:2]] + lines[2:],
            "content",
            id="another topic's data",
        ),
    ],
)
def test_a_corrupted_history_is_caught(corrupt: Callable[[list[Line]], list[Line]], rule: str) -> None:
    """Whatever a client lost, repeated, moved or invented has its rule in the verdict."""
    assert rule in rules(judge(corrupt(list(LINES))))


def test_a_complete_client_must_reach_the_head_only_where_it_says_so() -> None:
    """A client that was killed holds a piece, and that is no violation."""
    piece = LINES[1:3]
    assert check_history(piece, JOURNAL, source="killed", is_complete=False) == []
    assert rules(check_history(piece, JOURNAL, source="killed", is_complete=True)) == {"loss"}


@pytest.mark.parametrize(
    ("corrupt", "rule"),
    [
        pytest.param(lambda lines: [*lines[:2], *lines[3:]], "gap", id="hole"),
        pytest.param(lambda lines: [*lines[:3], *lines[2:]], "duplicate", id="number used twice"),
        pytest.param(lambda lines: [*lines[:2], *lines[3:], lines[2]], "order", id="late"),
        pytest.param(lambda lines: lines[1:], "loss", id="lost beginning"),
        pytest.param(lambda lines: changed(lines, 3, payload_sha256=NOTHING), "chain", id="payload"),
        pytest.param(lambda lines: changed(lines, 5, chain=NOTHING), "chain", id="last link"),
        pytest.param(lambda lines: changed(lines, 1, chain=NOTHING), "chain", id="first link"),
        pytest.param(lambda lines: changed(lines, 2, schema_version=7), "chain", id="version"),
    ],
)
def test_a_corrupted_journal_is_caught(corrupt: Callable[[list[Line]], list[Line]], rule: str) -> None:
    """The authority is judged too: numbers without holes, and a chain that follows."""
    assert rule in rules(check_journal(Journal.of(corrupt(list(LINES)))))


def changed_ack(acks: Sequence[AckLine], index: int, **fields: Any) -> list[AckLine]:
    """Return the acknowledgements with other fields in one of them."""
    return [attrs.evolve(ack, **fields) if at == index else ack for at, ack in enumerate(acks)]


@pytest.mark.parametrize(
    ("corrupt", "rule"),
    [
        pytest.param(lambda acks: changed_ack(acks, 4, seq=6), "lost_ack", id="above the head"),
        pytest.param(
            lambda acks: changed_ack(acks, 1, topic="run:run_00000000000000000000000003:events"),
            "lost_ack",
            id="topic that does not exist",
        ),
        pytest.param(lambda acks: changed_ack(acks, 1, chain=NOTHING), "ack_chain", id="other chain"),
        pytest.param(
            lambda acks: changed_ack(acks, 1, key=acks[0].key), "applied_twice", id="key applied twice"
        ),
        pytest.param(
            lambda acks: [*acks, attrs.evolve(acks[0], event_id="evt_new")],
            "applied_twice",
            id="retry told another id",
        ),
        pytest.param(
            lambda acks: [*acks, attrs.evolve(acks[0], key="key-new")], "shared_ack", id="two keys, one event"
        ),
        pytest.param(
            lambda acks: changed_ack(acks, 1, event_id=acks[0].event_id),
            "shared_ack",
            id="one id, two events",
        ),
    ],
)
def test_a_broken_promise_to_a_producer_is_caught(
    corrupt: Callable[[list[AckLine]], list[AckLine]], rule: str
) -> None:
    """An acknowledged append is there, once, under the chain that was told."""
    assert rule in rules(check_acks(corrupt(acks_of(LINES)), JOURNAL, source="producer"))


def test_an_acknowledged_event_that_the_journal_lost_is_caught() -> None:
    """The journal looks whole by itself: only who was told can say that its end is missing."""
    lost_tail = Journal.of(LINES[:-1])
    assert check_journal(lost_tail) == []
    assert rules(check_acks(acks_of(LINES), lost_tail, source="producer")) == {"lost_ack"}
    held = check_history(LINES, lost_tail, source="client", is_complete=True)
    assert rules(held) == {"foreign", "loss"}


def test_a_retry_that_got_the_same_answer_is_no_violation() -> None:
    """The same key with the same answer, any number of times."""
    acks = acks_of(LINES)
    assert check_acks([*acks, *acks], JOURNAL, source="producer") == []


def test_an_acknowledgement_of_other_content_is_caught() -> None:
    """Where the producer wrote down what it sent, that is what must be there."""
    acks = [
        attrs.evolve(ack, payload_sha256=line.payload_sha256)
        for ack, line in zip(acks_of(LINES), LINES, strict=True)
    ]
    assert check_acks(acks, JOURNAL, source="producer") == []
    other = changed_ack(acks, 2, payload_sha256=NOTHING)
    assert rules(check_acks(other, JOURNAL, source="producer")) == {"ack_content"}


def test_a_payload_that_is_there_twice_is_a_key_applied_twice() -> None:
    """In one topic or in two, also where no acknowledgement tells; other kinds may repeat themselves."""
    twice = history(events=[("thought", b"key-1"), ("output", b"same"), ("thought", b"key-1")])
    elsewhere = history(OTHER_TOPIC, [("thought", b"key-1"), ("output", b"same")])
    assert check_journal(Journal.of(twice)) == []
    (violation,) = check_applied_once(Journal.of(twice), kind="thought")
    assert (violation.rule, violation.seq) == ("applied_twice", 3)
    both = check_applied_once(Journal.of([twice[0], *elsewhere]), kind="thought")
    assert [(violation.topic, violation.seq) for violation in both] == [(OTHER_TOPIC, 1)]
    assert check_applied_once(Journal.of([twice[0], twice[1], elsewhere[1]]), kind="thought") == []


class TestRetention:
    """The floor is told, never guessed from what remains."""

    retained = Journal.of(LINES[2:], floors={TOPIC: 3})

    def test_a_told_floor_is_no_loss_and_another_first_row_is(self) -> None:
        """On the floor, one above and one below."""
        assert check_journal(self.retained) == []
        for first in (1, 3):
            journal = Journal.of(LINES[first:], floors={TOPIC: 3})
            assert rules(check_journal(journal)) == {"loss"}

    def test_what_a_client_holds_below_the_floor_is_judged_by_its_chain(self) -> None:
        """The rows to compare with are gone; the chain up to the first comparable one is not."""
        assert check_history(LINES, self.retained, source="old", is_complete=True, after_seq=0) == []
        forged = changed(LINES, 2, payload_sha256=NOTHING)
        verdict = check_history(forged, self.retained, source="old", is_complete=True)
        assert [(violation.rule, violation.seq) for violation in verdict] == [("chain", 2)]

    def test_an_acknowledgement_below_the_floor_is_not_looked_for(self) -> None:
        """One below passes, one above the head does not."""
        acks = acks_of(LINES)
        assert check_acks(acks, self.retained, source="producer") == []
        beyond = changed_ack(acks, 0, seq=6)
        assert rules(check_acks(beyond, self.retained, source="producer")) == {"lost_ack"}


def test_a_violation_names_everything_that_a_search_needs() -> None:
    """Rule, source, topic, position and detail, in one line."""
    (violation,) = judge(LINES[:-1])
    assert str(violation) == f"loss: client: topic={TOPIC} seq=4: head is 5"


class TestMain:
    """Exit status 0: kept; 1: violations, each printed; 2: cannot judge."""

    def files(self, folder: Path, held: Sequence[Line] = LINES) -> list[str]:
        """Write a journal, a history and acknowledgements; return the arguments that name them."""
        journal = write_lines(folder / "journal", [*LINES, *OTHER_LINES])
        client = write_lines(folder / "history", held)
        acks = write_acks(folder / "acks", acks_of(LINES))
        return ["--journal", str(journal), "--history", str(client), "--acks", str(acks)]

    def test_kept(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The summary says what was compared."""
        options = ["--complete", "--after", "0", "--topic", TOPIC]
        assert main([*self.files(tmp_path), *options]) == 0
        assert capsys.readouterr().out == (
            "0 violations; 7 events, 2 topics, 1 histories, 1 acknowledgement files\n"
        )

    def test_violations(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Each has a line of its own."""
        arguments = self.files(tmp_path, [*LINES[:2], *LINES[3:]])
        assert main([*arguments, "--complete"]) == 1
        first, last = capsys.readouterr().out.splitlines()
        assert first.startswith("gap: ")
        assert last.startswith("1 violations; ")

    def test_a_floor_is_an_option(self, tmp_path: Path) -> None:
        """``--floor TOPIC=SEQ``; anything else is a usage error."""
        journal = str(write_lines(tmp_path / "journal", LINES[2:]))
        assert main(["--journal", journal]) == 1
        assert main(["--journal", journal, "--floor", f"{TOPIC}=3"]) == 0
        for wrong in ("3", f"{TOPIC}=three"):
            with pytest.raises(SystemExit) as raised:
                main(["--journal", journal, "--floor", wrong])
            assert raised.value.code == 2

    def test_a_cut_file_is_not_a_shorter_one(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Cut within its last line, a file cannot be judged; which line is said."""
        arguments = self.files(tmp_path)
        path = tmp_path / "history"
        path.write_bytes(path.read_bytes()[:-40])
        assert main(arguments) == 2
        assert f"{path}:5:" in capsys.readouterr().err

    def test_a_missing_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What is not there cannot be judged either."""
        assert main(["--journal", str(tmp_path / "none")]) == 2
        assert capsys.readouterr().err.startswith("cannot judge: ")
