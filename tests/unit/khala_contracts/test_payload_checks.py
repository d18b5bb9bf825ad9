"""What a binary payload must keep."""

import math

import pytest
from google.protobuf import struct_pb2

from khala_contracts.errors import WireError
from khala_contracts.gen.openagents.runtime.v1 import events_pb2
from khala_contracts.gen.openagents.sync.v1 import session_pb2
from khala_contracts.payload_checks import check_finite, may_hold_doubles

BAD = [
    events_pb2.Observation(duration_s=math.nan),
    events_pb2.Action(args=struct_pb2.Value(number_value=math.inf)),
    events_pb2.Action(
        args=struct_pb2.Value(
            list_value=struct_pb2.ListValue(
                values=[
                    struct_pb2.Value(
                        struct_value=struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=-math.inf)})
                    )
                ]
            )
        )
    ),
    events_pb2.WorkerStatusReported(gauges={"load": math.nan}),
]


@pytest.mark.parametrize("message", BAD, ids=range(len(BAD)))
def test_numbers_that_json_cannot_say_are_refused(message: events_pb2.Action) -> None:
    """At the top, in free-form data at any depth, in maps."""
    with pytest.raises(WireError) as caught:
        check_finite(message, "payload_bytes")
    assert (caught.value.reason_code, caught.value.field) == ("invalid_argument", "payload_bytes")


def test_finite_numbers_pass() -> None:
    """Beside every other kind of field."""
    args = struct_pb2.Value(struct_value=struct_pb2.Struct(fields={"a": struct_pb2.Value(number_value=1.5)}))
    check_finite(events_pb2.Action(text="t", step=1, args=args), "payload_bytes")
    check_finite(events_pb2.WorkerStatusReported(text="t", gauges={"load": 0.5}), "payload_bytes")
    check_finite(events_pb2.RunStarted(attributes={"a": "b"}), "payload_bytes")


def test_types_without_doubles_are_known() -> None:
    """They are not walked: output and text are most of a stream."""
    assert not may_hold_doubles(events_pb2.Output.DESCRIPTOR)
    assert not may_hold_doubles(events_pb2.RunStarted.DESCRIPTOR)
    assert not may_hold_doubles(session_pb2.Hello.DESCRIPTOR)
    assert may_hold_doubles(events_pb2.Custom.DESCRIPTOR)
