"""What nobody should send to a node, as data: name, bytes or text, and the one answer that it gets.

Every case is sent on a connection that was welcomed; each ends that connection with an error that says
why, then the close code.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, cast

import attrs

from khala_contracts.codec import (
    ClientHeartbeat,
    CursorStart,
    FromStart,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    Unsubscribe,
    encode_client_message,
    encode_varint,
)
from khala_contracts.gen.openagents.sync.v1 import session_pb2
from tests.contract.fixture_files import load, rows
from tests.e2e.wire import hello

if TYPE_CHECKING:
    from collections.abc import Iterator

    from khala_contracts.codec import ClientMessage

# A run that nobody has; form is judged before existence.
TOPIC: Final = f"run:run_{1:026d}:events"
LINEAGE: Final = f"lin_{1:026d}"
WRITE: Final = "authority_write_forbidden"
MALFORMED: Final = "malformed_message"
PROTOCOL: Final = "protocol_error"
LIMIT: Final = "limit_exceeded"
CLOSE_CODES: Final = {WRITE: 4500, MALFORMED: 4500, PROTOCOL: 4500, LIMIT: 4505}
_LEN: Final = 2


@attrs.frozen
class Case:
    """One message and its answer; ``field`` is what the error's details name, None if nothing."""

    name: str
    message: bytes | str | ClientMessage
    code: str
    field: str | None = None


def _member(number: int, body: bytes) -> bytes:
    return encode_varint(number << 3 | _LEN) + encode_varint(len(body)) + body


def _subscribe(**cursor: object) -> bytes:
    start = session_pb2.TopicSubscription(topic=TOPIC, cursor=session_pb2.Cursor(**cursor))  # type: ignore[arg-type]
    return session_pb2.ClientMessage(subscribe=session_pb2.Subscribe(topics=[start])).SerializeToString()


def _subscribe_json(**cursor: object) -> str:
    return json.dumps({"subscribe": {"topics": [{"topic": TOPIC, "cursor": cursor}]}})


def _commands() -> Iterator[tuple[str, dict[str, object], bytes]]:
    """Yield every command of the golden bodies: what the live services take over HTTP."""
    for fixture in ("runtime-orchestration-v1.json", "control-auth-session-v1.json"):
        for row in rows(load(fixture), "bodies"):
            message = row["message"].rpartition(".")[2]
            # Without a field it is nobody's command: the empty message.
            is_command = message.endswith("Request") or message == "EventInput"
            if is_command and row["binary_hex"]:
                body = cast("dict[str, object]", row["body"])
                yield f"{message} ({row['name']})", body, bytes.fromhex(row["binary_hex"])


COMMANDS: Final = tuple(_commands())
# The first number above the oneof's members, around one and two bytes of tag, and the last there is.
_UNKNOWN_MEMBERS: Final = (6, 15, 16, 2047, 2048, 536_870_911)
_HEARTBEAT: Final = encode_client_message(ClientHeartbeat())
_NOW: Final = FromStart(SubscribeFrom.NOW)
_CURSOR: Final = "subscribe.topics[0].cursor"

BINARY_CASES: Final = (
    *(Case(f"command {name}", data, WRITE) for name, _, data in COMMANDS),
    *(Case(f"command member {name}", _member(20, data), WRITE) for name, _, data in COMMANDS),
    *(Case(f"unknown member {number}", _member(number, b"x"), WRITE) for number in _UNKNOWN_MEMBERS),
    Case("command beside a heartbeat", _HEARTBEAT + _member(20, COMMANDS[0][2]), WRITE),
    Case("nothing", b"", MALFORMED),
    Case("noise", b"\xff\xfe\xfd", MALFORMED),
    Case("group", b"\x0b", MALFORMED),
    Case("field number 0", b"\x02\x00", MALFORMED),
    Case("cut off", encode_client_message(Subscribe((TopicStart(TOPIC, _NOW),)))[:-3], MALFORMED),
    Case("length beyond the end", b"\x12\xff\xff\xff\xff\x0f", MALFORMED),
    Case("bad UTF-8 in a topic", b"\x12\x06\x0a\x04\x0a\x02\xff\xff", MALFORMED),
    Case("JSON in a binary message", b'{"heartbeat":{}}', MALFORMED),
    Case("text", '{"heartbeat":{}}', MALFORMED),
    Case("second hello", hello("t"), PROTOCOL),
    Case("negative seq", _subscribe(seq=-1, lineage=LINEAGE), MALFORMED, f"{_CURSOR}.seq"),
    Case("seq without lineage", _subscribe(seq=1), MALFORMED, f"{_CURSOR}.lineage"),
    Case("over-long lineage", _subscribe(seq=1, lineage="l" * 65), MALFORMED, f"{_CURSOR}.lineage"),
    Case("short chain", _subscribe(seq=1, lineage=LINEAGE, chain=b"c" * 31), MALFORMED, f"{_CURSOR}.chain"),
    Case("long chain", _subscribe(seq=1, lineage=LINEAGE, chain=b"c" * 33), MALFORMED, f"{_CURSOR}.chain"),
    Case("no start", b"\x12\x05\x0a\x03\x0a\x01x", MALFORMED, _CURSOR),
    Case("unspecified start", b"\x12\x07\x0a\x05\x0a\x01x\x18\x00", MALFORMED, "subscribe.topics[0].from"),
    Case("unknown start", b"\x12\x07\x0a\x05\x0a\x01x\x18\x63", MALFORMED, "subscribe.topics[0].from"),
    Case("empty renewal", b"\x22\x00", MALFORMED, "renew.token"),
    Case("no topic", Subscribe(()), LIMIT),
    Case("65 topics", Subscribe(tuple(TopicStart(TOPIC, _NOW) for _ in range(65))), LIMIT),
    Case("65 topics to leave", Unsubscribe((TOPIC,) * 65), LIMIT),
)

_START: Final = f'"topic": "{TOPIC}", "from": "SUBSCRIBE_FROM_NOW"'

JSON_CASES: Final = (
    *(Case(f"command {name}", json.dumps(body), WRITE) for name, body, _ in COMMANDS),
    *(Case(f"command member {name}", json.dumps({"command": body}), WRITE) for name, body, _ in COMMANDS),
    Case("command beside a heartbeat", '{"heartbeat": {}, "create_run": {}}', WRITE),
    Case("nothing", "", MALFORMED),
    Case("no member", "{}", MALFORMED),
    Case("array", "[]", MALFORMED),
    Case("cut off", '{"heartbeat": {}', MALFORMED),
    Case("trailing data", '{"heartbeat": {}} {}', MALFORMED),
    Case("two members", '{"heartbeat": {}, "renew": {"token": "t"}}', MALFORMED, "renew"),
    Case("given twice", '{"renew": {"token": "t", "token": "u"}}', MALFORMED, "renew.token"),
    Case("null", '{"renew": {"token": null}}', MALFORMED, "renew.token"),
    Case("wrong type", '{"renew": {"token": 7}}', MALFORMED, "renew.token"),
    Case("unknown field", '{"renew": {"tokne": "t"}}', MALFORMED, "renew.tokne"),
    Case("unpaired surrogate", '{"renew": {"token": "\\ud800"}}', MALFORMED, "renew.token"),
    Case("NaN", _subscribe_json(seq=float("nan")), MALFORMED),
    Case("fraction", _subscribe_json(seq=1.5), MALFORMED, f"{_CURSOR}.seq"),
    Case("true for a number", _subscribe_json(seq=True), MALFORMED, f"{_CURSOR}.seq"),
    Case("2^63", _subscribe_json(seq=str(2**63), lineage=LINEAGE), MALFORMED, f"{_CURSOR}.seq"),
    Case("negative seq", _subscribe_json(seq="-1", lineage=LINEAGE), MALFORMED, f"{_CURSOR}.seq"),
    Case("seq without lineage", _subscribe_json(seq="1"), MALFORMED, f"{_CURSOR}.lineage"),
    Case("no base64", _subscribe_json(seq="1", lineage=LINEAGE, chain="*"), MALFORMED, f"{_CURSOR}.chain"),
    Case("both spellings", f'{{"subscribe": {{"topics": [{{{_START}, "from_": 1}}]}}}}', MALFORMED,
         "subscribe.topics[0].from_"),
    Case("unknown start", _subscribe_json().replace('"cursor": {}', '"from": "LATER"'), MALFORMED,
         "subscribe.topics[0].from"),
    Case("deep", "[" * 5_000, MALFORMED),
    Case("binary", _HEARTBEAT, MALFORMED),
    Case("second hello", hello("t"), PROTOCOL),
    Case("65 topics", Subscribe(tuple(TopicStart(TOPIC, _NOW) for _ in range(65))), LIMIT),
)  # fmt: skip

# Before the welcome there is one right message.
EARLY_CASES: Final = (
    Case("subscribe", Subscribe((TopicStart(TOPIC, CursorStart(0)),)), PROTOCOL),
    Case("unsubscribe", Unsubscribe((TOPIC,)), PROTOCOL),
    Case("renew", b"\x22\x03\x0a\x01t", PROTOCOL),
    Case("heartbeat", ClientHeartbeat(), PROTOCOL),
    Case("noise", b"\xff", MALFORMED),
    Case("command", COMMANDS[1][2], WRITE),
    Case("hello without a token", session_pb2.ClientMessage(hello=session_pb2.Hello()).SerializeToString(),
         MALFORMED, "hello.token"),
    Case("hello of no device", hello("t", "usr_1"), MALFORMED, "hello.device_id"),
)  # fmt: skip
