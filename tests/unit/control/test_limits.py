"""Limits of control as one value, and what a runtime and a node may say of exceeded ones."""

from __future__ import annotations

import attrs
import pytest

from control.core.audit import Action
from control.core.limits import ControlLimits
from control.core.node_audit import (
    AuditGap,
    NodeAction,
    NodeBatch,
    NodeEvent,
    Unwritten,
    check_node_batch,
    check_runtime_batch,
    rows_of,
)
from control.core.refusals import Refused
from khala_service.live_limits import take_over

EXCEEDED = NodeEvent(
    action=NodeAction.LIMIT, reason="limit_exceeded", cause="", noted_at_ms=1_700_000_000_000, connection_id="con_1",
    request_id="req_1", user_id="usr_1", session_id="", device_id="", principal_kind=None, principal_id="", jti="",
    topic="", positions=(), topic_count=0, limit="subscriptions_max", limit_value="256",
)  # fmt: skip
COUNTED = Unwritten(NodeAction.LIMIT, "rate_limited", AuditGap.RATIONED, 7, 1_700_000_000_000)


def test_a_row_names_limit_and_value() -> None:
    """KH-45: the code that was told, the limit's name and the value in force; counts likewise."""
    row, counts = rows_of(NodeBatch("runtime", "bat_1", (EXCEEDED,), (COUNTED,)))
    assert (row.action, row.outcome, row.reason) == (Action.LIMIT_EXCEED, "refused", "limit_exceeded")
    assert (row.detail["limit"], row.detail["value"]) == ("subscriptions_max", "256")
    assert (counts.detail["action"], counts.detail["count"]) == ("limit.exceed", 7)


@pytest.mark.parametrize(
    "change",
    [
        {"limit": ""},
        {"limit_value": ""},
        {"limit": "Secret text"},
        {"limit": "x" * 65},
        {"action": NodeAction.HELLO},
    ],
)
def test_a_limit_is_a_name(change: dict[str, object]) -> None:
    """A name of the configuration, of exceeded limits only, always with its value."""
    with pytest.raises(Refused):
        rows_of(NodeBatch("nod_1", "bat_1", (attrs.evolve(EXCEEDED, **change),), ()))  # type: ignore[arg-type]


def test_what_a_runtime_may_report() -> None:
    """Exceeded limits, as itself; what nodes decide about access is theirs."""
    check_runtime_batch(NodeBatch("runtime", "bat_1", (EXCEEDED,), (COUNTED,)))
    evicted = attrs.evolve(EXCEEDED, action=NodeAction.EVICT_CONNECTION, limit="", limit_value="")
    with pytest.raises(Refused):
        check_runtime_batch(NodeBatch("runtime", "bat_1", (EXCEEDED, evicted), ()))
    with pytest.raises(Refused):
        check_runtime_batch(
            NodeBatch("runtime", "bat_1", (), (attrs.evolve(COUNTED, action=NodeAction.SUBSCRIBE),))
        )
    with pytest.raises(Refused):
        check_runtime_batch(NodeBatch("nod_1", "bat_1", (EXCEEDED,), ()))


def test_a_node_is_no_runtime() -> None:
    """Rows that say that the runtime wrote them were written with its credential."""
    check_node_batch(NodeBatch("nod_1", "bat_1", (EXCEEDED,), ()))
    with pytest.raises(Refused):
        check_node_batch(NodeBatch("runtime", "bat_1", (EXCEEDED,), ()))


def test_limits_are_taken_over() -> None:
    """CT-15: what `serve_control` holds and shows is what the newest configuration says."""
    names = [field.name for field in attrs.fields(ControlLimits)]
    limits = ControlLimits(**dict.fromkeys(names, 1))
    assert [change.name for change in take_over(limits, ControlLimits(**dict.fromkeys(names, 2)))] == names
    assert limits == ControlLimits(**dict.fromkeys(names, 2))
