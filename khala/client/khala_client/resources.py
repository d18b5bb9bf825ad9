"""What the HTTP interfaces of control and runtime answer, as values. Pure.

Times are Unix seconds as float, None where there is none; states are lower-case words. One function
per message of the wire; nothing above this module sees the wire's message classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_client.core.cursor import Cursor
from khala_contracts import http_messages as m
from khala_contracts.frames import Frame
from khala_contracts.topics import Lineage, Seq, TopicName
from khala_contracts.wire_enums import EnumWords

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Ack",
    "Compatibility",
    "EventPage",
    "OrgMembership",
    "RunInfo",
    "RunPage",
    "ServiceKey",
    "SessionInfo",
    "SessionTokens",
    "StoredEvent",
    "SyncToken",
    "TopicGrant",
    "TopicInfo",
]


_SURFACES: Final = EnumWords(m.Surface.DESCRIPTOR)
_GRANT_BASES: Final = EnumWords(m.GrantBasis.DESCRIPTOR)


def _word(enum: EnumWords, number: int) -> str:
    # A newer server may have more words than this build; that is no reason to refuse its answer.
    return enum.words.get(number, "unknown")


@attrs.frozen
class Ack:
    """An event that is committed: durable, and known by this from now on."""

    event_id: str
    topic: TopicName
    seq: int
    lineage: Lineage
    chain: bytes = attrs.field(repr=False)

    @classmethod
    def of(cls, message: m.Ack) -> Ack:
        """Read the wire's message."""
        return cls(
            event_id=message.event_id,
            topic=TopicName(message.topic),
            seq=message.seq,
            lineage=Lineage(message.lineage),
            chain=message.chain,
        )


@attrs.frozen
class RunInfo:
    """One run. ``watermark`` is the position of its topic that this answer corresponds to.

    ``state`` is created, running, paused, succeeded, failed or cancelled.
    """

    run_id: str
    name: str
    state: str
    owner_user_id: str
    org_id: str
    agent: str
    source: str
    attributes: Mapping[str, str]
    created_at_s: float
    finished_at_s: float | None
    topic: TopicName
    watermark: Cursor | None

    @property
    def is_finished(self) -> bool:
        """True in the three states that a run does not leave."""
        return self.state in {"succeeded", "failed", "cancelled"}

    @classmethod
    def of(cls, message: m.Run) -> RunInfo:
        """Read the wire's message."""
        return cls(
            run_id=message.run_id,
            name=message.name,
            state=_word(m.RUN_STATES, message.state),
            owner_user_id=message.owner_user_id,
            org_id=message.org_id,
            agent=message.agent,
            source=message.source,
            attributes=dict(message.attributes),
            created_at_s=message.created_at_us / 1e6,
            finished_at_s=message.finished_at_us / 1e6 or None,
            topic=TopicName(message.topic),
            watermark=watermark_of(message.watermark) if message.HasField("watermark") else None,
        )


def watermark_of(message: m.Watermark) -> Cursor:
    """Return the cursor that continues exactly after a read."""
    return Cursor(TopicName(message.topic), Seq(message.seq), Lineage(message.lineage), message.chain or None)


@attrs.frozen
class RunPage:
    """Some runs, newest first; pass ``next_page_token`` on, empty on the last page."""

    runs: tuple[RunInfo, ...]
    next_page_token: str

    @classmethod
    def of(cls, message: m.ListRunsResponse) -> RunPage:
        """Read the wire's message."""
        return cls(tuple(RunInfo.of(run) for run in message.runs), message.next_page_token)


@attrs.frozen
class StoredEvent:
    """One event of the log with what the wire's frame does not carry."""

    frame: Frame
    event_id: str
    committed_at_s: float
    request_id: str
    actor: str

    @classmethod
    def of(cls, message: m.Event) -> StoredEvent:
        """Read the wire's message."""
        return cls(
            frame=Frame(
                topic=TopicName(message.topic),
                seq=Seq(message.seq),
                kind=message.kind,
                payload=message.payload_bytes,
                schema_version=message.schema_version,
            ),
            event_id=message.event_id,
            committed_at_s=message.committed_at_us / 1e6,
            request_id=message.request_id,
            actor=message.actor,
        )


@attrs.frozen
class EventPage:
    """Events after a position, ascending; ``cursor`` stands after the last of them.

    ``chain_before`` is the chain before the first one, so that a page can be verified alone.
    """

    events: tuple[StoredEvent, ...]
    cursor: Cursor
    head_seq: int
    floor_seq: int
    chain_before: bytes = attrs.field(repr=False)

    @property
    def is_last(self) -> bool:
        """True if nothing was committed beyond this page when it was read."""
        return self.cursor.seq >= self.head_seq

    @classmethod
    def of(cls, message: m.ListEventsResponse) -> EventPage:
        """Read the wire's message."""
        return cls(
            events=tuple(StoredEvent.of(event) for event in message.events),
            cursor=watermark_of(message.watermark),
            head_seq=message.head_seq,
            floor_seq=message.floor_seq,
            chain_before=message.chain_before,
        )


@attrs.frozen
class TopicInfo:
    """Where a topic stands. ``floor_chain`` is the chain at ``floor_seq - 1``."""

    topic: TopicName
    topic_class: str
    lineage: Lineage
    head_seq: int
    head_chain: bytes = attrs.field(repr=False)
    floor_seq: int
    floor_chain: bytes = attrs.field(repr=False)
    floor_reason: str
    retained_bytes: int

    @classmethod
    def of(cls, message: m.TopicInfo) -> TopicInfo:
        """Read the wire's message."""
        return cls(
            topic=TopicName(message.topic),
            topic_class=message.topic_class,
            lineage=Lineage(message.lineage),
            head_seq=message.head_seq,
            head_chain=message.head_chain,
            floor_seq=message.floor_seq,
            floor_chain=message.floor_chain,
            floor_reason=message.floor_reason,
            retained_bytes=message.retained_bytes,
        )


@attrs.frozen
class OrgMembership:
    """An org of a user; ``role`` is owner, admin or member."""

    org_id: str
    name: str
    role: str


@attrs.frozen
class SessionInfo:
    """A signed-in device."""

    session_id: str
    user_id: str
    device_id: str
    surface: str
    login: str
    created_at_s: float
    expires_at_s: float
    revoked_at_s: float | None
    orgs: tuple[OrgMembership, ...]
    # Why and by which user it was ended; empty while it lives, and the user also if the system ended it.
    revoked_reason: str = ""
    revoked_by: str = ""

    @classmethod
    def of(cls, message: m.Session) -> SessionInfo:
        """Read the wire's message."""
        return cls(
            session_id=message.session_id,
            user_id=message.user_id,
            device_id=message.device_id,
            surface=_word(_SURFACES, message.surface),
            login=message.login,
            created_at_s=message.created_at / 1e3,
            expires_at_s=message.expires_at / 1e3,
            revoked_at_s=message.revoked_at / 1e3 or None,
            orgs=tuple(OrgMembership(org.org_id, org.name, org.role) for org in message.orgs),
            revoked_reason=message.revoked_reason,
            revoked_by=message.revoked_by,
        )


@attrs.frozen
class SessionTokens:
    """A sign-in or a refresh. Both tokens are secrets and do not show in the repr."""

    access_token: str = attrs.field(repr=False)
    access_expires_at_s: float
    refresh_token: str = attrs.field(repr=False)
    refresh_expires_at_s: float
    session: SessionInfo

    @classmethod
    def of(cls, message: m.SessionTokens) -> SessionTokens:
        """Read the wire's message."""
        return cls(
            access_token=message.access_token,
            access_expires_at_s=message.access_expires_at / 1e3,
            refresh_token=message.refresh_token,
            refresh_expires_at_s=message.refresh_expires_at / 1e3,
            session=SessionInfo.of(message.session),
        )


@attrs.frozen
class TopicGrant:
    """A topic of a sync token and the right that it was granted by."""

    topic: TopicName
    basis: str
    org_id: str


@attrs.frozen
class SyncToken:
    """Opens one WebSocket connection, once."""

    token: str = attrs.field(repr=False)
    jti: str
    expires_at_s: float
    grants: tuple[TopicGrant, ...]

    @classmethod
    def of(cls, message: m.SyncTokenResponse) -> SyncToken:
        """Read the wire's message."""
        return cls(
            token=message.token,
            jti=message.jti,
            expires_at_s=message.expires_at / 1e3,
            grants=tuple(
                TopicGrant(
                    topic=TopicName(grant.topic),
                    basis=_word(_GRANT_BASES, grant.basis),
                    org_id=grant.org_id,
                )
                for grant in message.grants
            ),
        )


@attrs.frozen
class ServiceKey:
    """A service key. ``secret`` is set only in the answer that made it.

    Attributes:
        rotated_at_s: When the secret was last replaced.
        old_secret_ends_at_s: When the replaced one stops working, or stopped.
    """

    key_id: str
    name: str
    org_id: str
    rights: tuple[str, ...]
    topics: tuple[str, ...]
    created_at_s: float
    expires_at_s: float | None
    last_used_at_s: float | None
    revoked_at_s: float | None
    rotated_at_s: float | None = None
    old_secret_ends_at_s: float | None = None
    secret: str | None = attrs.field(default=None, repr=False)

    @classmethod
    def of(cls, message: m.ServiceKey, *, secret: str | None = None) -> ServiceKey:
        """Read the wire's message."""
        return cls(
            key_id=message.key_id,
            name=message.name,
            org_id=message.org_id,
            rights=tuple(message.rights),
            topics=tuple(message.topics),
            created_at_s=message.created_at / 1e3,
            expires_at_s=message.expires_at / 1e3 or None,
            last_used_at_s=message.last_used_at / 1e3 or None,
            revoked_at_s=message.revoked_at / 1e3 or None,
            rotated_at_s=message.rotated_at / 1e3 or None,
            old_secret_ends_at_s=message.old_secret_ends_at / 1e3 or None,
            secret=secret,
        )


@attrs.frozen
class Compatibility:
    """What the server accepts, and which version it is."""

    min_build_id: str
    protocol: tuple[int, int]
    schema: tuple[int, int]
    version: str

    @classmethod
    def of(cls, message: m.CompatResponse) -> Compatibility:
        """Read the wire's message."""
        return cls(
            min_build_id=message.min_build_id,
            protocol=(message.protocol_min, message.protocol_max),
            schema=(message.schema_min, message.schema_max),
            version=message.version,
        )
