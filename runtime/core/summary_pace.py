"""When followers of a list of runs are told about a run: the throttle of summaries.

Pure; the clock is an argument. A change of status or title is told at once. Everything else at most
once per PUBLISH_EVERY_US and run, and always the latest: what is held back becomes due by itself, also
if no event follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts import kinds

if TYPE_CHECKING:
    from runtime.core.projections import RunSummary
    from runtime.core.run_state_machine import RunState

__all__ = [
    "PUBLISH_EVERY_US",
    "SUMMARY_KIND",
    "Publish",
    "Published",
    "Settled",
    "Wait",
    "encode_summary",
    "pace_summary",
]

# SPEC section 2, state topics: at most one frame per run and second while only its position moves.
PUBLISH_EVERY_US: Final = 1_000_000
SUMMARY_KIND: Final = "run.summarised"


@attrs.frozen
class Published:
    """What was told last about a run, and when, by the database's clock."""

    seq: int
    state: RunState
    title: str
    at_us: int


@attrs.frozen
class Publish:
    """Tell it now."""


@attrs.frozen
class Wait:
    """Tell it then, unless something newer is told before."""

    due_at_us: int


@attrs.frozen
class Settled:
    """What was told is still true."""


def pace_summary(
    published: Published | None, summary: RunSummary, *, now_us: int
) -> Publish | Wait | Settled:
    """Return what to do about a run's summary.

    Args:
        published: What was told last, None if nothing was.
        summary: The fold as it stands.
        now_us: The database's clock.
    """
    if summary.applied_seq == 0:
        return Settled()
    if published is None or (published.state, published.title) != (summary.state, summary.title):
        return Publish()
    if summary.applied_seq <= published.seq:
        return Settled()
    due_at_us = published.at_us + PUBLISH_EVERY_US
    # Told further ahead than the throttle: the clock was set back. Waiting until it is there again would
    # silence the run for as long as it was set back.
    was_set_back = published.at_us > now_us + PUBLISH_EVERY_US
    return Publish() if was_set_back or due_at_us <= now_us else Wait(due_at_us)


def encode_summary(topic_class: str, summary: RunSummary, *, is_withdrawn: bool = False) -> bytes:
    """Return the payload of run.summarised; withdrawn: for a list in which the run no longer is."""
    data: dict[str, object] = {
        "run_id": summary.run_id,
        "name": summary.name,
        "state": f"RUN_STATE_{summary.state.name}",
        "head_seq": str(summary.applied_seq),
        "title": summary.title,
        "withdrawn": is_withdrawn,
    }
    return kinds.encode_payload(topic_class, SUMMARY_KIND, data)
