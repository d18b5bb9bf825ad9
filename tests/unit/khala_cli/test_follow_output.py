"""Unit tests of khala.cli.follow_output."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from khala.cli.follow_output import FollowEnd, FollowOutput, Verification, event_record
from khala.cli.terminal import Terminal
from khala_client.errors import KhalaError
from khala_client.events import Event
from khala_client.notices import (
    Connected,
    Disconnected,
    GapSeen,
    HistoryRead,
    Lagged,
    Live,
    Notice,
    Released,
    Retrying,
)
from khala_contracts.chain import chain_start
from khala_contracts.erasure import Erased, encode_erased
from khala_contracts.kinds import encode_payload
from khala_contracts.topics import TopicName

TOPIC = TopicName("run:run_01fwhe4yddfk4scvajq9ww84cz:events")
CHAIN = chain_start(TOPIC)


def thought(seq: int, text: str) -> Event:
    """Return an event as a follower gets it."""
    return Event(TOPIC, seq, "thought", encode_payload("run_events", "thought", {"text": text}), 1, CHAIN)


def make_terminal(*, is_json: bool, is_terminal: bool) -> Terminal:
    """Return a terminal whose both ends are in memory."""

    def console() -> Console:
        return Console(
            file=io.StringIO(),
            force_terminal=is_terminal,
            width=80,
            markup=False,
            emoji=False,
            highlight=False,
        )

    return Terminal(console(), console(), is_json)


def text_of(console: Console) -> str:
    """Return what was printed."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_script_gets_one_object_an_event_with_its_place_in_the_chain() -> None:
    """What a checker needs is there: position as a string, kind, version, payload hash, chain, and data."""
    terminal = make_terminal(is_json=True, is_terminal=False)
    FollowOutput(terminal, is_verifying=False, is_full=False).event(thought(7, "hm"))
    record = json.loads(text_of(terminal.out))
    assert (record["type"], record["topic"], record["seq"], record["kind"]) == (
        "event",
        TOPIC,
        "7",
        "thought",
    )
    assert (record["schema_version"], record["chain"]) == (1, CHAIN.hex())
    assert len(record["payload_sha256"]) == 64
    assert record["data"]["text"] == "hm"


def test_an_erased_event_keeps_the_hash_that_entered_the_chain() -> None:
    """The chain can be computed again from the lines of a history with erased events."""
    payload = encode_erased(Erased("thought", b"\x01" * 32, 1, "secret"))
    record = event_record(Event(TOPIC, 1, "khala.erased", payload, 1, CHAIN))
    assert (record["kind"], record["payload_sha256"], record["erased"]) == ("thought", "01" * 32, True)


def test_a_file_gets_plain_lines_and_a_terminal_coloured_ones() -> None:
    """Nobody has to strip escape sequences from a file."""
    plain = make_terminal(is_json=False, is_terminal=False)
    FollowOutput(plain, is_verifying=False, is_full=False).event(thought(1, "hm"))
    assert text_of(plain.out) == "     1  thought        hm\n"
    decorated = make_terminal(is_json=False, is_terminal=True)
    FollowOutput(decorated, is_verifying=False, is_full=False).event(thought(1, "hm"))
    assert "\x1b[" in text_of(decorated.out)
    assert "hm" in text_of(decorated.out)


def test_full_shows_what_is_shortened_otherwise() -> None:
    """The option reaches the lines."""
    long = thought(1, "\n".join(str(number) for number in range(50)))
    for is_full in (False, True):
        terminal = make_terminal(is_json=False, is_terminal=True)
        FollowOutput(terminal, is_verifying=False, is_full=is_full).event(long)
        assert ("49" in text_of(terminal.out)) is is_full


@pytest.mark.parametrize(
    ("notice", "said"),
    [
        (Connected("con_1", "nod_1"), ""),
        (Disconnected("draining", 0.25), "disconnected (draining), again in 250 ms"),
        (Disconnected("draining", 0.0), "disconnected (draining), again now"),
        (Lagged(TOPIC, 5, 1_000), "lagging: at 5 of 1,000"),
        (GapSeen(TOPIC, 5, 7), "gap on the wire at 5"),
        (Released(TOPIC, 0.2), "released as too slow; resuming in 200 ms"),
        (Retrying(TOPIC, "unavailable", 1.0), "refused for now (unavailable), again in 1 s"),
        (HistoryRead(TOPIC, 2_000, 30_000), "beyond what is replayed: reading history, 30,000 events"),
    ],
)
def test_news_of_the_stream_go_to_standard_error(notice: Notice, said: str) -> None:
    """They are no part of the data."""
    terminal = make_terminal(is_json=False, is_terminal=False)
    FollowOutput(terminal, is_verifying=False, is_full=False).notice(notice)
    assert said in text_of(terminal.err)
    assert bool(text_of(terminal.err)) is bool(said)
    assert text_of(terminal.out) == ""


def test_a_reconnection_is_said_only_after_a_disconnection() -> None:
    """The first connection is what everybody expects."""
    terminal = make_terminal(is_json=False, is_terminal=False)
    output = FollowOutput(terminal, is_verifying=False, is_full=False)
    output.notice(Disconnected("unavailable", 1.0))
    output.notice(Connected("con_1", "nod_1"))
    output.notice(Connected("con_2", "nod_1"))
    assert text_of(terminal.err).count("connected again") == 1


def test_live_says_verified_only_if_something_was() -> None:
    """Following from the head verifies nothing yet."""
    terminal = make_terminal(is_json=False, is_terminal=False)
    output = FollowOutput(terminal, is_verifying=True, is_full=False)
    output.notice(Live(TOPIC, 3, CHAIN))
    assert "verified" not in text_of(terminal.err)
    output.event(thought(4, "x"))
    output.notice(Live(TOPIC, 4, CHAIN))
    assert "chain verified through 4" in text_of(terminal.err)


@pytest.mark.parametrize(
    ("verification", "exit_status", "in_json", "said"),
    [
        ("not_asked", 0, None, ""),
        ("verified", 0, True, "✓ chain verified"),
        ("differs", 1, False, "✗ the chain differs"),
        ("unknown", 1, None, "could not be compared"),
    ],
)
def test_the_end_says_whether_the_history_is_the_right_one(
    verification: Verification, exit_status: int, in_json: bool | None, said: str
) -> None:
    """Asked for and not shown to be right is a failure."""
    end = FollowEnd(TOPIC, "finished", 4, 4, CHAIN, verification)
    assert end.exit_status == exit_status
    terminal = make_terminal(is_json=False, is_terminal=False)
    FollowOutput(terminal, is_verifying=True, is_full=False).end(end)
    assert said in text_of(terminal.err)
    assert "4 events, through 4" in text_of(terminal.err)
    terminal = make_terminal(is_json=True, is_terminal=False)
    FollowOutput(terminal, is_verifying=True, is_full=False).end(end)
    assert json.loads(text_of(terminal.out))["verified"] is in_json


def test_a_refused_end_carries_code_and_advice() -> None:
    """A script can act on them."""
    end = FollowEnd(TOPIC, "refused", 0, 0, error=KhalaError("forbidden"))
    terminal = make_terminal(is_json=True, is_terminal=False)
    FollowOutput(terminal, is_verifying=False, is_full=False).end(end)
    record = json.loads(text_of(terminal.out))
    assert (record["reason"], record["code"], record["advice"]) == ("refused", "forbidden", "give_up")
    assert end.exit_status == 1
