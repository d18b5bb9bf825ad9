"""New events as columns: what a command brings before the authority has given it positions.

Pure. Columns rather than objects: a batch is handed to PostgreSQL as one array per column, and at
15,000 events/s an object per event would cost more than the rest of the decision.
"""

from __future__ import annotations

import attrs

__all__ = ["EventColumns"]


@attrs.frozen
class EventColumns:
    """Events of one topic in their order.

    Invariant: all columns have the same length, at least 1.
    """

    event_ids: tuple[str, ...]
    kinds: tuple[str, ...]
    payloads: tuple[bytes, ...] = attrs.field(repr=False)
    schema_versions: tuple[int, ...]
    # Sum of the payload lengths.
    size_bytes: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        count = len(self.event_ids)
        if not count == len(self.kinds) == len(self.payloads) == len(self.schema_versions) or not count:
            message = "columns of different lengths, or no event"
            raise ValueError(message)
        object.__setattr__(self, "size_bytes", sum(map(len, self.payloads)))

    def __len__(self) -> int:
        return len(self.event_ids)
