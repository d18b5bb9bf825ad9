"""The strict JSON mapping; the long list of documents is proto/fixtures/json.json."""

import json

import pytest
from google.protobuf.message import Message

from khala_contracts import http_messages as m
from khala_contracts import strict_json
from khala_contracts.errors import WireError
from khala_contracts.gen.openagents.runtime.v1 import events_pb2
from khala_contracts.strict_json import DEPTH_MAX, fill, load_untrusted, parse_strict, unknown_keys


def field_of(document: object, message_cls: type[m.Run] = m.Run) -> str:
    """Return the field at which a document is refused."""
    with pytest.raises(WireError) as caught:
        fill(document, message_cls, path="data")
    assert caught.value.reason_code == "malformed_message"
    return caught.value.field


def test_a_mapping_of_python_values_is_a_document_too() -> None:
    """Callers in this process give dicts and tuples."""
    event = fill({"kind": "custom", "data": {"list": (1, [2]), "n": None}}, m.EventInput)
    assert strict_json.struct_to_mapping(event.data) == {"list": [1, [2]], "n": None}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({1: "x"}, "data.?"),
        ({"name": b"x"}, "data.name"),
        ({"created_at_us": 1.0}, "data.created_at_us"),
        ({"created_at_us": 2**63}, "data.created_at_us"),
        ({"attributes": {1: "x"}}, "data.attributes"),
        ({"x" * 65: 1}, "data.?"),
        ("text", "data"),
        ([("name", "n")], "data"),
    ],
)
def test_values_that_json_cannot_say_are_refused(document: object, field: str) -> None:
    """The path begins where the caller says; a key that is no name is not repeated."""
    assert field_of(document) == field


@pytest.mark.parametrize("value", [{1, 2}, b"x", object()])
def test_free_form_data_holds_json_values_only(value: object) -> None:
    """A set, bytes and an object are none."""
    with pytest.raises(WireError):
        fill({"args": value}, events_pb2.Action)


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**60, 1e308])
def test_numbers_that_a_double_holds_exactly_are_kept(value: float) -> None:
    """2^60 is exact; 2^53 + 1 is not."""
    assert fill({"args": value}, events_pb2.Action).args.number_value == value


@pytest.mark.parametrize("value", [2**53 + 1, 10**400])
def test_numbers_that_a_double_would_round_are_refused(value: int) -> None:
    """PR-23: exact, or not at all."""
    with pytest.raises(WireError) as caught:
        fill({"args": [value]}, events_pb2.Action)
    assert caught.value.field == "args[0]"


# What the golden documents check in full (tests/contract/test_golden_json.py), once per rule.
REFUSED = [
    ("{} {}", ""),
    ("[1]", ""),
    ("null", ""),
    ('{"created_at_us":NaN}', ""),
    ("[" * 100_000, ""),
    (b"\xff", ""),
    ('{"nmae":"n"}', "nmae"),
    ('{"name":"a","name":"b"}', "name"),
    ('{"org_id":"a","orgId":"a"}', "org_id"),
    ('{"name":null}', "name"),
    ('{"name":1}', "name"),
    ('{"name":"\\ud800"}', "name"),
    ('{"attributes":{"a":"1","a":"1"}}', "attributes"),
    ('{"watermark":{"seq":"9223372036854775808"}}', "watermark.seq"),
    ('{"watermark":{"chain":"AP8"}}', "watermark.chain"),
    ('{"watermark":{"chain":"AP9="}}', "watermark.chain"),
    ('{"state":"RUN_STATE_MELTED"}', "state"),
    ('{"state":4}', "state"),
    ('{"state":"\\ud800"}', "state"),
]


@pytest.mark.parametrize(("document", "field"), REFUSED, ids=range(len(REFUSED)))
def test_documents_are_refused_with_the_field(document: str | bytes, field: str) -> None:
    """PR-11, each rule."""
    with pytest.raises(WireError) as caught:
        parse_strict(document, m.Run)
    assert (caught.value.reason_code, caught.value.field) == ("malformed_message", field)


@pytest.mark.parametrize(
    ("document", "message_cls", "field"),
    [
        ('{"events":{}}', m.AppendEventsRequest, "events"),
        ('{"events":[null]}', m.AppendEventsRequest, "events[0]"),
        ('{"events":[{"data":{},"payload_bytes":""}]}', m.AppendEventsRequest, "events[0].payload_bytes"),
        ('{"events":[{"data":{"x":1,"x":1}}]}', m.AppendEventsRequest, "events[0].data.x"),
        ('{"args":null}', events_pb2.Action, "args"),
        ('{"known":"true"}', m.TopicOwner, "known"),
        ('{"gauges":{"load":true}}', events_pb2.WorkerStatusReported, "gauges"),
        ('{"gauges":{"load":1e999}}', events_pb2.WorkerStatusReported, "gauges"),
        ('{"gauges":[]}', events_pb2.WorkerStatusReported, "gauges"),
    ],
)
def test_other_shapes_are_refused_with_the_field(
    document: str, message_cls: type[Message], field: str
) -> None:
    """Lists, oneofs, free-form objects, booleans, doubles, maps."""
    with pytest.raises(WireError) as caught:
        parse_strict(document, message_cls)
    assert caught.value.field == field


def test_free_form_values_of_every_kind() -> None:
    """null, booleans, numbers, text beyond ASCII, lists and objects."""
    text = '{"args":{"a":[null,true,1,1.5,"\\u00e9"],"b":{}}}'
    assert strict_json.print_json(parse_strict(text.encode(), events_pb2.Action)).endswith(
        '"args":{"a":[null,true,1,1.5,"é"],"b":{}},"call_id":""}'
    )


def nested(levels: int, *, is_list: bool) -> object:
    """Return a value with that many levels."""
    value: object = 1
    for _ in range(levels):
        value = [value] if is_list else {"a": value}
    return value


@pytest.mark.parametrize("is_list", [True, False])
def test_depth_is_bounded_and_what_passes_can_be_decoded(is_list: bool) -> None:
    """Exactly DEPTH_MAX levels pass, one more does not, and protobuf reads the deepest."""
    deepest = {"args": nested(DEPTH_MAX - 1, is_list=is_list)}
    message = parse_strict(json.dumps(deepest), events_pb2.Action)
    assert events_pb2.Action.FromString(message.SerializeToString()) == message
    with pytest.raises(WireError, match="levels"):
        parse_strict(json.dumps({"args": nested(DEPTH_MAX, is_list=is_list)}), events_pb2.Action)


def test_depth_counts_lists_of_messages() -> None:
    """The list and its element are a level each; the limit holds inside a request as well."""
    deep = {"events": [{"data": nested(DEPTH_MAX, is_list=False)}]}
    with pytest.raises(WireError, match="levels"):
        fill(deep, m.AppendEventsRequest)


def test_unknown_top_level_keys_are_listed() -> None:
    """Used to tell a command from a mistake."""
    assert unknown_keys(load_untrusted('{"a":1,"b":2,"a":3}'), ["b"]) == ["a", "a"]
    assert unknown_keys(load_untrusted("[1]"), ["b"]) == []


def test_every_scalar_type_of_our_contracts_is_mapped() -> None:
    """A new scalar type in proto needs a rule here."""
    gauges = fill({"gauges": {"load": 1}}, events_pb2.WorkerStatusReported).gauges
    assert dict(gauges) == {"load": 1.0}
    assert fill({"known": True}, m.TopicOwner).known
    assert fill({"results": ["REDEEM_RESULT_OK"]}, m.RedeemResponse).results == [m.REDEEM_RESULT_OK]
    assert fill({"retry_after_ms": "4294967295"}, m.StreamError).retry_after_ms == 2**32 - 1
    assert fill({"chain": "AP8="}, m.Ack).chain == b"\x00\xff"


def test_empty_messages_keep_their_presence() -> None:
    """{} for a message field is not the same as leaving it out."""
    assert fill({"run": {}}, m.GetRunResponse).HasField("run")
    assert not fill({}, m.GetRunResponse).HasField("run")
    data = fill({"data": {}}, m.EventInput)
    assert data.WhichOneof("body") == "data"
