"""Every limit of the runtime, with its default (SPEC section 6). Nowhere else is a number of these.

The values come from configuration (`runtime.app`); a field's text is what `khala check-config` shows.
Each limit has a test at the limit and one beyond. One object serves the whole process, and a reload changes it
(khala_service/live_limits.py).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs
from attrs.validators import ge

from khala_contracts import reason_codes
from khala_service.live_limits import TakesEffect, described_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala_contracts.reason_codes import ReasonCode

__all__ = ["VIOLATIONS", "RuntimeLimits"]

_KIB: Final = 1024
_MIB: Final = 1024 * 1024
_DAY_S: Final = 24 * 3600


def _limit(default: int, doc: str, *, least: int = 1, effect: TakesEffect = TakesEffect.AT_ONCE) -> int:
    field: int = attrs.field(default=default, validator=ge(least), metadata=described_limit(doc, effect))
    return field


@attrs.frozen(kw_only=True)
class RuntimeLimits:
    """Bounds on requests, batches, pages and what waits."""

    append_events_max: int = _limit(500, "events of one append request")
    append_bytes_max: int = _limit(4 * _MIB, "bytes of the body of one append request")
    inbox_requests_max: int = _limit(2_048, "requests that may wait for a commit")
    inbox_bytes_max: int = _limit(16 * _MIB, "payload bytes that may wait for a commit")
    # Longer batches keep heads locked and callers waiting; shorter ones pay more commits per event.
    batch_events_max: int = _limit(512, "events that one transaction takes from the inbox")
    batch_bytes_max: int = _limit(1 * _MIB, "payload bytes that one transaction takes from the inbox")
    stream_chunk_events_max: int = _limit(512, "events of a stream that one acknowledgement covers")
    stream_chunk_bytes_max: int = _limit(
        1 * _MIB, "payload bytes of a stream that one acknowledgement covers"
    )
    stream_event_bytes_max: int = _limit(1 * _MIB, "bytes of one line or one message of a stream")
    page_events_max: int = _limit(1_000, "events of one page of history")
    page_bytes_max: int = _limit(1 * _MIB, "payload bytes of one page of history; one event always fits")
    page_runs_max: int = _limit(200, "runs of one page of the list")
    topic_owners_max: int = _limit(256, "topics of one question about owners")
    name_bytes_max: int = _limit(200, "bytes of a run's name, agent or source")
    attributes_max: int = _limit(32, "attributes of a run")
    attributes_bytes_max: int = _limit(1 * _KIB, "bytes of all attributes of a run, keys included")
    reason_bytes_max: int = _limit(4 * _KIB, "bytes of the reason of a transition")
    key_bytes_max: int = _limit(200, "bytes of an idempotency key")
    key_lifetime_s: int = _limit(7 * _DAY_S, "seconds for which an idempotency key is remembered")
    # Longer than any commit can take to become known; the rows are of no use afterwards.
    internal_key_lifetime_s: int = _limit(
        3_600, "seconds for which the internal key of a keyless request is kept"
    )
    # Longer: callers wait for a database that does not come back. Shorter: a failover is an error.
    commit_deadline_s: int = _limit(10, "seconds within which a batch is committed or given up")
    relay_bytes_max: int = _limit(16 * _MIB, "bytes of copies that wait for the fan-out driver")

    def name_limit(self, name: str) -> dict[str, str]:
        """Return a limit and its value as details of an error."""
        return {"limit": name, "max": str(getattr(self, name))}


# Limits that callers can exceed, and the reason code that each is told. `payload_max_bytes` is a column of the
# registry of topic classes, `publish_rate_per_s` a key of the configuration beside the limits.
VIOLATIONS: Final[Mapping[str, ReasonCode]] = MappingProxyType(
    {
        "append_events_max": reason_codes.PAYLOAD_TOO_LARGE,
        "append_bytes_max": reason_codes.PAYLOAD_TOO_LARGE,
        "stream_event_bytes_max": reason_codes.PAYLOAD_TOO_LARGE,
        "payload_max_bytes": reason_codes.PAYLOAD_TOO_LARGE,
        "publish_rate_per_s": reason_codes.RATE_LIMITED,
        "inbox_requests_max": reason_codes.UNAVAILABLE,
        "inbox_bytes_max": reason_codes.UNAVAILABLE,
    }
)
