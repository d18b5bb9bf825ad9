"""The WebSocket's refusals and answers on real sockets: each its reason code, nothing written, nobody disturbed.

Beside every test somebody else's stream runs on: after each, the authority's tables are as before and the
neighbour's connection has gone on by +1 (tests/e2e/neighbour.py).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from khala_contracts import reason_codes
from khala_contracts.chain import chain_start
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FromStart,
    ReplayComplete,
    StaleCursor,
    StaleReason,
    Subscribe,
    Subscribed,
    SubscriptionMode,
    TopicStart,
    Unsubscribe,
    Unsubscribed,
    UnsubscribedReason,
)
from khala_contracts.gen.openagents.sync.v1 import session_pb2
from khala_contracts.json_printing import print_json
from khala_contracts.strict_json import parse_strict
from tests.e2e.hostile import BINARY_CASES, CLOSE_CODES, EARLY_CASES, JSON_CASES, Case
from tests.e2e.ledger import Ledger
from tests.e2e.neighbour import Neighbour
from tests.e2e.stage import EVENTS, Stage, set_stage
from tests.e2e.wire import (
    BEGINNING,
    BINARY,
    NOW,
    TEXT,
    Api,
    Follower,
    Wire,
    follow,
    open_api,
    open_welcomed,
    open_wire,
    read_through,
    subscribe,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from khala_contracts.codec import ServerMessage
    from tests.e2e.system import System

HELLO_TIMEOUT_S = 5.0
INBOUND_MAX_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def neighbour(system: System) -> Iterator[Neighbour]:
    """Somebody else."""
    with Neighbour.living_beside(system) as living:
        yield living


@pytest.fixture(scope="module")
def ledger(system: System) -> Iterator[Ledger]:
    """What PostgreSQL holds."""
    with Ledger.open(system) as opened:
        yield opened


@pytest.fixture(scope="module")
def stage(system: System) -> Stage:
    """Ann with a run of some events, Bob with another run, and a run that nobody has."""
    return set_stage(system)


@pytest.fixture(autouse=True)
def _nothing_written_and_nobody_disturbed(
    stage: Stage, neighbour: Neighbour, ledger: Ledger
) -> Iterator[None]:
    assert stage.topic
    assert neighbour.topic is not None
    before, seen = ledger.state(besides=neighbour.topic), neighbour.look()
    yield
    neighbour.check_undisturbed(seen)
    assert ledger.state(besides=neighbour.topic) == before


@pytest.fixture
async def api(system: System) -> AsyncIterator[Api]:
    """HTTP of the system."""
    async with open_api(system) as opened:
        yield opened


# -- the hello -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", EARLY_CASES, ids=lambda case: case.name)
async def test_before_the_welcome_there_is_one_right_message(system: System, case: Case) -> None:
    """Anything but a well-formed hello ends the connection."""
    async with open_wire(system) as wire:
        await wire.send(case.message)
        await check_ending(wire, case)


async def check_ending(wire: Wire, case: Case) -> None:
    """The connection ends with the case's error, then its close code, and nothing else is said."""
    ending = await wire.ending()
    assert ending.codes == ([case.code], CLOSE_CODES[case.code])
    [error] = ending.errors
    row = reason_codes.REGISTRY[case.code]
    assert (error.message, error.advice, error.retryable) == (row.text, row.advice, False)
    assert error.details.get("field") == case.field
    assert ending.close_reason == case.code


@pytest.mark.slow
async def test_who_says_no_hello_is_closed_after_five_seconds(system: System) -> None:
    """hello_timeout, 4007: not before the deadline, and soon after it."""
    async with open_wire(system) as wire:
        began = trio.current_time()
        ending = await wire.ending()
        assert ending.codes == (["hello_timeout"], 4007)
        assert HELLO_TIMEOUT_S - 0.2 < trio.current_time() - began < HELLO_TIMEOUT_S + 2


# -- what ends a connection ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", BINARY_CASES, ids=lambda case: case.name)
async def test_binary_refusals(system: System, stage: Stage, api: Api, case: Case) -> None:
    """Commands, noise, order and form in khala.v1: error, close, nothing else."""
    async with open_welcomed(system, api, stage.ann, stage.topic) as wire:
        await wire.send(case.message)
        await check_ending(wire, case)


@pytest.mark.parametrize("case", JSON_CASES, ids=lambda case: case.name)
async def test_json_refusals(system: System, stage: Stage, api: Api, case: Case) -> None:
    """The same in khala.v1.json, where the strict mapping names the path."""
    async with open_welcomed(system, api, stage.ann, stage.topic, subprotocol=TEXT) as wire:
        await wire.send(case.message)
        await check_ending(wire, case)


async def test_a_message_at_the_limit_and_one_byte_beyond(system: System, stage: Stage, api: Api) -> None:
    """64 KiB are read and answered; 64 KiB + 1 close with 1009 (SPEC section 6)."""
    async with open_welcomed(system, api, stage.ann, stage.topic) as wire:
        whole = padded_unsubscribe(INBOUND_MAX_BYTES)
        await wire.send(whole)
        assert (await wire.expect(ErrorMessage)).code == "topic_invalid"
        follower = await subscribe(wire, stage.topic)
        await read_through(wire, follower, stage.head.seq)
        await wire.send(padded_unsubscribe(INBOUND_MAX_BYTES + 1))
        assert (await wire.ending()).close_code == 1009


def padded_unsubscribe(size: int) -> bytes:
    """Return a well-formed message of exactly this many bytes."""
    topic = "x" * (size - 8)
    message = session_pb2.ClientMessage(unsubscribe=session_pb2.Unsubscribe(topics=[topic]))
    data = message.SerializeToString()
    assert len(data) == size
    return data


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param((0x81, b'{"renew": {"token": "\xff\xfe"}}'), 1007, id="invalid UTF-8"),
        pytest.param((0x83, b""), 1002, id="reserved opcode"),
        pytest.param((0xC1, b"{}"), 1002, id="reserved bit"),
        pytest.param((0x80, b"x"), 1002, id="continuation of nothing"),
        pytest.param((0x09, b""), 1002, id="fragmented ping"),
        pytest.param((0x89, b"x" * 126), 1002, id="long ping"),
        pytest.param((0x88, b"\x03"), 1002, id="close with half a code"),
    ],
)
async def test_broken_framing_has_the_close_code_of_the_rfc(
    system: System, stage: Stage, api: Api, frame: tuple[int, bytes], code: int
) -> None:
    """Bytes that are no frames, and text that is not UTF-8, end this connection only."""
    token = await api.mint(stage.ann, stage.topic)
    async with open_wire(system, TEXT) as wire:
        await wire.greet(token)
        await wire.stream.send_all(masked(*frame))
        assert (await wire.ending()).close_code == code


def masked(first: int, payload: bytes) -> bytes:
    """Return a client's frame with any first byte."""
    size = bytes((0x80 | len(payload),)) if len(payload) < 126 else bytes((0xFE, 0, len(payload)))
    mask = os.urandom(4)
    return bytes((first,)) + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


async def test_an_unmasked_frame_is_a_framing_error(system: System, stage: Stage, api: Api) -> None:
    """RFC 6455 section 5.1: 1002."""
    async with open_welcomed(system, api, stage.ann, stage.topic) as wire:
        await wire.stream.send_all(b"\x82\x02\x2a\x00")
        assert (await wire.ending()).close_code == 1002


async def test_twenty_denied_subscribes_end_the_connection(system: System, stage: Stage, api: Api) -> None:
    """Nineteen are answered one by one; the twentieth closes with rate_limited, 4003."""
    async with open_welcomed(system, api, stage.ann, stage.topic) as wire:
        for _ in range(19):
            await wire.send(follow(stage.foreign))
            assert (await wire.expect(ErrorMessage)).code == "forbidden"
        follower = await subscribe(wire, stage.topic)
        await read_through(wire, follower, stage.head.seq)
        await wire.send(follow(stage.foreign))
        ending = await wire.ending()
        assert ending.codes == (["forbidden", "rate_limited"], 4003)
        assert [error.topic for error in ending.errors] == [stage.foreign, ""]


async def test_too_many_messages_end_the_connection(system: System, stage: Stage, api: Api) -> None:
    """A burst of 600 is served, hello included; far more at once is rate_limited, 4003."""
    # The hello and the subscribe are messages too.
    beats = encode_beats(598)
    async with open_welcomed(system, api, stage.ann, stage.topic) as wire:
        await wire.stream.send_all(beats)
        follower = await subscribe(wire, stage.topic, NOW)
        assert follower.subscribed.mode is SubscriptionMode.LIVE
        await wire.stream.send_all(encode_beats(2_000))
        ending_codes = None
        while ending_codes is None:
            message = await wire.receive()
            if isinstance(message, ErrorMessage):
                ending_codes = message.code
        assert ending_codes == "rate_limited"
        assert (await wire.ending()).close_code == 4003


def encode_beats(count: int) -> bytes:
    """Return so many heartbeats as frames."""
    return masked(0x82, b"\x2a\x00") * count


# -- what is answered per topic ----------------------------------------------------------------------


async def answer_to(wire: Wire, topic: str, start: CursorStart | FromStart = BEGINNING) -> ServerMessage:
    """Subscribe to one topic and return the one answer."""
    await wire.send(follow(topic, start=start))
    return await wire.receive()


@pytest.mark.parametrize("subprotocol", [BINARY, TEXT])
async def test_unknown_and_foreign_look_the_same(
    system: System, stage: Stage, api: Api, subprotocol: str
) -> None:
    """forbidden, equal but for the topic, byte for byte; the connection's own topic goes on."""
    async with open_welcomed(system, api, stage.ann, stage.topic, subprotocol=subprotocol) as wire:
        follower = await subscribe(wire, stage.topic)
        await read_through(wire, follower, stage.head.seq)
        starts = (BEGINNING, NOW, CursorStart(3, stage.head.lineage))
        for start in starts:
            said: list[object] = []
            for topic in (stage.foreign, stage.unknown):
                answer = await answer_to(wire, topic, start)
                assert isinstance(answer, ErrorMessage)
                assert (answer.code, answer.topic, answer.retryable) == ("forbidden", topic, False)
                raw = wire.raw[-1]
                said.append(
                    raw.replace(topic, "T") if isinstance(raw, str) else raw.replace(topic.encode(), b"T")
                )
            assert said[0] == said[1]
        again = await answer_to(wire, stage.topic)
        assert isinstance(again, Subscribed)


@pytest.mark.parametrize(
    "topic",
    [
        "", "run", "run::events", "run:*:events", "run:run_1:events", "RUN:{id}:events", "run:{id}:events ",
        "run:{id}:events:x", "run:{id}:event", "run:{id}.events", " run:{id}:events", "run:{id}:events\x00",
        "run:{ID}:events", "\uff52un:{id}:events", "user:{id}:runs", "app:{org}:UPPER", "x" * 300,
    ],
)  # fmt: skip
async def test_what_is_no_topic_is_not_guessed_at(system: System, stage: Stage, api: Api, topic: str) -> None:
    """topic_invalid per topic; the connection stays."""
    run_id = stage.topic.split(":")[1]
    name = topic.replace("{id}", run_id).replace("{ID}", run_id.upper()).replace("{org}", stage.ann.org_id)
    async with open_welcomed(system, api, stage.ann, stage.topic) as wire:
        answer = await answer_to(wire, name)
        assert isinstance(answer, ErrorMessage)
        assert answer.code == "topic_invalid"
        assert answer.topic == name[:200]
        assert isinstance(await answer_to(wire, stage.topic), Subscribed)


async def test_a_cursor_of_another_history_is_stale_with_the_observation(
    system: System, stage: Stage, api: Api
) -> None:
    """Another lineage, a seq ahead of the head, another chain at the seq: lineage_mismatch, and the connection stays."""
    head, third = stage.head, stage.positions[2]
    other = f"lin_{7:026d}"
    wrong_chain = bytes(32)
    cases = {
        "another lineage": CursorStart(3, other),
        "another lineage at 0": CursorStart(0, other),
        "another lineage, right chain": CursorStart(3, other, third.chain),
        "ahead by one": CursorStart(head.seq + 1, head.lineage),
        "ahead by all": CursorStart(2**63 - 1, head.lineage),
        "ahead, another lineage": CursorStart(head.seq + 1, other),
        "wrong chain inside": CursorStart(3, head.lineage, wrong_chain),
        "wrong chain at the head": CursorStart(head.seq, head.lineage, wrong_chain),
        "wrong chain at 0": CursorStart(0, head.lineage, wrong_chain),
        "chain of the neighbouring seq": CursorStart(3, head.lineage, stage.positions[1].chain),
    }
    expected = StaleCursor(
        topic=stage.topic,
        reason=StaleReason.LINEAGE_MISMATCH,
        lineage=head.lineage,
        head_seq=head.seq,
        floor_seq=1,
        floor_chain=chain_start(stage.topic),
    )
    for subprotocol in (BINARY, TEXT):
        async with open_welcomed(system, api, stage.ann, stage.topic, subprotocol=subprotocol) as wire:
            for name, cursor in cases.items():
                assert await answer_to(wire, stage.topic, cursor) == expected, name
            for position in (stage.positions[0], third, head):
                follower = await subscribe(wire, stage.topic, position.start)
                await read_through(wire, follower, head.seq)
                assert follower.chain == head.chain


async def test_a_stale_answer_ends_a_running_subscription(system: System, stage: Stage, api: Api) -> None:
    """Resubscribing with a cursor of another history is answered once, and nothing of the topic follows."""
    async with open_welcomed(system, api, stage.ann, stage.topic) as wire:
        follower = await subscribe(wire, stage.topic)
        await read_through(wire, follower, stage.head.seq)
        assert isinstance(
            await answer_to(wire, stage.topic, CursorStart(99, stage.head.lineage)), StaleCursor
        )
        follower = await subscribe(wire, stage.topic, stage.head.start)
        assert follower.position == stage.head.seq


async def test_every_topic_of_a_subscribe_has_one_answer(system: System, stage: Stage, api: Api) -> None:
    """64 in one message are taken: served, stale, forbidden and invalid ones each get theirs."""
    names = [f"app:{stage.ann.org_id}:t{number}" for number in range(58)]
    async with open_welcomed(system, api, stage.ann, stage.topic, *names) as wire:
        starts = [TopicStart(name, NOW) for name in names]
        starts += [
            TopicStart(stage.topic, CursorStart(99, stage.head.lineage)),
            TopicStart(stage.foreign, NOW),
            TopicStart(stage.unknown, NOW),
            TopicStart("run", NOW),
            TopicStart(f"app:{stage.bob.org_id}:t", NOW),
            TopicStart(f"user:{stage.ann.user_id}:runs", NOW),
        ]
        assert len(starts) == 64
        await wire.send(Subscribe(tuple(starts)))
        answers: dict[str, list[str]] = {}
        while len(answers) < 64:
            message = await wire.receive()
            assert isinstance(message, (Subscribed, StaleCursor, ErrorMessage, ReplayComplete)), message
            kind = message.code if isinstance(message, ErrorMessage) else type(message).__name__
            answers.setdefault(message.topic, []).append(kind)
        assert {tuple(answers[name]) for name in names} <= {("Subscribed", "ReplayComplete"), ("Subscribed",)}
        assert answers[stage.topic] == ["StaleCursor"]
        assert answers["run"] == ["topic_invalid"]
        refused = (stage.foreign, stage.unknown, starts[62].topic, starts[63].topic)
        assert [answers[topic] for topic in refused] == [["forbidden"]] * 4


async def test_256_subscriptions_and_one_more(system: System, stage: Stage, api: Api) -> None:
    """The 257th is limit_exceeded for its topic alone; after leaving one there is room again."""
    names = [f"app:{stage.ann.org_id}:s{number}" for number in range(256)]
    async with open_welcomed(system, api, stage.ann, *names) as wire:
        for first in range(0, 256, 64):
            await wire.send(follow(*names[first : first + 64], start=NOW))
            for _ in range(64):
                await wire.answer(Subscribed)
        refused = await wire.ask(follow(stage.topic), ErrorMessage)
        assert (refused.code, refused.topic) == ("limit_exceeded", stage.topic)
        # Again one that is there already: it needs no place.
        assert (await wire.ask(follow(names[0], start=NOW), Subscribed)).topic == names[0]
        left = await wire.ask(Unsubscribe((names[0],)), Unsubscribed)
        assert left.reason is UnsubscribedReason.ASKED
        assert (await wire.ask(follow(names[0], start=NOW), Subscribed)).topic == names[0]


# -- both subprotocols ---------------------------------------------------------------------------------


async def test_both_subprotocols_carry_the_same_history(system: System, stage: Stage, api: Api) -> None:
    """Equal frames, equal chains; JSON control messages are the strict mapping, 64-bit numbers as text."""
    followers: list[Follower] = []
    transcripts: list[list[bytes | str]] = []
    for subprotocol in (BINARY, TEXT):
        async with open_welcomed(system, api, stage.ann, stage.topic, subprotocol=subprotocol) as wire:
            follower = await subscribe(wire, stage.topic)
            await read_through(wire, follower, stage.head.seq)
            await answer_to(wire, stage.topic, CursorStart(99, stage.head.lineage))
            await answer_to(wire, stage.foreign)
            await wire.ask(Unsubscribe((stage.topic,)), Unsubscribed)
            followers.append(follower)
            transcripts.append(wire.raw)
    binary, text = followers
    assert binary.frames == text.frames
    assert [frame.kind for frame in text.frames] == ["run.started", *["thought"] * (EVENTS - 1)]
    assert binary.chain == text.chain == stage.head.chain
    assert binary.completed == text.completed
    assert binary.subscribed == text.subscribed
    members = set()
    for raw in transcripts[1]:
        assert isinstance(raw, str)
        document: dict[str, Any] = json.loads(raw)
        [member] = document
        members.add(member)
        printed = json.loads(print_json(parse_strict(raw, session_pb2.ServerMessage)))
        assert document == {name: value for name, value in printed.items() if name in document}
        numbers = (
            "seq",
            "head_seq",
            "floor_seq",
            "through_seq",
            "start_seq",
            "token_expires_at",
            "server_time",
        )
        found = [value for name, value in leaves(document) if name in numbers]
        assert all(isinstance(value, str) and value.isdecimal() for value in found), document
    assert members >= {
        "welcome",
        "subscribed",
        "frames",
        "replay_complete",
        "stale_cursor",
        "error",
        "unsubscribed",
    }


def leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield the named leaves of a JSON document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, name)
    else:
        yield name, value
