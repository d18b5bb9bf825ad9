"""Defaults are those of SPEC section 6; nobody changes one in passing."""

from typing import Any

import attrs
import pytest

from khala.core.limits import KIB, MIB, VIOLATIONS, NodeLimits
from khala.core.slow_consumer import policy_for
from khala_contracts.topics import Tier
from khala_service.live_limits import take_over


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
        "drain_return_per_s": 200.0,
    }
    actual = attrs.asdict(limits)
    assert {name: actual[name] for name in stated} == stated


@pytest.mark.parametrize(
    ("tier", "names"),
    [
        (Tier.HOT, ("lagging_after_hot_s", "release_after_hot_s", "release_action_hot")),
        (Tier.WARM, ("lagging_after_warm_s", "release_after_warm_s", "release_action_warm")),
        (Tier.COLD, ("lagging_after_cold_s", "release_after_cold_s", "release_action_cold")),
    ],
)
def test_each_tier_has_limits_of_its_own(tier: Tier, names: tuple[str, str, str]) -> None:
    """A tier is judged by its three limits, which are judged at N and N + 1 in test_slow_consumer.py; a reload counts."""
    limits = NodeLimits()
    before = policy_for(tier, limits)
    changed: dict[str, Any] = dict(zip(names, (7.0, 8.0, "disconnect"), strict=True))
    take_over(limits, attrs.evolve(limits, **changed))
    policy = policy_for(tier, limits)
    assert (policy.lagging_after_s, policy.release_after_s, policy.is_disconnecting) == (7.0, 8.0, True)
    others = [policy_for(other, limits) for other in Tier if other is not tier]
    assert all(other != policy and other != before for other in others)


@pytest.mark.parametrize(
    "values",
    [
        {"subscriptions_max": 0},
        {"admission_per_s": 0.0},
        {"hello_timeout_s": -1.0},
        {"heartbeat_interval_s": 45.0},
        {"chunk_max_bytes": 1_000},
    ],
)
def test_what_is_out_of_range(values: dict[str, float]) -> None:
    """CLAW-07: refused by name, at the start as at a reload."""
    with pytest.raises(ValueError, match="|".join((*values, "drr_quantum_bytes"))):
        NodeLimits(**values)  # type: ignore[arg-type]


def test_violations_name_their_limit_and_value() -> None:
    """KH-45: what a client is told and what the audit log gets."""
    assert NodeLimits().name_limit("subscriptions_max") == {"limit": "subscriptions_max", "max": "256"}
    assert NodeLimits().name_limit("hello_timeout_s") == {"limit": "hello_timeout_s", "max": "5.0"}
    assert set(VIOLATIONS) <= {field.name for field in attrs.fields(NodeLimits)}
