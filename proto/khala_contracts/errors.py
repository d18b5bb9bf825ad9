"""The one exception of this package for bytes, text or values that break the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from khala_contracts.reason_codes import ReasonCode

__all__ = ["WireError"]


class WireError(Exception):
    """What came from outside does not follow the contract; nothing was changed by it.

    The peer is told ``reason`` and ``field``. ``detail`` is constant text per check and never
    quotes what was received, so it may be shown and logged.

    Attributes:
        reason: Row of the registry: what to answer with.
        detail: What is allowed, in a few words.
        field: Path of the field at fault, for example ``subscribe.topics[3].cursor.seq``; empty
            if the message as a whole is at fault.
        limit: Name and value of the limit that was exceeded; None if it is not one.
    """

    def __init__(
        self, reason: ReasonCode, detail: str, field: str = "", *, limit: tuple[str, int] | None = None
    ) -> None:
        super().__init__(f"{reason.name}: {field}: {detail}" if field else f"{reason.name}: {detail}")
        self.reason = reason
        self.detail = detail
        self.field = field
        self.limit = limit

    @property
    def reason_code(self) -> str:
        """Registry name of ``reason``."""
        return self.reason.name

    @property
    def details(self) -> dict[str, str]:
        """The ``details`` of an error message about this."""
        problem = {"problem": self.detail}
        if self.limit is not None:
            problem |= {"limit": self.limit[0], "max": str(self.limit[1])}
        return {"field": self.field, **problem} if self.field else problem
