"""session.json: every message of the protocol, in both subprotocols."""

import pytest

from khala_contracts import codec
from khala_contracts.gen.openagents.sync.v1 import session_pb2
from khala_contracts.reason_codes import REGISTRY
from tests.contract.fixture_files import Row, load, rows

TRANSCRIPT = rows(load("session.json"), "transcript")


@pytest.mark.parametrize("row", TRANSCRIPT, ids=range(len(TRANSCRIPT)))
def test_both_subprotocols_say_the_same(row: Row) -> None:
    """Each message decodes to one value from both forms, and encodes to the recorded ones."""
    binary = bytes.fromhex(row["binary_hex"])
    if row["from"] == "client":
        said = codec.decode_client_message_untrusted(binary)
        assert codec.decode_client_message_json_untrusted(row["json"]) == said
        assert codec.encode_client_message(said) == binary
        assert codec.encode_client_message_json(said) == row["json"]
        return
    answer = codec.decode_server_message_untrusted(binary)
    assert codec.decode_server_message_json_untrusted(row["json"]) == answer
    if isinstance(answer, codec.FramesMessage):
        assert b"".join(map(codec.encode_entry, answer.frames)) == binary
    else:
        assert codec.encode_server_control(answer) == binary
        assert codec.encode_server_control_json(answer).decode() == row["json"]


@pytest.mark.parametrize("row", TRANSCRIPT, ids=range(len(TRANSCRIPT)))
def test_every_byte_is_accounted_for(row: Row) -> None:
    """PR-19: with nothing but the generated classes; no unknown field anywhere."""
    message_cls = session_pb2.ClientMessage if row["from"] == "client" else session_pb2.ServerMessage
    message = message_cls.FromString(bytes.fromhex(row["binary_hex"]))
    assert codec.count_unknown_fields(message) == 0
    assert message.SerializeToString(deterministic=True).hex() == row["binary_hex"]


def test_every_message_and_every_reason_is_in_it() -> None:
    """A new message or code needs a line here."""
    client = session_pb2.ClientMessage.DESCRIPTOR.oneofs_by_name["message"].fields
    server = session_pb2.ServerMessage.DESCRIPTOR.oneofs_by_name["control"].fields
    said: set[str | None] = set()
    codes: set[str] = set()
    for row in TRANSCRIPT:
        data = bytes.fromhex(row["binary_hex"])
        if row["from"] == "client":
            said.add(session_pb2.ClientMessage.FromString(data).WhichOneof("message"))
        else:
            message = session_pb2.ServerMessage.FromString(data)
            said.add(message.WhichOneof("control"))
            codes.add(message.error.code)
    assert said == {field.name for field in (*client, *server)} | {None}
    assert codes == REGISTRY.keys() | {""}
