"""What the node counts: plain integers that actors add to and ``/metrics`` reads.

No labels but topic class, close code and reason code, all of bounded number; never a topic, a
principal or an address.
"""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.define(eq=False)
class NodeCounters:
    """Totals since the process started, and gauges where the name says so."""

    connections_accepted: int = 0
    connections_open: int = 0
    # Connections that have not sent a valid hello yet.
    handshakes_open: int = 0
    handshakes_rejected: Counter[str] = attrs.field(factory=Counter)
    hellos_refused: Counter[str] = attrs.field(factory=Counter)
    welcomes: int = 0
    closes: Counter[str] = attrs.field(factory=Counter)
    subscribes: Counter[str] = attrs.field(factory=Counter)
    stale_cursors: Counter[str] = attrs.field(factory=Counter)
    subscriptions_open: int = 0
    frames_appended: int = 0
    deliveries: int = 0
    bytes_direct: int = 0
    bytes_pumped: int = 0
    records: Counter[str] = attrs.field(factory=Counter)
    records_forged: int = 0
    position_unknown: int = 0
    heals: int = 0
    pages_read: int = 0
    page_read_failures: int = 0
    position_checks: int = 0
    position_check_failures: int = 0
    topics_live: int = 0
    task_restarts: Counter[str] = attrs.field(factory=Counter)
    slow_consumer_actions: Counter[str] = attrs.field(factory=Counter)
