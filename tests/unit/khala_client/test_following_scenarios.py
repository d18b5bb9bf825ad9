"""proto/fixtures/following.json: what every client core says and knows while it follows one topic."""

from __future__ import annotations

import json
import random
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from khala_client.core.advice import advise_close
from khala_client.core.cursor import After, Cursor
from khala_client.core.happenings import Output, TokenDue, TopicEnded
from khala_client.core.protocol import Identity
from khala_client.core.sync import Reconnect, SyncMachine
from khala_contracts import strict_json
from khala_contracts.gen.openagents.sync.v1 import session_pb2
from khala_contracts.topics import Lineage, Seq, TopicName

FIXTURE: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "proto" / "fixtures" / "following.json").read_text(encoding="utf-8")
)
TOPIC = TopicName(FIXTURE["topic"])
WELCOME: dict[str, object] = {
    "welcome": {
        "connection_id": "con_1",
        "protocol": 1,
        "schema": 1,
        "token_expires_at": "300000",
        "server_time": "0",
    }
}


def after_of(text: str | dict[str, str]) -> After:
    """Return where a scenario begins: one of the words, or a cursor."""
    if isinstance(text, dict):
        cursor = strict_json.fill(text, session_pb2.Cursor)
        return Cursor(TOPIC, Seq(cursor.seq), Lineage(cursor.lineage), cursor.chain)
    assert text in {"beginning", "earliest", "now"}
    return text  # type: ignore[return-value]  # one of the words, as asserted


class Follower:
    """A machine that follows one topic, and what it said and reported."""

    def __init__(self, after: After) -> None:
        self.machine = SyncMachine(Identity("dev_00000001", "0.1.0"), rng=random.Random(0))
        self.now_ms = 0
        self.said: deque[dict[str, object]] = deque()
        self.ended: str | None = None
        self.has_closed = False
        self.cursor: Cursor | None = None
        self.machine.follow(TOPIC, after)
        self.connect()

    @property
    def now_s(self) -> float:
        """The clock, whole milliseconds."""
        return self.now_ms / 1000

    def connect(self) -> None:
        """Open a connection; hello and welcome are not the scenario's business."""
        self.has_closed = False
        self.perform(self.machine.connected("token", [TOPIC], self.now_s))
        assert "hello" in self.said.popleft()
        self.receive(WELCOME)

    def receive(self, message: dict[str, object]) -> None:
        """Take one message of the node."""
        data = strict_json.fill(message, session_pb2.ServerMessage).SerializeToString()
        self.perform(self.machine.receive_untrusted(data, self.now_s))

    def perform(self, output: Output) -> None:
        """Note what the machine said and reported."""
        for data in output.send:
            said = session_pb2.ClientMessage.FromString(data)
            self.said.append(strict_json.message_to_mapping(said))
        for happening in output.happenings:
            assert not isinstance(happening, TokenDue)
            if isinstance(happening, TopicEnded):
                self.ended = happening.error.code
        self.has_closed = self.has_closed or output.close is not None
        follow = self.machine.follow_of(TOPIC)
        self.cursor = follow.cursor if follow is not None else self.cursor

    def take(self, step: dict[str, Any]) -> None:
        """Perform or check one step."""
        ((what, value),) = step.items()
        if what != "client":
            assert not self.said, f"said too much before {step}"
        match what:
            case "node":
                self.receive(value)
            case "client":
                assert self.said.popleft() == value
            case "cut":
                assert isinstance(self.machine.disconnected(value, self.now_s), Reconnect)
            case "connect":
                self.connect()
            case "wait_ms":
                self.now_ms += value
                self.perform(self.machine.tick(self.now_s))
            case "cursor":
                assert self.cursor is not None
                assert self.cursor.chain is not None
                assert {"seq": str(self.cursor.seq), "chain": self.cursor.chain.hex()} == value
            case "ended":
                assert self.ended == value
            case "closed":
                assert self.has_closed
            case _:
                pytest.fail(f"unknown step {what}")


@pytest.mark.parametrize("scenario", FIXTURE["scenarios"], ids=lambda scenario: scenario["name"])
def test_every_client_follows_the_scenarios(scenario: dict[str, Any]) -> None:
    """KH-24: exactly these messages, this cursor, this end; and nothing beside them."""
    follower = Follower(after_of(scenario["after"]))
    for step in scenario["steps"]:
        follower.take(step)
    assert not follower.said
    steps = [name for step in scenario["steps"] for name in step]
    assert (follower.ended is not None) == ("ended" in steps)
    assert follower.has_closed == ("closed" in steps)


@pytest.mark.parametrize(
    "row", FIXTURE["endings"], ids=lambda row: f"{row['close_code']}-{row['error_code']}"
)
def test_every_client_takes_the_same_next_step(row: dict[str, Any]) -> None:
    """The error names what happened; the range of the close code says whether to come back."""
    advised = advise_close(row["close_code"], error_code=row["error_code"])
    assert (advised.code, advised.step.value) == (row["code"], row["step"])
