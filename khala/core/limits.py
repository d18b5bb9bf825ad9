"""Every limit of the node with its default (SPEC section 6); configuration may change each, a reload most.

Bytes and frames are inclusive: at N all is well, N + 1 is refused or acted on. One object serves the whole
process: whoever is given it reads a field when it needs it (khala_service/live_limits.py).
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  # attrs resolves the types of fields at run time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import attrs
from attrs.validators import ge, gt

from khala_contracts import reason_codes
from khala_contracts.topics import TOPIC_CLASSES
from khala_service.config import described
from khala_service.live_limits import TakesEffect, described_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_contracts.reason_codes import ReasonCode

KIB: Final = 1024
MIB: Final = 1024 * 1024

ReleaseAction = Literal["release", "disconnect"]
N = TypeVar("N")


_NEW: Final = TakesEffect.NEW
_RESTART: Final = TakesEffect.RESTART


def _limit(
    default: N,
    doc: str,
    validator: Callable[[object, attrs.Attribute[N], N], object] | None = None,
    effect: TakesEffect = TakesEffect.AT_ONCE,
) -> N:
    """Declare a number: at least 1, times and rates at least 0, unless ``validator`` says otherwise."""
    least: Callable[..., object] = ge(1 if isinstance(default, int) else 0)
    field: N = attrs.field(
        default=default, validator=validator or least, metadata=described_limit(doc, effect)
    )
    return field


def _check_budgets(_: object, _field: object, budgets: Mapping[str, int]) -> None:
    for name, budget in budgets.items():
        if name not in TOPIC_CLASSES:
            message = f"{name}: no topic class; known are {', '.join(TOPIC_CLASSES)}"
            raise ValueError(message)
        if budget < 0:
            message = f"{name}: expected 0 or more"
            raise ValueError(message)


@attrs.frozen
class NodeLimits:
    """Limits of one node; units are in the names."""

    inbound_message_max_bytes: int = _limit(
        64 * KIB, "Largest message of a client; one byte more closes the connection.", effect=_NEW
    )
    client_messages_per_s: float = _limit(100.0, "Messages of one client per second, sustained.", gt(0))
    client_messages_burst: int = _limit(600, "Messages of one client at once.")
    subscriptions_max: int = _limit(256, "Subscriptions of one connection.")
    topics_per_subscribe_max: int = _limit(64, "Topics in one subscribe.")
    denied_subscribes_max: int = _limit(
        20, "Denied subscribes within the window that end the connection.", effect=_NEW
    )
    denied_subscribes_window_s: float = _limit(60.0, "That window, seconds.", effect=_NEW)

    hello_timeout_s: float = _limit(5.0, "Time for the first message, seconds.")
    heartbeat_interval_s: float = _limit(15.0, "Time between heartbeats, seconds.")
    dead_after_s: float = _limit(45.0, "Silence after which a client counts as gone, seconds.")
    write_stall_timeout_s: float = _limit(
        10.0, "How long a connection may take no byte while some wait, seconds."
    )

    # Slow consumers, by the age of the first unsent frame (core/slow_consumer.py).
    lagging_after_hot_s: float = _limit(
        1.0,
        "Age of the first unsent frame at which a client is told that it lags, seconds, tier hot.",
        effect=_NEW,
    )
    lagging_after_warm_s: float = _limit(2.0, "The same for tier warm.", effect=_NEW)
    lagging_after_cold_s: float = _limit(5.0, "The same for tier cold.", effect=_NEW)
    release_after_hot_s: float = _limit(
        30.0,
        "Age of the first unsent frame at which the topic may be released, seconds, tier hot.",
        effect=_NEW,
    )
    release_after_warm_s: float = _limit(120.0, "The same for tier warm.", effect=_NEW)
    release_after_cold_s: float = _limit(600.0, "The same for tier cold.", effect=_NEW)
    # What happens there: the topic is released, or the connection ends with slow_consumer.
    release_action_hot: ReleaseAction = attrs.field(
        default="release",
        metadata=described_limit(
            "What happens then: release (the topic) or disconnect (the client); tier hot.", _NEW
        ),
    )
    release_action_warm: ReleaseAction = attrs.field(
        default="release", metadata=described_limit("The same for tier warm.", _NEW)
    )
    release_action_cold: ReleaseAction = attrs.field(
        default="release", metadata=described_limit("The same for tier cold.", _NEW)
    )
    slow_rate_window_s: float = _limit(
        10.0, "Over which the rates of client and topic are compared, seconds.", gt(0), effect=_NEW
    )
    # This many releases within the window end the connection instead.
    releases_max: int = _limit(3, "Releases within the window that end the connection.", ge(1), effect=_NEW)
    releases_window_s: float = _limit(300.0, "That window, seconds.", effect=_NEW)

    # How long a closing connection may take to drain and to answer the close.
    close_timeout_s: float = _limit(
        2.0, "How long a closing connection may take to drain and to answer the close, seconds."
    )
    # Time between two looks at all deadlines; each deadline above is exact to this.
    sweep_interval_s: float = _limit(
        0.25, "Time between two looks at all deadlines, seconds; each is exact to this."
    )

    control_lane_max_messages: int = _limit(
        512, "Control messages that wait for one connection.", effect=_NEW
    )
    control_lane_max_bytes: int = _limit(64 * KIB, "Their bytes.", effect=_NEW)
    # One turn of a topic on a connection, and what one write carries at most. A single frame
    # above chunk_max_bytes travels alone; 256 KiB of payload plus envelope stay below 320 KiB.
    drr_quantum_bytes: int = _limit(16 * KIB, "One turn of a topic on a connection, bytes.", effect=_NEW)
    chunk_max_bytes: int = _limit(
        64 * KIB, "What one write carries; a larger frame travels alone.", effect=_NEW
    )
    send_buffer_bytes: int = _limit(128 * KIB, "SO_SNDBUF of each connection.", effect=_NEW)

    window_max_frames: int = _limit(1_024, "Frames of one topic in memory.", effect=_NEW)
    window_max_bytes: int = _limit(4 * MIB, "Bytes of one topic in memory.", effect=_NEW)
    windows_max_bytes: int = _limit(
        256 * MIB, "Memory of all topics' frames; least recently needed go first."
    )
    shared_ranges_max_bytes: int = _limit(8 * MIB, "Joined frames that several laggards share, bytes.")
    page_max_frames: int = _limit(2_000, "Frames of one read of the journal.")
    page_max_bytes: int = _limit(512 * KIB, "Bytes of one read of the journal.")
    pages_max_bytes: int = _limit(128 * MIB, "Pages in flight, bytes; the newest replay waits.")
    in_flight_max_bytes: int = _limit(
        64 * MIB,
        "Bytes of all connections that sockets have not taken; the newest replay waits, live never does.",
    )
    journal_readers_max: int = _limit(16, "Reads of the journal at once.", effect=_RESTART)

    replay_budget_events: Mapping[str, int] = attrs.field(
        factory=dict,
        validator=_check_budgets,
        metadata=described("Most events that one replay may bring, by topic class. Default: the registry."),
    )
    replay_budget_bytes: Mapping[str, int] = attrs.field(
        factory=dict,
        validator=_check_budgets,
        metadata=described("Most encoded bytes that one replay may bring, likewise."),
    )

    held_records_max: int = _limit(64, "Records of one topic that wait for a gap to be healed.", effect=_NEW)
    held_max_bytes: int = _limit(1 * MIB, "Their bytes.", effect=_NEW)
    # Records that a topic has not looked at yet; as many as may be held. Smaller than two records of
    # 512 KiB: a burst of large ones is read from the journal although it has arrived.
    inbox_max_bytes: int = _limit(4 * MIB, "Records that a topic has not looked at yet, bytes.")
    heal_delay_s: float = _limit(
        0.020, "How long a gap may close by itself before the journal is read, seconds."
    )
    position_check_interval_s: float = _limit(0.5, "Time between two comparisons with the database, seconds.")
    # At most this many position checks per second when drivers say that they have lost something.
    position_checks_per_s: float = _limit(
        50.0, "Comparisons per second when a driver says that it lost something."
    )
    # Topics outlive their last subscriber so that a reconnect finds them warm.
    topic_linger_s: float = _limit(30.0, "How long a topic outlives its last subscriber, seconds.")

    # What the node remembers to explain deliveries (core/delivery_trace.py): about 200 bytes for
    # each mark of a topic, 250 for each subscription.
    trace_marks_max: int = _limit(192, "Marks per topic that explain deliveries.", ge(4), effect=_NEW)
    trace_topics_max: int = _limit(1_024, "Topics whose deliveries can be explained.")
    trace_subscriptions_max: int = _limit(
        4_096, "Subscriptions whose deliveries can be explained.", effect=_RESTART
    )

    # SPEC section 5. A revocation is read by the next poll; a node whose view is older
    # than the second welcomes nobody new, and older than the third ends its sockets over the fourth.
    revocation_poll_interval_s: float = _limit(
        5.0, "Time between two reads of control's log of revocations, seconds."
    )
    revocation_stale_after_s: float = _limit(
        60.0, "Age of that view above which nobody new is welcomed, seconds."
    )
    revocation_close_after_s: float = _limit(
        300.0, "Age of that view above which sockets are closed, seconds."
    )
    revocation_close_spread_s: float = _limit(60.0, "Over which they are closed, seconds.")

    # Rows for the audit log, sustained and at once (core/access_audit.py). More: a flood fills control's disk.
    # Fewer: an attack, or a storm of reconnects, is counts instead of rows.
    audit_denied_per_s: float = _limit(
        20.0, "Rows of denials for the audit log per second, sustained.", gt(0)
    )
    audit_denied_burst: int = _limit(1_000, "The same at once.", ge(1))
    audit_allowed_per_s: float = _limit(
        100.0, "Rows of admissions for the audit log per second, sustained.", gt(0)
    )
    audit_allowed_burst: int = _limit(2_000, "The same at once.", ge(1))
    audit_evicted_per_s: float = _limit(
        100.0, "Rows of evictions for the audit log per second, sustained.", gt(0)
    )
    audit_evicted_burst: int = _limit(5_000, "The same at once.", ge(1))
    # What waits while control is away.
    audit_waiting_max: int = _limit(8_192, "Rows that wait while control is away.", ge(1))
    audit_waiting_max_bytes: int = _limit(8 * MIB, "Their bytes.")
    audit_flush_interval_s: float = _limit(0.5, "Time between two batches of rows, seconds.")
    # Counts of what was not written travel once in this time.
    audit_summary_interval_s: float = _limit(
        10.0, "Time between two counts of what was not written, seconds."
    )

    # Fan-out gives other tasks a turn after whichever comes first.
    fanout_quantum_s: float = _limit(0.001, "Fan-out gives other tasks a turn after this time, seconds.")
    fanout_quantum_sends: int = _limit(512, "Or after this many sends.")

    admission_per_s: float = _limit(250.0, "New connections per second, sustained.", gt(0))
    admission_burst: int = _limit(250, "New connections at once.")
    handshakes_max: int = _limit(64, "Handshakes at once.")
    drain_timeout_s: float = _limit(
        30.0, "How long connections may take to leave when the node stops, seconds."
    )
    # Below what one other node admits, so that there is room for new clients. Larger, with few nodes: who returns is
    # turned away by them and waits again. Smaller: clients of a large node are away for longer.
    drain_return_per_s: float = _limit(
        200.0, "Clients that a leaving node sends back to the others, per second.", gt(0)
    )

    def __attrs_post_init__(self) -> None:
        """Check what no single limit can say. Raises ValueError naming the key."""
        if self.heartbeat_interval_s >= self.dead_after_s:
            raise ValueError("heartbeat_interval_s: expected less than dead_after_s")
        # A larger turn would be a larger write: what is saved up beyond a chunk is for one large frame.
        if self.drr_quantum_bytes > self.chunk_max_bytes:
            raise ValueError("drr_quantum_bytes: expected at most chunk_max_bytes")

    def name_limit(self, name: str) -> dict[str, str]:
        """Return a limit and its value as details of an error."""
        return {"limit": name, "max": str(getattr(self, name))}


# Limits that clients can exceed, and the reason code that each is told.
VIOLATIONS: Final[Mapping[str, ReasonCode]] = MappingProxyType(
    {
        "inbound_message_max_bytes": reason_codes.MESSAGE_TOO_LARGE,
        "client_messages_per_s": reason_codes.RATE_LIMITED,
        "subscriptions_max": reason_codes.LIMIT_EXCEEDED,
        "topics_per_subscribe_max": reason_codes.LIMIT_EXCEEDED,
        "denied_subscribes_max": reason_codes.RATE_LIMITED,
        "hello_timeout_s": reason_codes.HELLO_TIMEOUT,
        "dead_after_s": reason_codes.HEARTBEAT_TIMEOUT,
        "write_stall_timeout_s": reason_codes.SLOW_CONSUMER,
        "control_lane_max_bytes": reason_codes.SLOW_CONSUMER,
        "release_after_hot_s": reason_codes.SLOW_CONSUMER,
        "release_after_warm_s": reason_codes.SLOW_CONSUMER,
        "release_after_cold_s": reason_codes.SLOW_CONSUMER,
        "releases_max": reason_codes.SLOW_CONSUMER,
        "admission_per_s": reason_codes.RATE_LIMITED,
        "handshakes_max": reason_codes.RATE_LIMITED,
    }
)
