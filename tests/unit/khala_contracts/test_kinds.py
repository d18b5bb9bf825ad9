"""Kinds and their payloads."""

import math

import pytest
from google.protobuf import struct_pb2

from khala_contracts.erasure import Erased, encode_erased
from khala_contracts.errors import WireError
from khala_contracts.frames import ERASED_KIND, KIND_MAX_BYTES
from khala_contracts.gen.openagents.runtime.v1 import events_pb2
from khala_contracts.kinds import (
    KINDS,
    check_payload_untrusted,
    decode_payload,
    encode_payload,
    kinds_of,
    payload_type,
)
from khala_contracts.topics import TOPIC_CLASSES

# SPEC section 2.
RUN_KINDS = (
    "run.started", "run.state_changed", "run.finished", "step.started", "thought", "action", "observation",
    "output", "message.delta", "message.done", "tool.called", "tool.returned", "error", "artifact", "custom",
)  # fmt: skip


def refused(topic_class: str, kind: str, data: dict[str, object] | bytes) -> tuple[str, str]:
    """Return reason and field of refused data or of a refused payload."""
    if isinstance(data, bytes):
        with pytest.raises(WireError) as caught:
            check_payload_untrusted(topic_class, kind, data)
    else:
        with pytest.raises(WireError) as caught:
            encode_payload(topic_class, kind, data)
    return caught.value.reason_code, caught.value.field


def test_runs_have_the_kinds_of_the_contract() -> None:
    """SPEC section 2, in its order; applications may use the same."""
    # ADR-0013: what happens to a run as such is no application's affair.
    assert kinds_of("run_events") == (*RUN_KINDS, "run.transferred")
    assert kinds_of("app") == RUN_KINDS


def test_every_class_has_kinds_and_every_kind_one_message() -> None:
    """A reader needs the kind alone."""
    assert {name for name, _kind in KINDS} == TOPIC_CLASSES.keys()
    for (_name, kind), payload in KINDS.items():
        assert {other.message for (_, k), other in KINDS.items() if k == kind} == {payload.message}
        assert payload.schema_version >= 1
        assert len(kind) <= KIND_MAX_BYTES
    for name in TOPIC_CLASSES:
        assert kinds_of(name)
        assert KINDS[name, ERASED_KIND].message == "openagents.sync.v1.Erased"


@pytest.mark.parametrize(
    ("topic_class", "kind"),
    [
        ("run_events", "no.such"),
        ("run_events", "worker.registered"),
        ("notifications", "custom"),
        ("run_events", ERASED_KIND),
    ],
)
def test_other_kinds_cannot_be_appended(topic_class: str, kind: str) -> None:
    """Unknown, of another class, and the tombstone."""
    assert refused(topic_class, kind, {}) == ("kind_unknown", "kind")
    assert refused(topic_class, kind, b"") == ("kind_unknown", "kind")


def test_data_becomes_the_payload_message() -> None:
    """And its mapping comes back."""
    data = {"text": "x", "step": 2**53 + 1}
    payload = encode_payload("run_events", "thought", data)
    assert payload == events_pb2.Thought(text="x", step=2**53 + 1).SerializeToString(deterministic=True)
    assert decode_payload("thought", payload) == {"text": "x", "step": str(2**53 + 1), "role": ""}
    assert payload_type("run_events", "thought").message == "openagents.runtime.v1.Thought"


def test_data_of_a_request_body_counts_whole_numbers_as_integers() -> None:
    """A Struct has doubles only; {"step": 3} must still be step 3."""
    struct = struct_pb2.Struct()
    struct.update({"text": "x", "step": 3, "args": {"n": 2}})
    payload = encode_payload("run_events", "action", struct)
    assert payload == encode_payload("run_events", "action", {"text": "x", "step": 3, "args": {"n": 2}})


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"txet": "x"}, "data.txet"),
        ({"text": None}, "data.text"),
        ({"step": 1.5}, "data.step"),
        ({"args": {"a": math.inf}}, "data.args.a"),
    ],
)
def test_data_of_another_shape_is_an_invalid_argument(data: dict[str, object], field: str) -> None:
    """With the path to it."""
    assert refused("run_events", "action", data) == ("invalid_argument", field)


def test_payload_sizes_are_bounded_per_class() -> None:
    """At the limit it passes, one byte beyond it does not."""
    for name, limit in (("run_events", 256 * 1024), ("app", 64 * 1024)):
        # Tag, length in three bytes, text.
        payload = events_pb2.Thought(text="x" * (limit - 4)).SerializeToString()
        assert len(payload) == limit
        check_payload_untrusted(name, "thought", payload)
        assert encode_payload(name, "thought", {"text": "x" * (limit - 4)}) == payload
        assert (
            refused(name, "thought", events_pb2.Thought(text="x" * (limit - 3)).SerializeToString())[0]
            == "payload_too_large"
        )
        assert refused(name, "thought", {"text": "x" * (limit - 3)}) == ("payload_too_large", "payload_bytes")


def test_payloads_that_a_caller_encoded_are_checked() -> None:
    """Noise, bad UTF-8 and numbers without a JSON form are refused; fields of the future are not."""
    for payload in (
        b"\xff",
        b"\x0a\x01\xff",
        events_pb2.Observation(duration_s=math.nan).SerializeToString(),
    ):
        assert refused("run_events", "observation", payload) == ("invalid_argument", "payload_bytes")
    check_payload_untrusted("run_events", "observation", b"")
    check_payload_untrusted("run_events", "observation", b"\xa2\x06\x01x")


@pytest.mark.parametrize(("kind", "payload"), [("no.such", b"\x00\xff"), ("thought", b"\xff")])
def test_what_cannot_be_decoded_is_shown_as_bytes(kind: str, payload: bytes) -> None:
    """A reader never fails on a payload."""
    assert set(decode_payload(kind, payload)) == {"payload_base64"}
    assert decode_payload("no.such", b"\x00\xff") == {"payload_base64": "AP8="}


def test_an_erased_payload_says_what_stood_there() -> None:
    """Without the content."""
    payload = encode_erased(Erased("thought", bytes(32), 1, "law"))
    assert decode_payload(ERASED_KIND, payload)["original_kind"] == "thought"
