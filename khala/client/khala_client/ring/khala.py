"""The client of an application: follow topics, append to runs, publish to app topics.

Holds the tasks that outlive single calls (the one connection, the senders of open runs, the calls of
stores) in one group; leaving ``async with Khala...`` ends them. A failure of theirs reaches whoever
waits for them; an exception of the block comes out as itself, not in a group.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self

import anyio
import anyio.to_thread

from khala_client.core.protocol import Identity
from khala_client.credentials import Credentials, KeyCredentials
from khala_client.errors import KhalaError
from khala_client.http import ControlClient, RuntimeClient, history_path
from khala_client.http_calls import open_http
from khala_client.ring.link import SyncLink
from khala_client.ring.paging import HistoryPages
from khala_client.ring.profile_credentials import ProfileCredentials
from khala_client.ring.requests import MintedToken, Requests, new_key, parse_topic_argument
from khala_client.ring.run import Run
from khala_client.ring.subscription import Subscription
from khala_client.settings import Settings, load_settings
from khala_client.store import MemoryStore, SqliteStore, Store
from khala_client.version import CLIENT_BUILD_ID

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import httpx
    from anyio.abc import TaskGroup

    from khala_client.core.backoff import Rng
    from khala_client.core.cursor import After, Cursor, FromWord
    from khala_client.notices import Notice
    from khala_client.resources import Ack, RunInfo
    from khala_client.ring.ports import EventLoop
    from khala_contracts.topics import TopicName

__all__ = ["Khala"]

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
    _loop: ClassVar[EventLoop]

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
        self._tasks: TaskGroup
        self._link: SyncLink
        self._requests: Requests
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
            sync_url = self._settings.sync_url
            self._requests = Requests(self.control, self.runtime, rng=self._rng, sync_url=sync_url)
            self._store = self._open_store(stack)
            self._link = SyncLink(
                sync_url,
                loop=self._loop,
                mint=self._mint_own,
                identity=Identity(self._credentials.device_id, CLIENT_BUILD_ID),
                rng=self._rng,
                ssl_context=self._ssl_context,
            )
            async with self._loop.hold_tasks() as self._tasks:
                self._tasks.start_soon(self._link.run)
                yield

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

    async def _mint_own(self, topics: tuple[TopicName, ...]) -> str:
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
                of raising StaleCursor. Topics of runs and apps only.
            on_notice: Called with news about the stream; must return at once.

        Raises:
            KhalaError: ``topic_invalid``; while iterating: StaleCursor, ReauthRequired,
                UpgradeRequired, Forbidden.
            ValueError: this client follows the topic already.
            StoreConflict: somebody else follows it with this store.
        """
        parsed = parse_topic_argument(topic)
        target = store if store is not None else self._store if after == "saved" else MemoryStore()
        with target.claim(parsed):
            start, is_stored = await self._resolve(parsed, after, target)
            subscription = Subscription(
                parsed,
                start,
                is_stored=is_stored,
                tasks=self._tasks,
                link=self._link,
                store=target,
                pages=HistoryPages(self.runtime, parsed, rng=self._rng)
                if history_by_pages and history_path(parsed)
                else None,
                on_notice=on_notice,
            )
            subscription.start()
            try:
                yield subscription
            except BaseException:
                # An exception is already on its way to the caller; a second one would hide it.
                with suppress(Exception):
                    await self._stop(subscription, is_clean=False)  # noqa: ASYNC102 - shields itself
                raise
            await self._stop(subscription, is_clean=True)

    async def _stop(self, subscription: Subscription, *, is_clean: bool) -> None:
        await self._loop.finish(partial(subscription.stop, is_clean=is_clean), within_s=_STOP_TIMEOUT_S)

    async def _resolve(
        self, topic: TopicName, after: Cursor | int | FromWord | Literal["saved"], store: Store
    ) -> tuple[After, bool]:
        if after == "saved":
            if store.is_blocking:
                saved = await anyio.to_thread.run_sync(store.load_cursor, topic)
            else:
                saved = store.load_cursor(topic)
            return (saved, True) if saved is not None else ("beginning", False)
        if isinstance(after, int):
            return (await self._requests.find_cursor(topic, after) if after > 0 else "beginning"), False
        return after, False

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
                waited for was refused, and the run has failed.
        """
        info = await self._requests.start_run(
            key=key or new_key(), name=name, agent=agent, source=source, attributes=attributes, org_id=org_id
        )
        async with self._open_run(info) as run:
            try:
                yield run
                await run.finish()
            except Exception as error:
                await self._end_run(run, "failed", type(error).__name__)
                raise
            except BaseException:
                await self._end_run(run, "cancelled", "")  # noqa: ASYNC102 - shields itself
                raise

    @asynccontextmanager
    async def attach_run(self, run_id: str) -> AsyncIterator[Run]:
        """Append to a run that exists; leaving the block flushes, and does not end the run.

        With an exception, too; then for five seconds at most.

        Raises:
            KhalaError: ``not_found``.
        """
        async with self._open_run(await self._requests.find_run(run_id)) as run:
            try:
                yield run
            except BaseException:
                await self._end_in_time(run.flush)  # noqa: ASYNC102 - shields itself
                raise
            await run.flush()

    @asynccontextmanager
    async def _open_run(self, info: RunInfo) -> AsyncIterator[Run]:
        run = Run(info, self.runtime, rng=self._rng)
        scope = anyio.CancelScope()

        async def send_until_left() -> None:
            try:
                with scope:
                    await run.run_sender()
            finally:
                run.abandon(
                    KhalaError("unavailable", "the run was left before this was appended", retryable=True)
                )

        self._tasks.start_soon(send_until_left)
        try:
            yield run
        finally:
            scope.cancel()

    async def _end_run(self, run: Run, state: str, reason: str) -> None:
        await self._end_in_time(partial(run.finish, state, reason=reason))

    async def _end_in_time(self, call: Callable[[], Awaitable[object]]) -> None:
        async def end() -> None:
            # An exception is already on its way to the caller; a second one would hide it.
            with suppress(KhalaError):
                await call()

        await self._loop.finish(end, within_s=_ENDING_TIMEOUT_S)

    async def publish(
        self, topic: str, kind: str, data: Mapping[str, object] | None = None, /, **fields: object
    ) -> Ack:
        """Append one event to an app topic and return its ack: from then on it is durable.

        Args:
            topic: ``app:{org_id}:{name}``; it begins with its first event.
            kind: A kind of the app class, for example ``custom``.
            data: The payload as a mapping; or give its fields by keyword.
            **fields: Fields of the payload.

        Raises:
            KhalaError: refused; ``not_found`` without the publish right.
            Unavailable: not acknowledged in five minutes; it may still have been appended.

        Cancellation: the request is dropped; whether it was appended is unknown.
        """
        return await self._requests.publish(topic, kind, {**(data or {}), **fields}, key=new_key())

    # -- tokens ----------------------------------------------------------------------------------------

    async def mint(
        self, *, user_id: str, device_id: str, topics: Sequence[str], ttl_s: int = 0
    ) -> MintedToken:
        """Mint the token of one connection for a user of your own application; needs the mint right.

        Args:
            user_id: Your own name of the user; revoking it ends all that was minted for it.
            device_id: The browser or device, ``dev_...``, made and kept there.
            topics: 1..256 topics that this user may read, and nothing else.
            ttl_s: 60..900; 0 takes the server's default.

        Raises:
            Forbidden: the key may not read one of the topics, or may not mint.
        """
        return await self._requests.mint(user_id, device_id, topics, ttl_s=ttl_s)
