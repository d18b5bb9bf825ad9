"""The blocking Khala: each call is one call of the asyncio front, made in the loop's thread."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Self, TypeVar

from khala_client.asyncio import Khala as _AsyncKhala
from khala_client.blocking.portal import LoopThread
from khala_client.settings import Settings, load_settings

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import TracebackType

    from khala_client.asyncio import MintedToken
    from khala_client.asyncio import Run as _AsyncRun
    from khala_client.asyncio import Subscription as _AsyncSubscription
    from khala_client.core.cursor import Cursor, FromWord
    from khala_client.events import Event
    from khala_client.notices import Notice
    from khala_client.outgoing import OutgoingEvent
    from khala_client.resources import Ack, RunInfo
    from khala_client.store import Store

__all__ = ["Khala", "Run", "Subscription"]

_Held = TypeVar("_Held")
_NO_ATTRIBUTES: Final[Mapping[str, str]] = {}


class _NotTaken(Exception):
    """The block was left well, but the event given last never reached its user."""


class Khala:
    """Everything a script does with one Khala, as one principal on one device."""

    def __init__(self, settings: Settings, *, ssl_context: ssl.SSLContext | None = None) -> None:
        """Prepare; ``with`` starts the thread, and the first call connects."""
        self._settings = settings
        self._ssl_context = ssl_context
        self._exits: ExitStack | None = None
        self._thread: LoopThread
        self._khala: _AsyncKhala

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, profile: Path | str | None = None) -> Self:
        """Take URL and credentials from KHALA_* (see khala_client.settings), or from ``profile``.

        Raises:
            SettingsRefused, ProfileRefused: they do not say where to connect and as whom.
        """
        return cls(load_settings(os.environ if environ is None else environ, profile=profile))

    def __enter__(self) -> Self:
        """Open; raises StoreRefused, StoreFailed, ProfileRefused."""
        with ExitStack() as stack:
            self._thread = stack.enter_context(LoopThread.open())
            self._khala = stack.enter_context(
                _hold(self._thread, _AsyncKhala(self._settings, ssl_context=self._ssl_context))
            )
            self._exits = stack.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection, everything else that is open, and the thread."""
        assert self._exits is not None
        self._exits.__exit__(exc_type, exc, traceback)

    @property
    def namespace(self) -> str:
        """Whose cursors the store keeps: this principal on this device."""
        return self._khala.namespace

    @contextmanager
    def subscribe(
        self,
        topic: str,
        *,
        after: Cursor | int | FromWord | Literal["saved"] = "saved",
        store: Store | None = None,
        history_by_pages: bool = False,
        on_notice: Callable[[Notice], None] | None = None,
    ) -> Iterator[Subscription]:
        """Follow a topic; see ``khala_client.Khala.subscribe``. ``on_notice`` is called in the loop's thread."""
        following = self._khala.subscribe(
            topic, after=after, store=store, history_by_pages=history_by_pages, on_notice=on_notice
        )
        try:
            with _hold(self._thread, following) as followed:
                subscription = Subscription(self._thread, followed)
                yield subscription
                if subscription.has_untaken:
                    raise _NotTaken
        except _NotTaken:
            return

    @contextmanager
    def run(
        self,
        *,
        name: str = "",
        agent: str = "",
        source: str = "",
        attributes: Mapping[str, str] = _NO_ATTRIBUTES,
        org_id: str = "",
        key: str = "",
    ) -> Iterator[Run]:
        """Start a run; leaving the block ends it; see ``khala_client.Khala.run``."""
        running = self._khala.run(
            name=name, agent=agent, source=source, attributes=attributes, org_id=org_id, key=key
        )
        with _hold(self._thread, running) as run:
            yield Run(self._thread, run)

    @contextmanager
    def attach_run(self, run_id: str) -> Iterator[Run]:
        """Append to a run that exists; see ``khala_client.Khala.attach_run``."""
        with _hold(self._thread, self._khala.attach_run(run_id)) as run:
            yield Run(self._thread, run)

    def publish(
        self, topic: str, kind: str, data: Mapping[str, object] | None = None, /, **fields: object
    ) -> Ack:
        """Append one event to an app topic; see ``khala_client.Khala.publish``."""
        return self._thread.call(partial(self._khala.publish, topic, kind, data, **fields))

    def mint(self, *, user_id: str, device_id: str, topics: Sequence[str], ttl_s: int = 0) -> MintedToken:
        """Mint a token for a user of your own application; see ``khala_client.Khala.mint``."""
        return self._thread.call(
            partial(self._khala.mint, user_id=user_id, device_id=device_id, topics=topics, ttl_s=ttl_s)
        )


class Run:
    """An open run; see ``khala_client.Run``."""

    def __init__(self, thread: LoopThread, run: _AsyncRun) -> None:
        self._thread = thread
        self._run = run

    @property
    def id(self) -> str:
        """The run's id, run_..."""
        return self._run.id

    @property
    def topic(self) -> str:
        """The topic of its events."""
        return self._run.topic

    @property
    def info(self) -> RunInfo:
        """What was known of the run last."""
        return self._run.info

    @property
    def last_ack(self) -> Ack | None:
        """The newest ack; everything handed over before it is durable."""
        return self._run.last_ack

    def emit(self, kind: str, data: Mapping[str, object] | None = None, /, **fields: object) -> Ack:
        """Append one event and return its ack. Interrupted: the event goes on its way."""
        return self._thread.call(partial(self._run.emit, kind, data, **fields))

    def send(self, kind: str, data: Mapping[str, object], *, key: str = "") -> None:
        """Hand over one event; return as soon as there is room for it."""
        self._thread.call(partial(self._run.send, kind, data, key=key))

    def send_event(self, event: OutgoingEvent) -> None:
        """Hand over an encoded event; see ``send``."""
        self._thread.call(partial(self._run.send_event, event))

    def flush(self) -> Ack | None:
        """Wait until everything handed over so far is durable; return the newest ack."""
        return self._thread.call(self._run.flush)

    def finish(
        self, state: str = "succeeded", *, reason: str = "", exit_status: int | None = None, result: str = ""
    ) -> None:
        """Flush, then end the run as succeeded, failed or cancelled; once."""
        self._thread.call(
            partial(self._run.finish, state, reason=reason, exit_status=exit_status, result=result)
        )


class Subscription:
    """A followed topic as an iterator of events, for one thread at a time."""

    def __init__(self, thread: LoopThread, subscription: _AsyncSubscription) -> None:
        self._thread = thread
        self._subscription = subscription
        self._untaken: list[Event] = []
        self._cursor_before: Cursor | None = None

    @property
    def topic(self) -> str:
        """What is followed."""
        return self._subscription.topic

    @property
    def cursor(self) -> Cursor | None:
        """Position after the event that was given last; None before the topic has answered."""
        return self._cursor_before if self._untaken else self._subscription.cursor

    @property
    def is_live(self) -> bool:
        """True once everything that was committed at the subscription was given."""
        return self._subscription.is_live

    @property
    def has_untaken(self) -> bool:
        """True if an event arrived in the very moment in which ``next`` was interrupted."""
        return bool(self._untaken)

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Event:
        """Return the next event; wait for it as long as it takes.

        Raises:
            StaleCursor, ReauthRequired, UpgradeRequired, Forbidden, KhalaError: it is over.
            StoreConflict, StoreFailed: what was processed could not be kept.
        """
        if self._untaken:
            return self._untaken.pop()
        self._cursor_before = self._subscription.cursor
        return self._thread.call(self._subscription.__anext__, undo=self._untaken.append)


@contextmanager
def _hold(thread: LoopThread, manager: AbstractAsyncContextManager[_Held]) -> Iterator[_Held]:
    """Enter and leave ``manager`` in the loop's thread; the block's exception is told to it."""

    def leave_because_of(error: BaseException) -> bool | None:
        return thread.call(partial(manager.__aexit__, type(error), error, error.__traceback__))

    # Interrupted at the moment of entering: nobody else would leave.
    held = thread.call(manager.__aenter__, undo=lambda _held: leave_because_of(KeyboardInterrupt()))
    try:
        yield held
    except BaseException as error:  # noqa: ASYNC103 - raised unless the manager has dealt with it; nothing here is async
        if not leave_because_of(error):
            raise
    else:
        thread.call(partial(manager.__aexit__, None, None, None))
