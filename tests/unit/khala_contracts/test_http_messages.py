"""The door to the generated messages of HTTP bodies."""

from khala_contracts import http_messages as m
from khala_contracts.gen.openagents.control.v1 import auth_pb2
from khala_contracts.gen.openagents.runtime.v1 import events_pb2, nodes_pb2, orchestration_pb2
from khala_contracts.sync_claims import GrantBasis, PrincipalKind, Surface


def test_every_message_and_enum_of_the_bodies_is_exported() -> None:
    """A new one in proto must be added here."""
    wanted = {"Error", "KhalaFrame", "RunState", "WorkerState"}
    for file in (auth_pb2.DESCRIPTOR, nodes_pb2.DESCRIPTOR, orchestration_pb2.DESCRIPTOR):
        wanted |= set(file.message_types_by_name) | set(file.enum_types_by_name)
        for enum in file.enum_types_by_name.values():
            wanted |= set(enum.values_by_name)
    for name in ("RunState", "WorkerState"):
        wanted |= set(events_pb2.DESCRIPTOR.enum_types_by_name[name].values_by_name)
    words = {"GRANT_BASES", "PRINCIPAL_KINDS", "REDEEM_RESULTS", "RUN_STATES", "SURFACES", "WORKER_STATES"}
    assert set(m.__all__) == wanted | words
    assert all(hasattr(m, name) for name in m.__all__)


def test_enums_have_their_words() -> None:
    """No service spells a prefix."""
    assert m.RUN_STATES.word(m.RUN_STATE_CANCELLED) == "cancelled"
    assert m.WORKER_STATES.number("lost") == m.WORKER_STATE_LOST
    assert m.REDEEM_RESULTS.word(m.REDEEM_RESULT_REVOKED) == "revoked"
    assert m.SURFACES.to_wire(Surface.ONYX) == "SURFACE_ONYX"
    assert m.PRINCIPAL_KINDS.from_wire_untrusted(m.PRINCIPAL_KIND_DERIVED, "kind") is PrincipalKind.DERIVED
    assert m.TopicGrant(basis=m.GRANT_BASES.to_wire(GrantBasis.KEY)).basis == m.GRANT_BASIS_KEY
