"""Every limit of the node with its default (SPEC section 6); configuration may change each.

Bytes and frames are inclusive: at N all is well, N + 1 is refused or acted on.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs
from attrs.validators import ge, gt

KIB: Final = 1024
MIB: Final = 1024 * 1024

ReleaseAction = Literal["release", "disconnect"]


@attrs.frozen
class NodeLimits:
    """Limits of one node; units are in the names."""

    inbound_message_max_bytes: int = 64 * KIB
    client_messages_per_s: float = 100.0
    client_messages_burst: int = 600
    subscriptions_max: int = 256
    topics_per_subscribe_max: int = 64
    denied_subscribes_max: int = 20
    denied_subscribes_window_s: float = 60.0

    hello_timeout_s: float = 5.0
    heartbeat_interval_s: float = 15.0
    dead_after_s: float = 45.0
    write_stall_timeout_s: float = 10.0

    # Slow consumers, by the age of the first unsent frame (core/slow_consumer.py).
    lagging_after_hot_s: float = 1.0
    lagging_after_warm_s: float = 2.0
    lagging_after_cold_s: float = 5.0
    release_after_hot_s: float = 30.0
    release_after_warm_s: float = 120.0
    release_after_cold_s: float = 600.0
    # What happens there: the topic is released, or the connection ends with slow_consumer.
    release_action_hot: ReleaseAction = "release"
    release_action_warm: ReleaseAction = "release"
    release_action_cold: ReleaseAction = "release"
    slow_rate_window_s: float = attrs.field(default=10.0, validator=gt(0))
    # This many releases within the window end the connection instead.
    releases_max: int = attrs.field(default=3, validator=ge(1))
    releases_window_s: float = 300.0

    # How long a closing connection may take to drain and to answer the close.
    close_timeout_s: float = 2.0
    # Time between two looks at all deadlines; each deadline above is exact to this.
    sweep_interval_s: float = 0.25

    control_lane_max_messages: int = 512
    control_lane_max_bytes: int = 64 * KIB
    # One turn of a topic on a connection, and what one write carries at most. A single frame
    # above chunk_max_bytes travels alone; 256 KiB of payload plus envelope stay below 320 KiB.
    drr_quantum_bytes: int = 16 * KIB
    chunk_max_bytes: int = 64 * KIB
    send_buffer_bytes: int = 128 * KIB

    window_max_frames: int = 1_024
    window_max_bytes: int = 4 * MIB
    windows_max_bytes: int = 256 * MIB
    shared_ranges_max_bytes: int = 8 * MIB
    page_max_frames: int = 2_000
    page_max_bytes: int = 512 * KIB
    pages_max_bytes: int = 128 * MIB
    journal_readers_max: int = 16

    held_records_max: int = 64
    held_max_bytes: int = 1 * MIB
    # Records that a topic has not looked at yet; as many as may be held. Smaller than two records of
    # 512 KiB: a burst of large ones is read from the journal although it has arrived.
    inbox_max_bytes: int = 4 * MIB
    heal_delay_s: float = 0.020
    position_check_interval_s: float = 0.5
    # At most this many position checks per second when drivers say that they have lost something.
    position_checks_per_s: float = 50.0
    # Topics outlive their last subscriber so that a reconnect finds them warm.
    topic_linger_s: float = 30.0

    # What the node remembers to explain deliveries (core/delivery_trace.py): about 200 bytes for
    # each mark of a topic, 250 for each subscription.
    trace_marks_max: int = attrs.field(default=192, validator=ge(4))
    trace_topics_max: int = 1_024
    trace_subscriptions_max: int = 4_096

    # SPEC section 5. A revocation is read by the next poll; a node whose view is older
    # than the second welcomes nobody new, and older than the third ends its sockets over the fourth.
    revocation_poll_interval_s: float = 5.0
    revocation_stale_after_s: float = 60.0
    revocation_close_after_s: float = 300.0
    revocation_close_spread_s: float = 60.0

    # Fan-out gives other tasks a turn after whichever comes first.
    fanout_quantum_s: float = 0.001
    fanout_quantum_sends: int = 512

    admission_per_s: float = 250.0
    admission_burst: int = 250
    handshakes_max: int = 64
    drain_timeout_s: float = 30.0
