"""What to do after a refusal or an ending. Pure; a table made from the registry of reason codes.

The range carries the rule where the registry has no row: 4000-4499 reconnect and resume, 4500-4999
do not. A code that this client does not know counts as ``internal`` and is not retried. Endings
without a code of ours (a reset, 1006, 1001 of a proxy) are trouble on the way: resume with backoff.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts.reason_codes import REGISTRY, Advice, ReasonCode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Advised", "NextStep", "advise_close", "advise_code"]

_RESUME_RANGE: Final = range(4000, 4500)
_STAY_AWAY_RANGE: Final = range(4500, 5000)


class NextStep(enum.Enum):
    """The five answers to an ending."""

    RESUME = "resume"
    """Reconnect with a fresh token and resume every topic after its cursor."""
    MINT = "mint"
    """As RESUME, but only once: if fresh authority ends the same way, sign in again."""
    REBOOTSTRAP = "rebootstrap"
    """This cursor is of no use any more; the others are."""
    UPGRADE = "upgrade"
    """Stop; a newer client is needed."""
    GIVE_UP = "give_up"
    """Stop; repeating it would be wrong."""


@attrs.frozen
class Advised:
    """What to do about one ending, and the registry name that it goes by.

    ``is_immediate`` is true where waiting first has no use; otherwise the backoff decides when.
    """

    code: str
    step: NextStep
    is_immediate: bool = False


_BY_ADVICE: Final[Mapping[Advice, tuple[NextStep, bool]]] = {
    Advice.RETRY_NOW: (NextStep.RESUME, True),
    Advice.RETRY_BACKOFF: (NextStep.RESUME, False),
    Advice.REAUTHENTICATE: (NextStep.MINT, True),
    Advice.REBOOTSTRAP: (NextStep.REBOOTSTRAP, False),
    Advice.UPGRADE: (NextStep.UPGRADE, False),
    Advice.GIVE_UP: (NextStep.GIVE_UP, False),
}


def _by_close_code() -> dict[int, ReasonCode]:
    # Several rows may share a close code (4500, 4502); they then share its range and, where no
    # error message named the row, the first one stands for them.
    rows: dict[int, ReasonCode] = {}
    for row in REGISTRY.values():
        if row.close_code is not None:
            rows.setdefault(row.close_code, row)
    return rows


_BY_CLOSE_CODE: Final[Mapping[int, ReasonCode]] = _by_close_code()


def advise_code(code: str) -> Advised:
    """Return what to do about a registry name, from an error message or an HTTP body."""
    row = REGISTRY.get(code)
    if row is None:
        return Advised("internal", NextStep.GIVE_UP)
    step, is_immediate = _BY_ADVICE[row.advice]
    return Advised(row.name, step, is_immediate)


def advise_close(close_code: int | None, *, error_code: str | None = None) -> Advised:
    """Return what to do after a connection ended.

    Args:
        close_code: Code of the close frame; None if there was none.
        error_code: Registry name of the error message that preceded it, if any. It says what
            happened; the range of ``close_code`` says whether to come back.
    """
    named = REGISTRY.get(error_code) if error_code is not None else None
    if close_code is not None and close_code in _RESUME_RANGE:
        row = named or _BY_CLOSE_CODE.get(close_code)
        if row is None:
            return Advised("unavailable", NextStep.RESUME)
        return Advised(row.name, NextStep.RESUME, row.advice in {Advice.RETRY_NOW, Advice.REAUTHENTICATE})
    if close_code is not None and (close_code in _STAY_AWAY_RANGE or close_code in _BY_CLOSE_CODE):
        row = named or _BY_CLOSE_CODE.get(close_code)
        advised = advise_code(row.name if row is not None else "")
        # An error that would be retryable elsewhere does not open a range that says "do not".
        return Advised(advised.code, NextStep.GIVE_UP) if advised.step is NextStep.RESUME else advised
    if named is not None:
        advised = advise_code(named.name)
        if advised.step in {NextStep.UPGRADE, NextStep.MINT}:
            return advised
    return Advised("unavailable", NextStep.RESUME)
