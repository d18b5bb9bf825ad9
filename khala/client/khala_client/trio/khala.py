"""The client of an application: follow topics, append to runs.

Holds the tasks that outlive single calls (the one connection, the senders of open runs) in one
nursery; leaving ``async with Khala...`` ends them. A failure of theirs reaches whoever waits for
them; an exception of the block comes out as itself, not in a group.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal, Self

import trio

from khala_client.core.cursor import After, Cursor, FromWord
from khala_client.core.protocol import Identity
from khala_client.credentials import Credentials, KeyCredentials
from khala_client.errors import KhalaError, error_for
from khala_client.http import ControlClient, RuntimeClient
from khala_client.http_calls import open_http
from khala_client.settings import Settings, load_settings
from khala_client.store import MemoryStore, SqliteStore, Store
from khala_client.trio.link import SyncLink
from khala_client.trio.paging import HistoryPages
from khala_client.trio.profile_credentials import ProfileCredentials
from khala_client.trio.retry import Retry
from khala_client.trio.run import Run, new_key
from khala_client.trio.subscription import Subscription
from khala_client.version import CLIENT_BUILD_ID
from khala_contracts.topics import Seq, TopicInvalid, TopicName, parse_topic

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    import httpx

    from khala_client.core.backoff import Rng
    from khala_client.notices import Notice
    from khala_client.resources import RunInfo

__all__ = ["Khala"]

# For a call that an application waits for before it can begin anything: long enough for a restart
# of a service, short enough that a wrong URL is noticed.
_START_PATIENCE_S: Final = 20.0
# Ending a run while an exception or a cancellation passes through must not hold it up for long.
_ENDING_TIMEOUT_S: Final = 5.0
# Committing what was processed: one transaction, and the wait for another process's.
_STOP_TIMEOUT_S: Final = 10.0
_NO_ATTRIBUTES: Final[Mapping[str, str]] = {}


class Khala:
    """Everything an application does with one Khala, as one principal on one device.

    Attributes:
        control: Sessions, keys and tokens over HTTP; usable inside the block.
        runtime: Runs, events and topics over HTTP; usable inside the block.
    """

    control: ControlClient
    runtime: RuntimeClient

    def __init__(
        self,
        settings: Settings,
        *,
        rng: Rng | None = None,
        wall_clock: Callable[[], float] = time.time,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare; ``async with`` connects nothing yet either: the first call does."""
        self._settings = settings
        self._rng = rng or random.SystemRandom()
        self._wall_clock = wall_clock
        self._ssl_context = ssl_context
        self._exits: AbstractAsyncContextManager[None] | None = None
        self._tasks: trio.Nursery
        self._link: SyncLink
        self._store: Store
        self._credentials: Credentials

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, profile: Path | str | None = None) -> Self:
        """Take URL and credentials from KHALA_* (see khala_client.settings), or from ``profile``.

        Raises:
            SettingsRefused, ProfileRefused: they do not say where to connect and as whom.
        """
        return cls(load_settings(os.environ if environ is None else environ, profile=profile))

    # -- lifetime --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open; raises StoreRefused, StoreFailed, ProfileRefused."""
        self._exits = self._open()
        await self._exits.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection and everything else that is open."""
        assert self._exits is not None
        await self._exits.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102 - each exit in there shields itself

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(open_http())
            self._credentials = self._open_credentials(http)
            self.control = ControlClient(self._settings.control_url, http, self._credentials)
            self.runtime = RuntimeClient(self._settings.runtime_url, http, self._credentials)
            self._store = self._open_store(stack)
            self._link = SyncLink(
                self._settings.sync_url,
                mint=self._mint,
                identity=Identity(self._credentials.device_id, CLIENT_BUILD_ID),
                rng=self._rng,
                ssl_context=self._ssl_context,
            )
            try:
                async with trio.open_nursery() as self._tasks:
                    self._tasks.start_soon(self._link.run)
                    yield
                    self._tasks.cancel_scope.cancel()
            except BaseExceptionGroup as group:
                # The tasks here end by being cancelled only. So a group of one is the block's own
                # exception, which its author expects as it was raised.
                if len(group.exceptions) == 1:
                    raise group.exceptions[0] from None
                raise

    def _open_credentials(self, http: httpx.AsyncClient) -> Credentials:
        settings = self._settings
        if settings.key is not None:
            return KeyCredentials(settings.key, device_id=settings.device_id)
        assert settings.profile is not None
        return ProfileCredentials(
            settings.profile,
            settings.profile.load(),
            control=ControlClient(settings.control_url, http, None),
            wall_clock=self._wall_clock,
        )

    def _open_store(self, stack: AsyncExitStack) -> Store:
        if self._settings.store_path is None:
            return MemoryStore()
        store = SqliteStore.open(self._settings.store_path, namespace=self._credentials.namespace)
        stack.callback(store.close)
        return store

    async def _mint(self, topics: tuple[TopicName, ...]) -> str:
        return (await self.control.mint_sync_token(topics)).token

    @property
    def namespace(self) -> str:
        """Whose cursors the store keeps: this principal on this device."""
        return self._credentials.namespace

    # -- following ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def subscribe(
        self,
        topic: str,
        *,
        after: Cursor | int | FromWord | Literal["saved"] = "saved",
        store: Store | None = None,
        history_by_pages: bool = False,
        on_notice: Callable[[Notice], None] | None = None,
    ) -> AsyncIterator[Subscription]:
        """Follow a topic, in order, without gap or repeat, across reconnects.

        Args:
            topic: A name of the registry, for example ``run:run_...:events``.
            after: ``saved``: where the store stands, else from the beginning. Otherwise a cursor, a
                seq, ``beginning``, ``earliest`` (the oldest retained) or ``now``; such a follower
                remembers nothing, unless it is given a store, which then starts anew.
            store: Instead of the client's own (for ``saved``) or none (otherwise).
            history_by_pages: Read what is no longer replayed from the log over HTTP first, instead
                of raising StaleCursor. Runs only.
            on_notice: Called with news about the stream; must return at once.

        Raises:
            KhalaError: ``topic_invalid``; while iterating: StaleCursor, ReauthRequired,
                UpgradeRequired, Forbidden.
            ValueError: this client follows the topic already.
            StoreConflict: somebody else follows it with this store.
        """
        parsed = _parse(topic)
        target = store if store is not None else self._store if after == "saved" else MemoryStore()
        with target.claim(parsed):
            start, is_stored = await self._resolve(parsed, after, target)
            run_id = _run_id(parsed)
            subscription = Subscription(
                parsed,
                start,
                is_stored=is_stored,
                link=self._link,
                store=target,
                pages=HistoryPages(self.runtime, run_id, rng=self._rng)
                if history_by_pages and run_id
                else None,
                on_notice=on_notice,
            )
            subscription.start()
            is_clean = False
            try:
                yield subscription
                is_clean = True
            finally:
                with trio.move_on_after(_STOP_TIMEOUT_S, shield=True):
                    await subscription.stop(is_clean=is_clean)

    async def _resolve(
        self, topic: TopicName, after: Cursor | int | FromWord | Literal["saved"], store: Store
    ) -> tuple[After, bool]:
        if after == "saved":
            if store.is_blocking:
                saved = await trio.to_thread.run_sync(store.load_cursor, topic)
            else:
                saved = store.load_cursor(topic)
            return (saved, True) if saved is not None else ("beginning", False)
        if isinstance(after, int):
            return (await self._cursor_at(topic, after) if after > 0 else "beginning"), False
        return after, False

    async def _cursor_at(self, topic: TopicName, seq: int) -> Cursor:
        # A bare seq gets the lineage of now, and of runs the chain of the log at that place: from
        # there on it is as good as a cursor that was kept.
        retry = Retry(self._rng, patience_s=_START_PATIENCE_S)
        info = await retry.attempt(lambda: self.runtime.get_topic(topic))
        run_id = _run_id(topic)
        if run_id is None or seq > info.head_seq:
            return Cursor(topic, Seq(seq), info.lineage)
        page = await retry.attempt(lambda: self.runtime.read_events(run_id, after_seq=seq, limit=1))
        return Cursor(topic, Seq(seq), page.cursor.lineage, page.chain_before)

    # -- appending -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def run(
        self,
        *,
        name: str = "",
        agent: str = "",
        source: str = "",
        attributes: Mapping[str, str] = _NO_ATTRIBUTES,
        org_id: str = "",
        key: str = "",
    ) -> AsyncIterator[Run]:
        """Start a run; leaving the block ends it as succeeded, failed or cancelled.

        Args:
            name: Unique per owner, or empty.
            agent: What runs, for example ``swe-agent``.
            source: Where it was recorded, if it was.
            attributes: At most 32 entries of 1 KiB in all.
            org_id: The org that it belongs to, if not to the caller alone.
            key: Idempotency key of the start; the same key is the same run.

        Raises:
            KhalaError: refused, for example ``name_taken``; while leaving: an event that nobody
                waited for was refused.
        """
        key = key or new_key()
        created = await Retry(self._rng, patience_s=_START_PATIENCE_S).attempt(
            lambda: self.runtime.create_run(
                idempotency_key=key,
                name=name,
                agent=agent,
                source=source,
                attributes=attributes,
                org_id=org_id,
            )
        )
        async with self._open_run(created.run) as run:
            try:
                yield run
            except Exception as error:
                with trio.move_on_after(_ENDING_TIMEOUT_S, shield=True):
                    await _end_run(run, "failed", type(error).__name__)
                raise
            except BaseException:
                with trio.move_on_after(_ENDING_TIMEOUT_S, shield=True):
                    await _end_run(run, "cancelled", "")
                raise
            await run.finish()

    @asynccontextmanager
    async def attach_run(self, run_id: str) -> AsyncIterator[Run]:
        """Append to a run that exists; leaving the block flushes, and does not end the run.

        Raises:
            KhalaError: ``not_found``.
        """
        info = await Retry(self._rng, patience_s=_START_PATIENCE_S).attempt(
            lambda: self.runtime.get_run(run_id)
        )
        async with self._open_run(info) as run:
            yield run
            await run.flush()

    @asynccontextmanager
    async def _open_run(self, info: RunInfo) -> AsyncIterator[Run]:
        run = Run(info, self.runtime, rng=self._rng)
        scope = trio.CancelScope()

        async def send_until_left() -> None:
            with scope:
                await run.run_sender()

        self._tasks.start_soon(send_until_left)
        try:
            yield run
        finally:
            scope.cancel()
            run.abandon(
                KhalaError("unavailable", "the run was left before this was appended", retryable=True)
            )


async def _end_run(run: Run, state: str, reason: str) -> None:
    # An exception is already on its way to the caller; a second one would hide it.
    with suppress(KhalaError):
        await run.finish(state, reason=reason)


def _parse(topic: str) -> TopicName:
    try:
        return parse_topic(topic).name
    except TopicInvalid as error:
        raise error_for("topic_invalid", details={"problem": error.detail}) from error


def _run_id(topic: TopicName) -> str | None:
    return parse_topic(topic).ids.get("run_id")
