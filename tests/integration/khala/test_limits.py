"""SPEC section 6 through real sockets: the list of limits is the schema of the configuration, not this file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from khala.core.limits import VIOLATIONS, NodeLimits
from tests.integration.khala.limit_cases import CASES
from tests.integration.khala.limit_engine import open_engine, until

pytestmark = pytest.mark.slow

TESTS: Final = Path(__file__).parents[2]
ACTORS: Final = "actors/khala/"
UNIT: Final = "unit/khala/"
# Limits that no client meets by itself, or that have a test of their own: the file that names each.
ELSEWHERE: Final = {
    # Slow consumers: real sockets in integration/khala/test_slow_consumers.py, each tier on virtual time.
    "lagging_after_hot_s": UNIT + "test_limits.py",
    "lagging_after_warm_s": "integration/khala/test_slow_consumers.py",
    "lagging_after_cold_s": UNIT + "test_limits.py",
    "release_after_hot_s": ACTORS + "test_slow_consumers.py",
    "release_after_warm_s": "integration/khala/test_slow_consumers.py",
    "release_after_cold_s": UNIT + "test_limits.py",
    "release_action_hot": ACTORS + "test_slow_consumers.py",
    "release_action_warm": UNIT + "test_slow_consumer.py",
    "release_action_cold": UNIT + "test_slow_consumer.py",
    "slow_rate_window_s": "integration/khala/test_slow_consumers.py",
    "releases_max": ACTORS + "test_slow_consumers.py",
    "releases_window_s": ACTORS + "test_slow_consumers.py",
    # Budgets of one connection's bytes.
    "control_lane_max_messages": ACTORS + "test_connection_endings.py",
    "control_lane_max_bytes": UNIT + "test_outbox.py",
    "drr_quantum_bytes": "integration/khala/test_slow_consumers.py",
    "send_buffer_bytes": ACTORS + "test_socket_transport.py",
    # Budgets of a node's memory and of its journal.
    "windows_max_bytes": ACTORS + "test_registry.py",
    "shared_ranges_max_bytes": UNIT + "test_ranges.py",
    "in_flight_max_bytes": UNIT + "test_in_flight.py",
    "page_max_frames": "contract/journal_suite.py",
    "page_max_bytes": "contract/journal_suite.py",
    "pages_max_bytes": ACTORS + "test_replay.py",
    "journal_readers_max": ACTORS + "test_replay.py",
    "replay_budget_events": "integration/khala/test_staleness.py",
    "replay_budget_bytes": "integration/khala/test_staleness.py",
    "held_records_max": ACTORS + "test_healing.py",
    "held_max_bytes": "properties/test_node_records.py",
    "inbox_max_bytes": ACTORS + "test_healing.py",
    "heal_delay_s": ACTORS + "test_healing.py",
    "position_check_interval_s": ACTORS + "test_position_check.py",
    "position_checks_per_s": ACTORS + "test_position_check.py",
    "trace_marks_max": ACTORS + "test_explainer.py",
    "trace_topics_max": ACTORS + "test_explainer.py",
    "trace_subscriptions_max": ACTORS + "test_explainer.py",
    "fanout_quantum_s": ACTORS + "test_topic_endings.py",
    "fanout_quantum_sends": ACTORS + "test_topic_endings.py",
    # Revocation and audit.
    "revocation_poll_interval_s": ACTORS + "test_revocation_feed.py",
    "revocation_stale_after_s": ACTORS + "test_evictions.py",
    "revocation_close_after_s": ACTORS + "test_evictions.py",
    "revocation_close_spread_s": ACTORS + "test_evictions.py",
    "audit_denied_per_s": UNIT + "test_access_audit.py",
    "audit_denied_burst": UNIT + "test_access_audit.py",
    "audit_allowed_per_s": UNIT + "test_access_audit.py",
    "audit_allowed_burst": UNIT + "test_access_audit.py",
    "audit_evicted_per_s": UNIT + "test_access_audit.py",
    "audit_evicted_burst": UNIT + "test_access_audit.py",
    "audit_waiting_max": UNIT + "test_access_audit.py",
    "audit_waiting_max_bytes": UNIT + "test_access_audit.py",
    "audit_flush_interval_s": ACTORS + "test_access_audit.py",
    "audit_summary_interval_s": ACTORS + "test_access_audit.py",
    "drain_timeout_s": ACTORS + "test_departing.py",
    "drain_return_per_s": ACTORS + "test_departing.py",
}


def test_every_limit_has_a_test() -> None:
    """The fields of NodeLimits are exactly the cases here and those whose own test names them."""
    schema = {field.name for field in attrs.fields(NodeLimits)}
    assert set(CASES) | set(ELSEWHERE) == schema
    assert not set(CASES) & set(ELSEWHERE)
    for limit, file in ELSEWHERE.items():
        assert limit in (TESTS / file).read_text(), f"{file} does not name {limit}"


def test_every_violation_is_of_a_limit() -> None:
    """What is counted and audited is a field of the schema, with a code that clients are told."""
    schema = {field.name for field in attrs.fields(NodeLimits)}
    assert set(VIOLATIONS) <= schema
    assert all(reason.close_code is not None for reason in VIOLATIONS.values())


@pytest.mark.parametrize("run", dict.fromkeys(CASES.values()), ids=lambda run: run.__name__)
async def test_at_the_limit_and_one_beyond(run: object) -> None:
    """KH-12, KH-20, KH-45: see each case."""
    assert callable(run)
    await run()


async def test_the_head_of_a_request_is_bounded() -> None:
    """KH-20: a line or a number of headers beyond what the library takes ends the socket, before the hello deadline."""
    line = b"X-Large: " + b"x" * 16_384 + b"\r\n"
    many = b"X-Many: x\r\n" * 1_000
    async with open_engine() as engine:
        for head in (line, many):
            stream = await trio.open_tcp_stream("127.0.0.1", engine.port)
            with trio.fail_after(4), suppress(trio.BrokenResourceError):
                await stream.send_all(b"GET /sync/v1/ws HTTP/1.1\r\nHost: node\r\n" + head)
                while await stream.receive_some():
                    continue
            await trio.aclose_forcefully(stream)
        await until(lambda: engine.counters.connections_open == 0)
        await engine.connect()
