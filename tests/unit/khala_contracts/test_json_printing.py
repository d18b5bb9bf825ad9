"""Messages as JSON."""

import math

import pytest
from google.protobuf import json_format, struct_pb2

from khala_contracts import http_messages as m
from khala_contracts.gen.openagents.runtime.v1 import events_pb2
from khala_contracts.json_printing import dump, message_to_mapping, print_json, struct_to_mapping


def test_every_field_is_printed_by_its_name_in_proto() -> None:
    """Defaults too; absent messages and optional fields are left out."""
    assert message_to_mapping(m.AppendEventsRequest()) == {"events": []}
    assert message_to_mapping(m.Watermark()) == {"topic": "", "lineage": "", "seq": "0", "chain": ""}
    assert message_to_mapping(m.TransitionRunRequest(exit_status=0)) == {
        "to_state": "RUN_STATE_UNSPECIFIED",
        "reason": "",
        "exit_status": 0,
        "result": "",
    }


@pytest.mark.parametrize("seq", [0, 2**53 + 1, 2**63 - 1, -(2**63)])
def test_64_bit_integers_are_strings(seq: int) -> None:
    """PR-23."""
    assert message_to_mapping(m.Ack(seq=seq))["seq"] == str(seq)


def test_maps_are_sorted() -> None:
    """Equal messages print equally."""
    assert print_json(m.RegisterWorkerRequest(attributes={"b": "2", "a": "1"})) == (
        '{"name":"","host":"","attributes":{"a":"1","b":"2"}}'
    )


def test_an_unknown_enum_number_is_shown_as_it_came() -> None:
    """From a newer peer."""
    run = m.Run.FromString(b"\x18\x63")
    assert message_to_mapping(run)["state"] == 99


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (3.0, 3),
        (-0.0, 0),
        (2.0**53, 2**53),
        (2.0**53 + 2, 2.0**53 + 2),
        (1.5, 1.5),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
    ],
)
def test_numbers_of_free_form_data(number: float, shown: object) -> None:
    """Whole numbers look whole while they are exact; what JSON has no word for becomes text."""
    shown_here = message_to_mapping(events_pb2.Action(args=struct_pb2.Value(number_value=number)))["args"]
    assert shown_here == shown
    assert type(shown_here) is type(shown)


def test_every_kind_of_free_form_value() -> None:
    """null, true, text, list, object, and a value that says nothing."""
    struct = struct_pb2.Struct()
    struct.update({"n": None, "t": True, "s": "x", "l": [1, [2.5]], "o": {"a": {}}})
    struct.fields["unset"].Clear()
    assert struct_to_mapping(struct) == {
        "l": [1, [2.5]],
        "n": None,
        "o": {"a": {}},
        "s": "x",
        "t": True,
        "unset": None,
    }


def test_bytes_are_standard_base64_and_structs_are_objects() -> None:
    """Fields of these types, not only values inside."""
    event = m.EventInput(kind="k", data={"a": 1})
    assert message_to_mapping(event) == {"kind": "k", "data": {"a": 1}, "idempotency_key": ""}
    assert message_to_mapping(events_pb2.Observation(duration_s=2.5))["duration_s"] == 2.5
    assert message_to_mapping(m.EventInput(payload_bytes=b"\x00\xff"))["payload_bytes"] == "AP8="


def test_it_agrees_with_the_printer_of_protobuf() -> None:
    """Same mapping, names kept, defaults printed."""
    run = m.Run(run_id="r", state=m.RUN_STATE_PAUSED, attributes={"a": "b"}, created_at_us=5)
    response = m.ListRunsResponse(runs=[run])
    theirs = json_format.MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert message_to_mapping(response) == theirs


def test_text_is_not_escaped_beyond_need() -> None:
    """UTF-8 as it is, one line."""
    assert dump({"a": "é\n☃"}) == '{"a":"é\\n☃"}'
