"""The checker can fail: whatever is changed in what was kept, the verdict says so.

Mutants of the checker that these properties kill: no contiguity check of histories, no comparison with
the journal, of the end or of the beginning, no look at topics of which nothing is held, no chain of the
journal, no floor, no search for acknowledged events or their chains, no memory of keys. What they leave
(the name of a rule where two rules see the same) is killed by tests/unit/chaos/test_checker.py.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import attrs
from hypothesis import assume, given
from hypothesis import strategies as st

from chaos.checker import Journal, check_acks, check_history, check_journal, main
from chaos.transcripts import BrokenTranscriptError, Line, read_lines
from tests.unit.chaos.histories import acks_of, history, write_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOPICS = [f"run:run_0000000000000000000000000{number}:events" for number in range(4)]
FOREIGN_TOPIC = TOPICS[3]
events = st.lists(
    st.tuples(st.sampled_from(["output", "thought", "action"]), st.binary(max_size=8)), min_size=1, max_size=8
)
journals = st.lists(events, min_size=1, max_size=3).map(
    lambda topics: [history(TOPICS[index], of_topic) for index, of_topic in enumerate(topics)]
)
digests = st.binary(min_size=1, max_size=4).map(lambda seed: sha256(b"mutant " + seed).digest())


@st.composite
def interleaved(draw: st.DrawFn, topics: Sequence[Sequence[Line]]) -> list[Line]:
    """Draw one order in which a client may have applied these topics."""
    rest = [list(lines) for lines in topics]
    applied: list[Line] = []
    while any(rest):
        applied.append(draw(st.sampled_from([lines for lines in rest if lines])).pop(0))
    return applied


@st.composite
def changes_of_a_line(draw: st.DrawFn) -> Callable[[Line], Line]:
    """Draw a change of one member to something else."""
    name = draw(st.sampled_from(["topic", "seq", "kind", "schema_version", "payload_sha256", "chain"]))
    values: dict[str, st.SearchStrategy[object]] = {
        "topic": st.sampled_from(TOPICS),
        "seq": st.integers(1, 12),
        "kind": st.sampled_from(["output", "thought", "action", "custom"]),
        "schema_version": st.integers(1, 3),
        "payload_sha256": digests,
        "chain": digests,
    }
    value = draw(values[name])
    return lambda line: attrs.evolve(line, **{name: value})  # type: ignore[arg-type]


@st.composite
def mutants(draw: st.DrawFn, held: Sequence[Line]) -> list[Line]:
    """Draw the history after one mutation."""
    lines = list(held)
    index = draw(st.integers(0, len(lines) - 1))
    match draw(st.sampled_from(["drop", "repeat", "swap", "change", "invent", "cut"])):
        case "drop":
            del lines[index]
        case "repeat":
            lines.insert(draw(st.integers(index + 1, len(lines))), lines[index])
        case "swap":
            other = draw(st.integers(0, len(lines) - 1))
            # Between topics no order is promised.
            assume(lines[other].topic == lines[index].topic and other != index)
            lines[index], lines[other] = lines[other], lines[index]
        case "change":
            lines[index] = draw(changes_of_a_line())(lines[index])
        case "invent":
            seq = draw(st.integers(1, 12))
            invented = Line(draw(st.sampled_from(TOPICS)), seq, "output", 1, draw(digests), draw(digests))
            lines.insert(index, invented)
        case _:
            del lines[index:]
    return lines


def is_kept(held: Sequence[Line], journal: Journal) -> bool:
    """Return whether the verdict on a client that claims to hold everything is empty."""
    return not check_history(
        held, journal, source="client", is_complete=True, after_seq=0, topics=journal.topics
    )


@given(st.data(), journals)
def test_any_single_mutation_of_a_history_is_caught(data: st.DataObject, topics: list[list[Line]]) -> None:
    """A true history passes in every order of its topics; no other one does."""
    held = data.draw(interleaved(topics))
    journal = Journal.of(line for lines in topics for line in lines)
    assert is_kept(held, journal)
    mutant = data.draw(mutants(held))
    assume(mutant != held)
    assert not is_kept(mutant, journal)


@given(st.data(), journals)
def test_any_single_mutation_of_the_journal_is_caught(data: st.DataObject, topics: list[list[Line]]) -> None:
    """By itself, unless only its end is missing: clients and producers remember what was there."""
    truth = [line for lines in topics for line in lines]
    mutant = data.draw(mutants(truth))
    assume(mutant != truth)
    journal = Journal.of(mutant)
    whole = Journal.of(truth).topics
    is_only_shorter = all(
        lines == whole.get(name, [])[: len(lines)] for name, lines in journal.topics.items()
    )
    if is_only_shorter:
        assert not is_kept(truth, journal)
        assert check_acks(acks_of(truth), journal, source="producer")
    else:
        assert check_journal(journal)


@given(st.data(), journals)
def test_any_changed_acknowledgement_is_caught(data: st.DataObject, topics: list[list[Line]]) -> None:
    """Position and chain are looked up, keys and ids are compared with each other."""
    truth = [line for lines in topics for line in lines]
    acks = acks_of(truth)
    journal = Journal.of(truth)
    assert check_acks(acks, journal, source="producer") == []
    index = data.draw(st.integers(0, len(acks) - 1))
    name = data.draw(st.sampled_from(["key", "topic", "seq", "chain"]))
    if name == "chain":
        changed = attrs.evolve(acks[index], chain=data.draw(digests))
    elif name == "seq":
        changed = attrs.evolve(acks[index], seq=data.draw(st.integers(1, 12)))
    else:
        other = data.draw(st.sampled_from(acks))
        changed = attrs.evolve(acks[index], **{name: getattr(other, name)})
    assume(changed != acks[index])
    assert check_acks([*acks[:index], changed, *acks[index + 1 :]], journal, source="producer")


@given(st.data())
def test_one_changed_byte_in_a_file_is_caught(data: st.DataObject) -> None:
    """Exit 1 or 2, unless the file still says the same; never a crash, never a wrong 0."""
    lines = history(events=3)
    with TemporaryDirectory() as name:
        journal = write_lines(Path(name) / "journal", lines)
        path = write_lines(Path(name) / "history", lines)
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            del content[at]
        else:
            content[at] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        status = main(
            [
                "--journal",
                str(journal),
                "--history",
                str(path),
                "--complete",
                "--after=0",
                "--topic",
                TOPICS[1],
            ]
        )
        try:
            says_the_same = list(read_lines(path)) == lines
        except BrokenTranscriptError:
            assert status == 2
        else:
            assert status == (0 if says_the_same else 1)
