"""Client of Khala: live event streams of agent runs, in order, resumable, verified.

    from khala_client import Khala                      # asyncio; khala_client.trio has the same API

    async with Khala.from_env() as khala:               # KHALA_URL, and KHALA_KEY or KHALA_PROFILE
        async with khala.run(name="fix-1867") as run:   # ended by leaving the block
            ack = await run.emit("thought", text="Look at the failing test first.")
        async with khala.subscribe(f"run:{run.id}:events", after="saved") as events:
            async for event in events:
                print(event.seq, event.kind, event.data)

Layers: ``core`` (sans-IO: apply rule, resume, backoff, advice, protocol) and values at the bottom;
store, http, profiles, recordings beside it; ``ring`` (tasks and waits, on either event loop) above;
on top the fronts: ``asyncio`` (the Khala of this module), ``trio``, and ``blocking`` for scripts.
"""

from __future__ import annotations

from khala_client.asyncio import Khala, MintedToken, Run, Subscription
from khala_client.core.cursor import Cursor, parse_after
from khala_client.core.verify import Broken, Verified, verify_frames
from khala_client.errors import (
    ChainMismatch,
    Forbidden,
    KhalaError,
    ProfileRefused,
    ReauthRequired,
    RecordingRefused,
    SettingsRefused,
    StaleCursor,
    StoreConflict,
    StoreFailed,
    StoreRefused,
    Unavailable,
    UpgradeRequired,
)
from khala_client.events import Event
from khala_client.http import ControlClient, CreatedRun, RuntimeClient
from khala_client.outgoing import OutgoingEvent
from khala_client.profiles import Profile, ProfileDirectory, new_device_id
from khala_client.recordings import OutputLines, RecordedEvent, Recording, TypedLines, parse_recording
from khala_client.resources import (
    Ack,
    Compatibility,
    EventPage,
    RunInfo,
    RunPage,
    ServiceKey,
    SessionInfo,
    SessionTokens,
    StoredEvent,
    SyncToken,
    TopicInfo,
)
from khala_client.settings import Settings, load_settings
from khala_client.store import MemoryStore, SqliteStore
from khala_client.version import VERSION

__all__ = [
    "VERSION",
    "Ack",
    "Broken",
    "ChainMismatch",
    "Compatibility",
    "ControlClient",
    "CreatedRun",
    "Cursor",
    "Event",
    "EventPage",
    "Forbidden",
    "Khala",
    "KhalaError",
    "MemoryStore",
    "MintedToken",
    "OutgoingEvent",
    "OutputLines",
    "Profile",
    "ProfileDirectory",
    "ProfileRefused",
    "ReauthRequired",
    "RecordedEvent",
    "Recording",
    "RecordingRefused",
    "Run",
    "RunInfo",
    "RunPage",
    "RuntimeClient",
    "ServiceKey",
    "SessionInfo",
    "SessionTokens",
    "Settings",
    "SettingsRefused",
    "SqliteStore",
    "StaleCursor",
    "StoreConflict",
    "StoreFailed",
    "StoreRefused",
    "StoredEvent",
    "Subscription",
    "SyncToken",
    "TopicInfo",
    "TypedLines",
    "Unavailable",
    "UpgradeRequired",
    "Verified",
    "load_settings",
    "new_device_id",
    "parse_after",
    "parse_recording",
    "verify_frames",
]
