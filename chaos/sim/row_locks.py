"""Row locks as PostgreSQL's: shared or exclusive, waiting with a time-out, deadlocks found.

Used by database_session.py alone. Whoever waits for a row is never overtaken there, so a taker-over of the
generation is not starved by those who share it. Locks are given back all at once, when their transaction ends.

Invariants:
    a row has one exclusive holder, or any number that share it
    no transaction waits for a row that it could have now
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs
import trio

from khala_service.errors import SerializationTrouble, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Holder", "RowKey", "RowLocks"]

# Table and primary key; the order of locking is the caller's.
RowKey = tuple[str, ...]

DEADLOCK_DETECTED = "40P01"


class Holder:
    """One transaction, as far as locks are concerned."""

    def __init__(self) -> None:
        # Rows held, in the order of locking; True: shared.
        self.held: dict[RowKey, bool] = {}
        self.waits_for: RowKey | None = None


@attrs.define(eq=False)
class _Waiter:
    holder: Holder
    is_shared: bool
    woken: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class _Row:
    holders: dict[Holder, bool] = attrs.field(factory=dict)
    waiters: deque[_Waiter] = attrs.field(factory=deque)

    def admits(self, holder: Holder, *, is_shared: bool) -> bool:
        """Whether the lock is compatible with those of the others."""
        return all(
            other is holder or (is_shared and other_is_shared)
            for other, other_is_shared in self.holders.items()
        )


class RowLocks:
    """The locks of one database."""

    def __init__(self) -> None:
        self._rows: dict[RowKey, _Row] = {}
        # How often somebody met a deadlock.
        self.deadlocks = 0

    async def lock(self, holder: Holder, key: RowKey, *, timeout_s: float, is_shared: bool = False) -> None:
        """Lock a row for a transaction; at once, without a checkpoint, if it is free.

        Raises:
            Unavailable: ``database_lock_timeout``.
            SerializationTrouble: Waiting would close a circle of waiters.
        Cancellation: safe; the row is not locked.
        """
        known = holder.held.get(key)
        if known is not None and (is_shared or not known):
            return
        row = self._rows.setdefault(key, _Row())
        if not row.waiters and row.admits(holder, is_shared=is_shared):
            self._grant(row, holder, key, is_shared=is_shared)
            return
        if self._closes_circle(holder, key):
            self.deadlocks += 1
            raise SerializationTrouble(DEADLOCK_DETECTED)
        waiter = _Waiter(holder, is_shared)
        row.waiters.append(waiter)
        holder.waits_for = key
        try:
            with trio.move_on_after(timeout_s):
                await waiter.woken.wait()
        finally:
            holder.waits_for = None
            if not waiter.woken.is_set():
                row.waiters.remove(waiter)
                self._wake(row, key)
        if not waiter.woken.is_set():
            raise Unavailable("database_lock_timeout")

    def release_all(self, holder: Holder) -> None:
        """Give back every lock of a transaction; idempotent."""
        held, holder.held = holder.held, {}
        for key in held:
            row = self._rows[key]
            del row.holders[holder]
            self._wake(row, key)

    def holders(self, key: RowKey) -> list[Holder]:
        """Return who holds a row."""
        row = self._rows.get(key)
        return [] if row is None else list(row.holders)

    def _wake(self, row: _Row, key: RowKey) -> None:
        while row.waiters and row.admits(row.waiters[0].holder, is_shared=row.waiters[0].is_shared):
            waiter = row.waiters.popleft()
            self._grant(row, waiter.holder, key, is_shared=waiter.is_shared)
            waiter.woken.set()
        if not row.waiters and not row.holders:
            self._rows.pop(key, None)

    @staticmethod
    def _grant(row: _Row, holder: Holder, key: RowKey, *, is_shared: bool) -> None:
        row.holders[holder] = holder.held[key] = is_shared

    def _closes_circle(self, holder: Holder, key: RowKey) -> bool:
        """Whether somebody before ``holder`` at this row waits, in the end, for ``holder``."""
        seen: set[Holder] = set()
        pending = list(self._before(holder, key))
        while pending:
            other = pending.pop()
            if other is holder:
                return True
            if other in seen:
                continue
            seen.add(other)
            if other.waits_for is not None:
                pending += self._before(other, other.waits_for)
        return False

    def _before(self, holder: Holder, key: RowKey) -> Iterator[Holder]:
        row = self._rows[key]
        yield from (other for other in row.holders if other is not holder)
        for waiter in row.waiters:
            if waiter.holder is holder:
                return
            yield waiter.holder
