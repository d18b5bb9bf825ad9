"""Appending to one run: events gather while a request is on its way, and go in batches.

    async with khala.run(name="fix-1867") as run:
        ack = await run.emit("thought", text="hi")     # waits until it is durable
        await run.send("output", {"text": "..."})      # waits only for room; errors come later
        await run.flush()                              # waits until everything sent is durable

Order is kept: what was handed over first is committed first. One sender task per run is the only
retry owner: a batch is repeated, with the same key and the same bytes, until it is acknowledged,
refused, or PATIENCE_S have passed. Events with keys of their own go as a keyed stream, so that the
same recording can be appended again without repeating anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel
import attrs

from khala_client.core.batching import BatchLimits, OutgoingQueue
from khala_client.errors import KhalaError, Unavailable
from khala_client.outgoing import OutgoingEvent
from khala_client.ring.requests import new_key
from khala_client.ring.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from khala_client.core.backoff import Rng
    from khala_client.http import RuntimeClient
    from khala_client.resources import Ack, RunInfo

__all__ = ["PATIENCE_S", "Run"]

# How long a batch is repeated before its emitters are told. Longer: they wait on a dead server.
# Shorter: a restart of the server fails runs that would have gone on.
PATIENCE_S: Final = 300.0
# Refusals that are about the content of one event: the others of its batch are tried by themselves.
_CONTENT_CODES: Final = frozenset(
    {"invalid_argument", "kind_unknown", "payload_too_large", "malformed_message"}
)


@attrs.define(eq=False)
class _Pending:
    """One event on its way; ``settled`` is set when ack or error is."""

    event: OutgoingEvent
    is_awaited: bool
    settled: anyio.Event = attrs.field(factory=anyio.Event)
    ack: Ack | None = None
    error: KhalaError | None = None

    @property
    def size_bytes(self) -> int:
        """See OutgoingEvent."""
        return self.event.size_bytes

    def give_key(self) -> None:
        """Name the event if it has no name yet; the name stays for every further attempt."""
        if not self.event.key:
            self.event = attrs.evolve(self.event, key=new_key())


class Run:
    """An open run. Made by Khala.run and Khala.attach_run."""

    def __init__(
        self, info: RunInfo, runtime: RuntimeClient, *, rng: Rng, limits: BatchLimits | None = None
    ) -> None:
        self.info = info
        self._runtime = runtime
        self._rng = rng
        self._queue: OutgoingQueue[_Pending] = OutgoingQueue(limits)
        self._in_flight: tuple[_Pending, ...] = ()
        self._changed = anyio.Event()
        self._last: _Pending | None = None
        self._failure: KhalaError | None = None
        self._last_ack: Ack | None = None
        self._is_abandoned_for: KhalaError | None = None
        self._is_finished = info.is_finished

    @property
    def id(self) -> str:
        """The run's id, run_..."""
        return self.info.run_id

    @property
    def topic(self) -> str:
        """The topic of its events."""
        return self.info.topic

    @property
    def last_ack(self) -> Ack | None:
        """The newest ack; everything handed over before it is durable."""
        return self._last_ack

    # -- handing over --------------------------------------------------------------------------

    async def emit(self, kind: str, data: Mapping[str, object] | None = None, /, **fields: object) -> Ack:
        """Append one event and return its ack: from then on it is durable.

        Args:
            kind: A kind of the run_events class, for example ``thought``.
            data: The payload as a mapping; or give its fields by keyword.
            **fields: Fields of the payload.

        Raises:
            KhalaError: refused; of what was emitted only this event is concerned.
            Unavailable: not acknowledged in PATIENCE_S; it may still have been appended.

        Cancellation: the caller only stops waiting; the event goes on its way.
        """
        pending = await self._hand_over(OutgoingEvent.of(kind, {**(data or {}), **fields}), is_awaited=True)
        # No deadline: the sender settles every event within PATIENCE_S of taking it up.
        await pending.settled.wait()
        if pending.error is not None:
            raise pending.error
        assert pending.ack is not None
        return pending.ack

    async def send(self, kind: str, data: Mapping[str, object], *, key: str = "") -> None:
        """Hand over one event; return as soon as there is room for it.

        Args:
            kind: See emit.
            data: See emit.
            key: A name for this event that is the same whenever it is appended again; "" lets the
                batch have one.

        Raises:
            KhalaError: this event is malformed, or an earlier one that nobody waited for was refused.
        """
        await self.send_event(OutgoingEvent.of(kind, data, key=key))

    async def send_event(self, event: OutgoingEvent) -> None:
        """Hand over an encoded event; see send."""
        self._raise_failure()
        await self._hand_over(event, is_awaited=False)

    async def flush(self) -> Ack | None:
        """Wait until everything handed over so far is durable; return the newest ack.

        Raises:
            KhalaError: an event that nobody waited for was refused.
        """
        if self._last is not None:
            # No deadline: see emit.
            await self._last.settled.wait()
        self._raise_failure()
        return self._last_ack

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _hand_over(self, event: OutgoingEvent, *, is_awaited: bool) -> _Pending:
        await anyio.lowlevel.checkpoint()
        pending = _Pending(event, is_awaited)
        while self._is_abandoned_for is None and not self._queue.has_room(pending):
            # No deadline: a full queue empties, or is settled with an error, within PATIENCE_S.
            await self._changed.wait()
        if self._is_abandoned_for is not None:
            raise self._is_abandoned_for
        self._queue.push(pending)
        self._last = pending
        self._wake()
        return pending

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # -- ending ----------------------------------------------------------------------------------

    async def finish(
        self, state: str = "succeeded", *, reason: str = "", exit_status: int | None = None, result: str = ""
    ) -> None:
        """Flush, then end the run as succeeded, failed or cancelled; once.

        Raises:
            KhalaError: as flush, or ``invalid_transition``.
            Unavailable: not answered in PATIENCE_S.
        """
        if self._is_finished:
            return
        if state == "succeeded":
            await self.flush()
        elif self._last is not None:
            await self._last.settled.wait()
        await self._transition(state, reason=reason, exit_status=exit_status, result=result)

    async def _transition(self, state: str, *, reason: str, exit_status: int | None, result: str) -> None:
        key = new_key()
        retry = Retry(self._rng, patience_s=PATIENCE_S)
        while not self._is_finished:
            try:
                self.info, self._last_ack = await self._runtime.transition_run(
                    self.id, state, idempotency_key=key, reason=reason, exit_status=exit_status, result=result
                )
            except Unavailable as error:
                await retry.wait_or_raise(error)
            else:
                self._is_finished = True

    # -- the sender ------------------------------------------------------------------------------

    async def run_sender(self) -> None:
        """Append what is handed over, until cancelled."""
        while True:
            batch = self._queue.take_batch()
            if not batch:
                # No deadline: waits for the application. Leaving the run cancels this task.
                await self._changed.wait()
                continue
            self._wake()
            self._in_flight = batch
            await self._append_settled(batch)
            self._in_flight = ()

    def abandon(self, error: KhalaError) -> None:
        """Take no more events, and settle with ``error`` what is on its way: nobody sends it any more."""
        self._is_abandoned_for = error
        self._refuse(self._in_flight, error)
        while batch := self._queue.take_batch():
            self._refuse(batch, error)
        self._wake()

    async def _append_settled(self, batch: Sequence[_Pending]) -> None:
        try:
            acks = await self._append(batch)
        except KhalaError as error:
            if error.code in _CONTENT_CODES and len(batch) > 1:
                for pending in batch:
                    await self._append_settled((pending,))
                return
            self._refuse(batch, error)
            return
        for pending, ack in zip(batch, acks, strict=True):
            pending.ack = self._last_ack = ack
            pending.settled.set()

    def _refuse(self, batch: Sequence[_Pending], error: KhalaError) -> None:
        for pending in batch:
            if pending.settled.is_set():
                continue
            pending.error = error
            pending.settled.set()
            if not pending.is_awaited and self._failure is None:
                self._failure = error

    async def _append(self, batch: Sequence[_Pending]) -> tuple[Ack, ...]:
        if any(pending.event.key for pending in batch):
            for pending in batch:
                pending.give_key()
            return await self._append_keyed([pending.event for pending in batch])
        key = new_key()
        retry = Retry(self._rng, patience_s=PATIENCE_S)
        events = [pending.event for pending in batch]
        while True:
            try:
                return await self._runtime.append(self.id, events, idempotency_key=key)
            except Unavailable as error:
                await retry.wait_or_raise(error)

    async def _append_keyed(self, events: list[OutgoingEvent]) -> tuple[Ack, ...]:
        retry = Retry(self._rng, patience_s=PATIENCE_S)
        while True:
            try:
                outcome = await self._runtime.append_keyed(self.id, events)
                if outcome.error is None:
                    return outcome.acks
                raise outcome.error
            except Unavailable as error:
                await retry.wait_or_raise(error)
