from __future__ import annotations

import pytest

from khala_client.core.advice import Advised, NextStep, advise_close, advise_code
from khala_contracts.reason_codes import REGISTRY


@pytest.mark.parametrize("row", REGISTRY.values(), ids=lambda row: row.name)
def test_the_range_of_a_close_code_is_its_advice(row: object) -> None:
    """4000-4499 resume, 4500-4999 never do, for every row of the registry."""
    registered = REGISTRY[getattr(row, "name")]  # noqa: B009 - parametrised rows are untyped
    if registered.close_code is None:
        return
    advised = advise_close(registered.close_code, error_code=registered.name)
    assert advised.code == registered.name
    assert (advised.step is NextStep.RESUME) == (4000 <= registered.close_code < 4500)


@pytest.mark.parametrize(
    ("close_code", "error_code", "expected"),
    [
        (4000, "draining", Advised("draining", NextStep.RESUME)),
        (4002, None, Advised("heartbeat_timeout", NextStep.RESUME, is_immediate=True)),
        (4005, "token_expired", Advised("token_expired", NextStep.RESUME, is_immediate=True)),
        (4501, "reauth_required", Advised("reauth_required", NextStep.MINT, is_immediate=True)),
        (4502, "token_replayed", Advised("token_replayed", NextStep.MINT, is_immediate=True)),
        (4503, "forbidden", Advised("forbidden", NextStep.GIVE_UP)),
        (4504, "upgrade_required", Advised("upgrade_required", NextStep.UPGRADE)),
        (4504, None, Advised("upgrade_required", NextStep.UPGRADE)),
        (4499, None, Advised("unavailable", NextStep.RESUME)),
        (4499, "a_code_of_tomorrow", Advised("unavailable", NextStep.RESUME)),
        (4500, "a_code_of_tomorrow", Advised("protocol_error", NextStep.GIVE_UP)),
        (4999, None, Advised("internal", NextStep.GIVE_UP)),
        (4999, "unavailable", Advised("unavailable", NextStep.GIVE_UP)),
        (1009, None, Advised("message_too_large", NextStep.GIVE_UP)),
        (1000, None, Advised("unavailable", NextStep.RESUME)),
        (1001, None, Advised("unavailable", NextStep.RESUME)),
        (1012, None, Advised("unavailable", NextStep.RESUME)),
        (None, None, Advised("unavailable", NextStep.RESUME)),
        (None, "upgrade_required", Advised("upgrade_required", NextStep.UPGRADE)),
        (None, "forbidden", Advised("unavailable", NextStep.RESUME)),
    ],
)
def test_what_to_do_after_a_close(close_code: int | None, error_code: str | None, expected: Advised) -> None:
    """The error names what happened; the range says whether to come back."""
    assert advise_close(close_code, error_code=error_code) == expected


def test_an_unknown_code_is_internal_and_not_retried() -> None:
    """errors.proto: a reader that does not know a code treats it as internal, not retryable."""
    assert advise_code("a_code_of_tomorrow") == Advised("internal", NextStep.GIVE_UP)
    assert advise_code("stale_cursor.retention_expired").step is NextStep.REBOOTSTRAP
