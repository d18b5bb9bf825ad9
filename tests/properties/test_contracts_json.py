"""The strict JSON mapping: exact in both directions, and stricter than the lenient one everywhere."""

import json

from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from khala_contracts import http_messages as m
from khala_contracts import kinds
from khala_contracts.errors import WireError
from khala_contracts.strict_json import message_to_mapping, parse_strict, print_json

texts = st.text(st.characters(codec="utf-8"), max_size=20)
int64s = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53, 2**53 + 1, 2**63 - 1]))
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        texts,
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False).filter(
            lambda x: not x.is_integer() or abs(x) > 2**53
        ),
    ),
    lambda children: st.one_of(st.lists(children, max_size=4), st.dictionaries(texts, children, max_size=4)),
    max_leaves=12,
)
runs = st.builds(
    m.Run,
    run_id=texts,
    name=texts,
    state=st.sampled_from(sorted(m.RUN_STATES.words)),
    attributes=st.dictionaries(texts, texts, max_size=4),
    created_at_us=int64s,
    finished_at_us=int64s,
    watermark=st.one_of(st.none(), st.builds(m.Watermark, seq=int64s, chain=st.binary(max_size=40))),
)


def parse(text: str | bytes, message_cls: type[Message]) -> Message | WireError:
    """Return the message, or the refusal."""
    try:
        return parse_strict(text, message_cls)
    except WireError as error:
        return error


@given(runs)
def test_messages_round_trip_and_the_text_is_a_fixed_point(run: m.Run) -> None:
    """64-bit integers, bytes, maps, enums, presence."""
    text = print_json(run)
    assert parse_strict(text, m.Run) == run
    assert print_json(parse_strict(text, m.Run)) == text


@given(runs)
def test_it_prints_what_the_lenient_printer_prints(run: m.Run) -> None:
    """Same mapping as protobuf's own, so any other language reads it."""
    assert message_to_mapping(run) == json_format.MessageToDict(
        run, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


@given(st.dictionaries(texts, json_values, max_size=4))
def test_free_form_data_comes_back_as_it_was(data: dict[str, object]) -> None:
    """Through a request body, a payload, and its decoding."""
    text = json.dumps({"events": [{"kind": "custom", "data": {"name": "n", "data": data}}]})
    event = parse_strict(text, m.AppendEventsRequest).events[0]
    payload = kinds.encode_payload("run_events", event.kind, event.data)
    assert payload == kinds.encode_payload("run_events", "custom", {"name": "n", "data": data})
    assert kinds.decode_payload("custom", payload) == {"name": "n", "data": data}


@given(runs, st.data())
def test_what_strict_accepts_lenient_accepts_with_the_same_meaning(run: m.Run, data: st.DataObject) -> None:
    """A changed character of the text: refused with WireError, or read as protobuf's parser reads it."""
    text = print_json(run)
    place = data.draw(st.integers(0, len(text) - 1))
    inserted = data.draw(
        st.sampled_from(['"', "{", "}", "[", ",", ":", "0", "1", "-", "e", ".", "n", "\\", " ", "\ud800"])
    )
    spoiled = text[:place] + inserted + text[place + data.draw(st.integers(0, 1)) :]
    parsed = parse(spoiled, m.Run)
    assert isinstance(parsed, WireError) or parsed == json_format.Parse(spoiled, m.Run())


@given(runs, st.data())
def test_a_member_twice_is_refused_in_either_spelling(run: m.Run, data: st.DataObject) -> None:
    """Also where both say the same."""
    mapping = message_to_mapping(run)
    name = data.draw(st.sampled_from(sorted(mapping)))
    camel = m.Run.DESCRIPTOR.fields_by_name[name].json_name
    again = json.dumps(data.draw(st.sampled_from([name, camel]))) + ":" + json.dumps(mapping[name])
    text = print_json(run)
    for doubled in (f"{{{again},{text[1:]}", f"{text[:-1]},{again}}}"):
        refused = parse(doubled, m.Run)
        assert isinstance(refused, WireError)
        assert refused.field == name


@given(runs, texts.filter(lambda name: name not in m.Run.DESCRIPTOR.fields_by_name), json_values)
def test_an_unknown_member_is_refused_whatever_it_holds(run: m.Run, name: str, value: object) -> None:
    """Typos are found by the sender, not by the reader a week later."""
    if name in {field.json_name for field in m.Run.DESCRIPTOR.fields}:
        return
    mapping = message_to_mapping(run) | {name: value}
    assert isinstance(parse(json.dumps(mapping), m.Run), WireError)


@given(st.one_of(st.binary(max_size=100), st.text(max_size=100)))
def test_noise_is_a_wire_error_or_a_message(document: bytes | str) -> None:
    """Nothing else escapes."""
    parsed = parse(document, m.AppendEventsRequest)
    assert isinstance(parsed, (WireError, m.AppendEventsRequest))
