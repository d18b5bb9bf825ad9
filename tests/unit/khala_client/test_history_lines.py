from __future__ import annotations

import io
import json
from base64 import b64encode
from hashlib import sha256
from typing import Any

import pytest

from khala_client.core.history_lines import (
    HistoryLine,
    HistoryVerifier,
    StatedPosition,
    parse_line_untrusted,
    verify_lines,
)
from khala_client.core.verify import Broken, Verified
from khala_client.events import Event
from khala_client.history import format_history_line, format_history_lines
from khala_client.history_export import HistoryExport
from khala_contracts.erasure import Erased, encode_erased
from khala_contracts.frames import ERASED_KIND, Frame
from tests.unit.khala_client.node_model import LogModel, topic_number

TOPIC = topic_number(1)
OTHER_HASH = "ab" * 32


def log_of(count: int) -> LogModel:
    """A history of so many frames."""
    log = LogModel(TOPIC)
    log.append(count)
    return log


def events_of(log: LogModel, *, after_seq: int = 0) -> list[Event]:
    """Its events."""
    return [Event.from_frame(frame, chain=log.chains[frame.seq]) for frame in log.frames[after_seq:]]


def plain(log: LogModel) -> list[str]:
    """Its lines, as a follower's history has them."""
    return list(format_history_lines(events_of(log)))


def exported(log: LogModel, *, after_seq: int = 0) -> list[str]:
    """Its lines, as an export has them."""
    file = io.StringIO()
    export = HistoryExport(file, chain_before=log.chains[after_seq])
    for event in events_of(log, after_seq=after_seq):
        export.add(event)
    export.finish()
    return file.getvalue().splitlines()


def tailed(log: LogModel) -> list[str]:
    """Its lines, as `khala tail --json` prints them."""
    lines = [
        json.dumps({"type": "event", **json.loads(format_history_line(event)), "data": dict(event.data)})
        for event in events_of(log)
    ]
    head = log.head_seq
    live = {"type": "live", "topic": TOPIC, "seq": str(head), "chain": log.chains[head].hex()}
    end = {"type": "end", "topic": TOPIC, "through_seq": str(head), "chain": log.chains[head].hex()}
    return [*lines, json.dumps(live), json.dumps(end)]


def verify(lines: list[str]) -> Verified | Broken:
    """Judge lines."""
    return verify_lines(HistoryVerifier(TOPIC), lines)


def changed(line: str, **members: object) -> str:
    """Return a line with other members."""
    return json.dumps({**json.loads(line), **members})


FORMS = {"plain": plain, "export": exported, "tail": tailed}


# -- what holds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_history_holds(form: str) -> None:
    """From its lines alone: no server, no key, no payload."""
    log = log_of(5)
    assert verify(FORMS[form](log)) == Verified(seq=5, chain=log.chains[5], frames=5, erased_frames=0)


def test_whether_the_end_is_known() -> None:
    """An export and a finished tail say where they end; a plain history and a killed tail do not."""
    log = log_of(3)
    for lines, is_known in (
        (exported(log), True),
        (tailed(log), True),
        (plain(log), False),
        (tailed(log)[:-1], False),
    ):
        verifier = HistoryVerifier(TOPIC)
        assert isinstance(verify_lines(verifier, lines), Verified)
        assert verifier.is_end_known is is_known


def test_a_resumed_tail_is_one_history() -> None:
    """Two tails that wrote to the same file, the second going on from its store."""
    log = log_of(3)
    first = tailed(log)
    log.append(2)
    second = [line for line in tailed(log) if json.loads(line).get("seq", "9") > "3"]
    assert isinstance(verify(first + second), Verified)


def test_a_part_holds_from_the_link_it_states() -> None:
    """An export that begins above 1 continues the stated chain; the first line is proven too."""
    log = log_of(6)
    lines = exported(log, after_seq=3)
    assert verify(lines) == Verified(seq=6, chain=log.chains[6], frames=3, erased_frames=0)
    tampered = [changed(lines[0], schema_version=7), *lines[1:]]
    assert verify(tampered) == Broken(4, "its chain does not follow from its contents")


def test_a_plain_part_is_proven_from_its_second_line_on() -> None:
    """Nobody has said what comes before the first line; it is the link for the others."""
    log = log_of(6)
    verifier = HistoryVerifier(TOPIC)
    assert isinstance(verify_lines(verifier, plain(log)[2:]), Verified)
    assert verifier.first_seq == 3


def test_erased_events_stay_proven_and_are_counted() -> None:
    """SPEC section 1.9: n of m erased."""
    log = log_of(3)
    erased = Erased("thought", sha256(log.frames[1].payload).digest(), 1, "asked for")
    log.frames[1] = Frame(TOPIC, 2, ERASED_KIND, encode_erased(erased), 1)
    for form in FORMS.values():
        result = verify(form(log))
        assert isinstance(result, Verified)
        assert (result.frames, result.erased_frames) == (3, 1)


def test_unknown_kinds_are_proven_by_their_bytes() -> None:
    """A kind of the future shows its payload in base64, which has the hash."""
    log = LogModel(TOPIC)
    log.append(1, payload=b"\xff\x00")
    event = Event(TOPIC, 1, "thought", b"\xff\x00", 1, log.chains[1])
    line = changed(format_history_line(event), data={"payload_base64": b64encode(b"\xff\x00").decode()})
    assert isinstance(verify([line]), Verified)
    other = changed(line, data={"payload_base64": b64encode(b"\xff\x01").decode()})
    assert isinstance(verify([other]), Broken)


# -- what does not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "member",
    [{"kind": "action"}, {"schema_version": 2}, {"payload_sha256": OTHER_HASH}, {"chain": OTHER_HASH}],
)
def test_a_tampered_line_is_named(form: str, member: dict[str, Any]) -> None:
    """Each member that enters the chain, and the chain itself."""
    lines = FORMS[form](log_of(5))
    lines[2] = changed(lines[2], **member)
    assert verify(lines) == Broken(3, "its chain does not follow from its contents")


def test_tampered_contents_are_named() -> None:
    """What is shown beside the hash, and does not enter the chain by itself, must have that hash."""
    for form, member in ((tailed, {"data": {"text": "another"}}), (exported, {"payload_base64": "AAAA"})):
        lines = form(log_of(5))
        lines[3] = changed(lines[3], **member)
        result = verify(lines)
        assert isinstance(result, Broken)
        assert (result.seq, result.reason[:13]) == (4, "what it shows")


@pytest.mark.parametrize("form", FORMS)
def test_a_missing_line_is_named(form: str) -> None:
    """In the middle it is the first that is not there."""
    lines = FORMS[form](log_of(5))
    del lines[2]
    assert verify(lines) == Broken(3, "missing: seq 4 comes instead")


@pytest.mark.parametrize("form", FORMS)
def test_moved_lines_are_named(form: str) -> None:
    """Two that changed places: the first that is not where it belongs."""
    lines = FORMS[form](log_of(5))
    lines[1], lines[2] = lines[2], lines[1]
    assert verify(lines) == Broken(2, "missing: seq 3 comes instead")


@pytest.mark.parametrize("form", FORMS)
def test_a_repeated_line_is_named(form: str) -> None:
    """Also right after itself."""
    lines = FORMS[form](log_of(5))
    lines.insert(3, lines[2])
    assert verify(lines) == Broken(3, "comes again, after seq 3")


@pytest.mark.parametrize("form", FORMS)
def test_a_line_that_was_cut_is_named(form: str) -> None:
    """Half a line counts as no line, not as a shorter one."""
    lines = FORMS[form](log_of(5))
    lines[4] = lines[4][:40]
    result = verify(lines[:5])
    assert isinstance(result, Broken)
    assert (result.seq, result.reason.startswith("line 5 is no line of a history")) == (5, True)


def test_a_missing_tail_is_named_where_the_end_is_stated() -> None:
    """The last lines of an export; the last events before a tail's end."""
    assert verify(exported(log_of(5))[:3]) == Broken(4, "missing: the export ends without its last line")
    lines = tailed(log_of(5))
    assert verify(lines[:3] + lines[5:]) == Broken(4, "the history was said to stand at seq 5, not 3")
    follows = [*exported(log_of(3)), exported(log_of(4))[3]]
    assert verify(follows) == Broken(4, "follows where the history was said to end")


def test_another_history_of_the_same_length_is_named() -> None:
    """The lines follow from each other, and not to what the node said at the end."""
    lines = tailed(log_of(3))
    other = LogModel(TOPIC)
    other.append(3, payload=b"\x0a\x01y")
    assert verify(lines[:3] + tailed(other)[3:]) == Broken(
        3, "another chain than the one that was stated there"
    )


def test_foreign_lines_and_nothing_at_all() -> None:
    """Another topic's line is none of this one; an empty file proves nothing."""
    foreign = LogModel(topic_number(2))
    foreign.append(2)
    assert verify(plain(foreign)) == Broken(1, f"belongs to {topic_number(2)}")
    assert verify([]) == Broken(1, "there is nothing of this topic")


# -- lines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "nonsense",
        '{"type": "event"}',
        '{"topic": "t", "topic": "t"}',
        '{"topic":"t","seq":"0","kind":"k","schema_version":1,"payload_sha256":"'
        + OTHER_HASH
        + '","chain":"'
        + OTHER_HASH
        + '"}',
        '{"topic":"t","seq":"1","kind":"k","schema_version":1,"payload_sha256":"00","chain":"'
        + OTHER_HASH
        + '"}',
        '{"topic":"t","seq":"1","kind":"","schema_version":1,"payload_sha256":"'
        + OTHER_HASH
        + '","chain":"'
        + OTHER_HASH
        + '"}',
        '{"topic":"t","seq":"1","kind":"k","schema_version":1,"payload_sha256":"'
        + OTHER_HASH
        + '","chain":"'
        + OTHER_HASH
        + '","payload_base64":"?"}',
        '{"type":"live","topic":"t","seq":"x","chain":"' + OTHER_HASH + '"}',
    ],
)
def test_what_is_no_line(text: str) -> None:
    """Refused with a reason, never guessed at."""
    with pytest.raises(ValueError, match=r"\w"):
        parse_line_untrusted(text)


def test_lines_of_other_things_are_passed_over() -> None:
    """A tail that ended before anything came, and what a later version may print."""
    nothing = '{"type":"end","topic":"t","through_seq":"0","chain":""}'
    unknown = '{"type":"end","topic":"t","through_seq":"4","chain":""}'
    later = '{"type":"something_new"}'
    assert [parse_line_untrusted(text) for text in (nothing, unknown, later)] == [None, None, None]
    live = parse_line_untrusted(json.dumps({"type": "live", "topic": "t", "seq": "4", "chain": OTHER_HASH}))
    assert live == StatedPosition("t", 4, bytes.fromhex(OTHER_HASH), is_end=False)
    event = parse_line_untrusted(plain(log_of(1))[0])
    assert isinstance(event, HistoryLine)
    assert event.seq == 1


def test_a_statement_before_the_first_event_is_about_what_is_not_here() -> None:
    """A follower from `now` is live before it has anything."""
    log = log_of(5)
    live = json.dumps({"type": "live", "topic": TOPIC, "seq": "3", "chain": log.chains[3].hex()})
    assert isinstance(verify([live, *plain(log)[3:]]), Verified)
