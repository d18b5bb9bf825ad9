"""How connections ended: with a code that the protocol has, announced, and for a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from chaos.checks.violations import Violation
from khala_contracts import reason_codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.transcripts import CloseLine

__all__ = ["FaultWindow", "check_closes"]

# What a client says when it leaves by itself.
NORMAL_CLOSE: Final = 1000
# No close frame came: the peer died, or the network did.
LOST: Final = 1006
# From here on a client must not come back before something has changed (SPEC section 3).
PERMANENT_FROM: Final = 4500
# Of a stream that cannot be read any more an error may come too late; the code is said all the same.
_FRAMING_CODES: Final = frozenset({1002, 1007, 1009})
_DRAINING: Final = reason_codes.DRAINING.close_code
_ROWS: Final = {row.name: row for row in reason_codes.REGISTRY.values() if row.close_code is not None}
_CODES: Final = frozenset(row.close_code for row in _ROWS.values())


@attrs.frozen
class FaultWindow:
    """When somebody did harm, so that connections may be lost; Unix times.

    Attributes:
        sources: Whom it concerned; empty: everybody.
    """

    begin_s: float
    end_s: float
    sources: frozenset[str] = frozenset()

    def explains(self, close: CloseLine) -> bool:
        """Whether this connection may have been lost by it."""
        return self.begin_s <= close.at_s <= self.end_s and (not self.sources or close.client in self.sources)


def check_closes(closes: Iterable[CloseLine], *, faults: Sequence[FaultWindow] = ()) -> list[Violation]:
    """Judge the ends of connections.

    Rules: ``unknown_close``: a code that no server of ours sends; ``unannounced_close``: neither error
    nor go_away before it; ``wrong_close``: the error before it belongs to another code;
    ``unexplained_close``: lost without a close frame while nobody did harm; ``returned``: the client came
    back by itself after a code that says not to.
    """
    violations: list[Violation] = []
    for close in closes:
        found = _judge(close, faults)
        if found is not None:
            rule, detail = found
            text = f"{close.connection}: {detail}"
            violations.append(Violation(rule, close.client, "", 0, text))
    return violations


def _judge(close: CloseLine, faults: Sequence[FaultWindow]) -> tuple[str, str] | None:
    if close.is_by_client:
        return None
    if close.code == LOST:
        if any(fault.explains(close) for fault in faults):
            return None
        return "unexplained_close", f"lost at {close.at_s:.3f}, and nobody did harm"
    if close.code not in _CODES:
        return "unknown_close", f"code {close.code}"
    if close.error is not None:
        row = _ROWS.get(close.error)
        if row is None or row.close_code != close.code:
            return "wrong_close", f"code {close.code} after error {close.error}"
    elif not (close.code in _FRAMING_CODES or (close.has_go_away and close.code == _DRAINING)):
        return "unannounced_close", f"code {close.code} after no error"
    if close.is_resumed and close.code >= PERMANENT_FROM:
        return "returned", f"after code {close.code}"
    return None
