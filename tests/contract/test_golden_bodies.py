"""runtime-orchestration-v1.json and control-auth-session-v1.json: bodies, payloads, claims."""

from typing import cast

import pytest

from khala_contracts import codec, kinds, strict_json, sync_claims
from tests.contract.fixture_files import Row, load, message_classes, rows

RUNTIME = load("runtime-orchestration-v1.json")
CONTROL = load("control-auth-session-v1.json")
BODIES = [*rows(RUNTIME, "bodies"), *rows(CONTROL, "bodies")]
PAYLOADS = rows(RUNTIME, "payloads")
CLASSES = message_classes()


@pytest.mark.parametrize("row", BODIES, ids=[row["name"] for row in BODIES])
def test_a_body_round_trips_byte_identically(row: Row) -> None:
    """PR-05, PR-06: JSON to message to JSON, and the binary form to the same message."""
    text = strict_json.dump(row["body"])
    message = strict_json.parse_strict(text, CLASSES[row["message"]])
    assert strict_json.print_json(message) == text
    binary = bytes.fromhex(row["binary_hex"])
    assert codec.encode_message(message) == binary
    assert codec.decode_message_untrusted(CLASSES[row["message"]], binary) == message
    assert codec.count_unknown_fields(message) == 0


@pytest.mark.parametrize("row", PAYLOADS, ids=[f"{row['topic_class']} {row['kind']}" for row in PAYLOADS])
def test_a_payload_of_each_kind(row: Row) -> None:
    """Data to payload and back, as the registry has it; what was decoded encodes to the same bytes."""
    data = cast("dict[str, object]", row["data"])
    payload = bytes.fromhex(row["payload_hex"])
    registered = kinds.payload_type(row["topic_class"], row["kind"])
    assert (registered.message, registered.schema_version) == (row["message"], int(row["schema_version"]))
    assert kinds.encode_payload(row["topic_class"], row["kind"], data) == payload
    kinds.check_payload_untrusted(row["topic_class"], row["kind"], payload)
    decoded = kinds.decode_payload(row["kind"], payload)
    assert data.items() <= decoded.items()
    assert kinds.encode_payload(row["topic_class"], row["kind"], decoded) == payload


def test_every_class_and_kind_has_a_payload() -> None:
    """A new kind needs a sample."""
    assert {(row["topic_class"], row["kind"]) for row in PAYLOADS} == {
        (name, kind) for name, kind in kinds.KINDS if kind != "khala.erased"
    }


def test_claims_of_a_sync_token() -> None:
    """What control signs and nodes verify."""
    claims = cast("dict[str, object]", CONTROL["sync_token_claims"])
    assert sync_claims.to_claims(sync_claims.from_claims_untrusted(claims)) == claims


def test_large_numbers_are_exact_in_every_form() -> None:
    """PR-23: 2^53 + 1 in JSON, as a message, in bytes."""
    text = strict_json.dump(RUNTIME)
    assert '"9007199254740993"' in text
    assert "9007199254740992" not in text
    assert ":9007199254740993" not in text
