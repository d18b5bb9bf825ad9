"""Every limit of the node with its default (SPEC section 6); configuration may change each.

Bytes and frames are inclusive: at N all is well, N + 1 is refused or acted on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeVar

import attrs
from attrs.validators import ge, gt

from khala_service.config import described

if TYPE_CHECKING:
    from collections.abc import Callable

KIB: Final = 1024
MIB: Final = 1024 * 1024

ReleaseAction = Literal["release", "disconnect"]
N = TypeVar("N")


def _limit(
    default: N, doc: str, validator: Callable[[object, attrs.Attribute[N], N], object] | None = None
) -> N:
    field: N = attrs.field(default=default, validator=validator, metadata=described(doc))
    return field


@attrs.frozen
class NodeLimits:
    """Limits of one node; units are in the names."""

    inbound_message_max_bytes: int = _limit(
        64 * KIB, "Largest message of a client; one byte more closes the connection."
    )
    client_messages_per_s: float = _limit(100.0, "Messages of one client per second, sustained.")
    client_messages_burst: int = _limit(600, "Messages of one client at once.")
    subscriptions_max: int = _limit(256, "Subscriptions of one connection.")
    topics_per_subscribe_max: int = _limit(64, "Topics in one subscribe.")
    denied_subscribes_max: int = _limit(20, "Denied subscribes within the window that end the connection.")
    denied_subscribes_window_s: float = _limit(60.0, "That window, seconds.")

    hello_timeout_s: float = _limit(5.0, "Time for the first message, seconds.")
    heartbeat_interval_s: float = _limit(15.0, "Time between heartbeats, seconds.")
    dead_after_s: float = _limit(45.0, "Silence after which a client counts as gone, seconds.")
    write_stall_timeout_s: float = _limit(
        10.0, "How long a connection may take no byte while some wait, seconds."
    )

    # Slow consumers, by the age of the first unsent frame (core/slow_consumer.py).
    lagging_after_hot_s: float = _limit(
        1.0, "Age of the first unsent frame at which a client is told that it lags, seconds, tier hot."
    )
    lagging_after_warm_s: float = _limit(2.0, "The same for tier warm.")
    lagging_after_cold_s: float = _limit(5.0, "The same for tier cold.")
    release_after_hot_s: float = _limit(
        30.0, "Age of the first unsent frame at which the topic may be released, seconds, tier hot."
    )
    release_after_warm_s: float = _limit(120.0, "The same for tier warm.")
    release_after_cold_s: float = _limit(600.0, "The same for tier cold.")
    # What happens there: the topic is released, or the connection ends with slow_consumer.
    release_action_hot: ReleaseAction = attrs.field(
        default="release",
        metadata=described("What happens then: release (the topic) or disconnect (the client); tier hot."),
    )
    release_action_warm: ReleaseAction = attrs.field(
        default="release", metadata=described("The same for tier warm.")
    )
    release_action_cold: ReleaseAction = attrs.field(
        default="release", metadata=described("The same for tier cold.")
    )
    slow_rate_window_s: float = _limit(
        10.0, "Over which the rates of client and topic are compared, seconds.", gt(0)
    )
    # This many releases within the window end the connection instead.
    releases_max: int = _limit(3, "Releases within the window that end the connection.", ge(1))
    releases_window_s: float = _limit(300.0, "That window, seconds.")

    # How long a closing connection may take to drain and to answer the close.
    close_timeout_s: float = _limit(
        2.0, "How long a closing connection may take to drain and to answer the close, seconds."
    )
    # Time between two looks at all deadlines; each deadline above is exact to this.
    sweep_interval_s: float = _limit(
        0.25, "Time between two looks at all deadlines, seconds; each is exact to this."
    )

    control_lane_max_messages: int = _limit(512, "Control messages that wait for one connection.")
    control_lane_max_bytes: int = _limit(64 * KIB, "Their bytes.")
    # One turn of a topic on a connection, and what one write carries at most. A single frame
    # above chunk_max_bytes travels alone; 256 KiB of payload plus envelope stay below 320 KiB.
    drr_quantum_bytes: int = _limit(16 * KIB, "One turn of a topic on a connection, bytes.")
    chunk_max_bytes: int = _limit(64 * KIB, "What one write carries; a larger frame travels alone.")
    send_buffer_bytes: int = _limit(128 * KIB, "SO_SNDBUF of each connection.")

    window_max_frames: int = _limit(1_024, "Frames of one topic in memory.")
    window_max_bytes: int = _limit(4 * MIB, "Bytes of one topic in memory.")
    windows_max_bytes: int = _limit(
        256 * MIB, "Bytes of all topics in memory; least recently needed go first."
    )
    shared_ranges_max_bytes: int = _limit(8 * MIB, "Joined frames that several laggards share, bytes.")
    page_max_frames: int = _limit(2_000, "Frames of one read of the journal.")
    page_max_bytes: int = _limit(512 * KIB, "Bytes of one read of the journal.")
    pages_max_bytes: int = _limit(128 * MIB, "Pages in flight, bytes; the newest replay waits.")
    journal_readers_max: int = _limit(16, "Reads of the journal at once.")

    held_records_max: int = _limit(64, "Records of one topic that wait for a gap to be healed.")
    held_max_bytes: int = _limit(1 * MIB, "Their bytes.")
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
    trace_marks_max: int = _limit(192, "Marks per topic that explain deliveries.", ge(4))
    trace_topics_max: int = _limit(1_024, "Topics whose deliveries can be explained.")
    trace_subscriptions_max: int = _limit(4_096, "Subscriptions whose deliveries can be explained.")

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

    admission_per_s: float = _limit(250.0, "New connections per second, sustained.")
    admission_burst: int = _limit(250, "New connections at once.")
    handshakes_max: int = _limit(64, "Handshakes at once.")
    drain_timeout_s: float = _limit(
        30.0, "How long connections may take to leave when the node stops, seconds."
    )
