"""Good inputs, which noise is made from: a fuzzer that starts from nothing seldom finds a whole message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from khala_contracts import codec
from khala_contracts.codec import (
    ClientHeartbeat,
    CursorStart,
    FromStart,
    Renew,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    Unsubscribe,
)
from khala_contracts.fanout_records import RecordSigner
from khala_contracts.sync_claims import to_claims
from tests.actors.khala.framing_cases import CASES
from tests.actors.khala.node_under_test import hello_with
from tests.client_frames import upgrade_request
from tests.fuzz.targets import KEY, KEY_ID
from tests.topic_log import LINEAGE, TopicLog, claims_for, run_topic

if TYPE_CHECKING:
    from collections.abc import Mapping

TOPIC = run_topic(1)
_LOG = TopicLog(TOPIC)
_RECORD = _LOG.append(3, payload=b"payload")
_CLIENT = (
    hello_with("token"),
    Subscribe((TopicStart(TOPIC.name, FromStart(SubscribeFrom.EARLIEST)),)),
    Subscribe((TopicStart(TOPIC.name, CursorStart(seq=7, lineage=LINEAGE, chain=bytes(32))),)),
    Unsubscribe((TOPIC.name,)),
    Renew("token"),
    ClientHeartbeat(),
)
_BINARY = [codec.encode_client_message(message) for message in _CLIENT]
_JSON = [codec.encode_client_message_json(message).encode() for message in _CLIENT]
_ENTRIES = [b"".join(_LOG.entries)]
_FRAMING = [case.sent for case in CASES if len(case.sent) < 1_000]


def _said(messages: list[bytes], first: int) -> bytes:
    """Return a conversation as the target ``protocol`` reads it."""
    return bytes((first,)) + b"".join(
        bytes((len(message),)) + message for message in messages if len(message) < 255
    )


SEEDS: Final[Mapping[str, list[bytes]]] = {
    "client_message": _BINARY,
    "client_message_json": _JSON,
    "server_message": _ENTRIES,
    "entries": _ENTRIES,
    "record": [RecordSigner(KEY_ID, KEY).seal(_RECORD)],
    "claims": [json.dumps(to_claims(claims_for(TOPIC))).encode()],
    "payload": [b"\x00\x00\x0a\x04name", b"\x00\x01\x0a\x04text"],
    "topic": [TOPIC.name.encode(), b"user:usr_00000000000000000000000001:runs"],
    "protocol": [_said(_BINARY, 0), _said(_JSON, 1), b"\x00\xff\xff"],
    "inbound_frames": [b"\x05" + upgrade_request() + wire for wire in _FRAMING[:20]],
    "framing": _FRAMING,
    "request": [upgrade_request(), b"example.org", b"x\xff"],
}
