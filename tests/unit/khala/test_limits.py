"""Defaults are those of SPEC section 6; nobody changes one in passing."""

import attrs

from khala.core.limits import KIB, MIB, NodeLimits


def test_defaults() -> None:
    """Each number that SPEC section 6 states is the default here."""
    limits = NodeLimits()
    stated = {
        "inbound_message_max_bytes": 64 * KIB,
        "client_messages_per_s": 100.0,
        "client_messages_burst": 600,
        "subscriptions_max": 256,
        "topics_per_subscribe_max": 64,
        "denied_subscribes_max": 20,
        "denied_subscribes_window_s": 60.0,
        "hello_timeout_s": 5.0,
        "heartbeat_interval_s": 15.0,
        "dead_after_s": 45.0,
        "write_stall_timeout_s": 10.0,
        "control_lane_max_messages": 512,
        "control_lane_max_bytes": 64 * KIB,
        "chunk_max_bytes": 64 * KIB,
        "drr_quantum_bytes": 16 * KIB,
        "send_buffer_bytes": 128 * KIB,
        "window_max_frames": 1_024,
        "window_max_bytes": 4 * MIB,
        "windows_max_bytes": 256 * MIB,
        "shared_ranges_max_bytes": 8 * MIB,
        "page_max_frames": 2_000,
        "page_max_bytes": 512 * KIB,
        "pages_max_bytes": 128 * MIB,
        "journal_readers_max": 16,
        "held_records_max": 64,
        "held_max_bytes": 1 * MIB,
        "heal_delay_s": 0.020,
        "position_check_interval_s": 0.5,
        "fanout_quantum_s": 0.001,
        "fanout_quantum_sends": 512,
        "admission_per_s": 250.0,
        "admission_burst": 250,
        "handshakes_max": 64,
        "drain_timeout_s": 30.0,
    }
    actual = attrs.asdict(limits)
    assert {name: actual[name] for name in stated} == stated
