"""When a summary is told, with the clock as an argument."""

from __future__ import annotations

import attrs
import pytest

from khala_contracts import kinds
from runtime.core.projections import TITLE_CHARACTERS_MAX, RunSummary
from runtime.core.run_state_machine import RunState
from runtime.core.summary_pace import (
    PUBLISH_EVERY_US,
    SUMMARY_KIND,
    Publish,
    Published,
    Settled,
    Wait,
    encode_summary,
    pace_summary,
)

NOW_US = 1_800_000_000_000_000
ROW = RunSummary(
    run_id="run_a", owner_user_id="usr_a", org_id=None, name="fix", title="Fix", state=RunState.RUNNING,
    event_count=7, applied_seq=7,
)  # fmt: skip
TOLD = Published(7, RunState.RUNNING, "Fix", NOW_US)


def test_nothing_to_tell() -> None:
    """No event yet; or all of it told."""
    assert pace_summary(None, attrs.evolve(ROW, applied_seq=0), now_us=NOW_US) == Settled()
    assert pace_summary(TOLD, ROW, now_us=NOW_US + 9 * PUBLISH_EVERY_US) == Settled()


@pytest.mark.parametrize(
    "changed", [attrs.evolve(ROW, state=RunState.PAUSED), attrs.evolve(ROW, title="Other")]
)
def test_status_and_title_are_told_at_once(changed: RunSummary) -> None:
    """In the same microsecond as the one before."""
    assert pace_summary(TOLD, changed, now_us=NOW_US) == Publish()


def test_the_first_is_told_at_once() -> None:
    """A run appears in the list with its first event."""
    assert pace_summary(None, attrs.evolve(ROW, applied_seq=1), now_us=NOW_US) == Publish()


@pytest.mark.parametrize(
    ("later_us", "expected"),
    [
        (0, Wait(NOW_US + PUBLISH_EVERY_US)),
        (PUBLISH_EVERY_US - 1, Wait(NOW_US + PUBLISH_EVERY_US)),
        (PUBLISH_EVERY_US, Publish()),
        (PUBLISH_EVERY_US + 1, Publish()),
    ],
)
def test_positions_are_told_once_a_second(later_us: int, expected: object) -> None:
    """Both sides of the second."""
    moved = attrs.evolve(ROW, applied_seq=8)
    assert pace_summary(TOLD, moved, now_us=NOW_US + later_us) == expected


@pytest.mark.parametrize(
    ("back_us", "expected"),
    [
        (PUBLISH_EVERY_US, Wait(NOW_US + PUBLISH_EVERY_US)),
        (PUBLISH_EVERY_US + 1, Publish()),
        (3_600 * PUBLISH_EVERY_US, Publish()),
    ],
)
def test_a_clock_that_was_set_back_silences_nobody(back_us: int, expected: object) -> None:
    """Whatever it was set back by: nobody waits for longer than two of the throttle's seconds."""
    moved = attrs.evolve(ROW, applied_seq=8)
    assert pace_summary(TOLD, moved, now_us=NOW_US - back_us) == expected


@pytest.mark.parametrize("topic_class", ["user_runs", "org_runs"])
def test_the_payload_fits_its_class(topic_class: str) -> None:
    """The longest name and title are far below the class's maximum; every field comes back."""
    widest = attrs.evolve(ROW, name="n" * 200, title="\U0001f600" * TITLE_CHARACTERS_MAX)
    payload = encode_summary(topic_class, widest)
    assert len(payload) < 2_048
    assert kinds.decode_payload(SUMMARY_KIND, payload) == {
        "run_id": "run_a", "name": widest.name, "state": "RUN_STATE_RUNNING", "head_seq": "7",
        "title": widest.title, "withdrawn": False,
    }  # fmt: skip
