"""``khala bench revoke``: its arithmetic, and what it tells the system that drops every push."""

from __future__ import annotations

import tomllib

import pytest

from chaos.load.revoke import RevokeSetup, _config, _percentile


@pytest.mark.parametrize(
    ("count", "share", "place"),
    [(1, 0.5, 1), (10, 0.5, 5), (50, 0.99, 50), (100, 0.99, 99), (101, 0.99, 100)],
)
def test_percentiles_are_members_of_the_sample(count: int, share: float, place: int) -> None:
    """The smallest value that at least this share does not exceed; of few values the largest."""
    ascending = [float(number) for number in range(1, count + 1)]
    assert _percentile(ascending, share) == place


def test_the_form_without_pushes_differs_in_nothing_else() -> None:
    """Every hint is lost, no record is; polls are as in the other form."""
    setup = RevokeSetup()
    pushed, dropped = (tomllib.loads(_config(setup, is_dropped=is_dropped)) for is_dropped in (False, True))
    assert dropped.pop("fanout") == {
        "driver": "faulty",
        "options": {"inner": "postgres", "hint_loss": "1"},
    }
    assert pushed == dropped == {"node": {"limits": {"revocation_poll_interval_s": 5.0}}}
