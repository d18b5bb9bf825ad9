"""Calls of an application that are one request: repeated with one key until answered, or given up.

Each call is its own retry owner. What is repeated is byte for byte the same request, so that it
happens once however often its answer got lost; minting alone has no key, and needs none: a token
that nobody received opens nothing.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import attrs

from khala_client.core.cursor import Cursor
from khala_client.errors import error_for
from khala_client.http import history_path
from khala_client.outgoing import OutgoingEvent
from khala_client.ring.retry import Retry
from khala_contracts.topics import Seq, TopicInvalid, TopicName, parse_topic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from khala_client.core.backoff import Rng
    from khala_client.http import ControlClient, RuntimeClient
    from khala_client.resources import Ack, RunInfo

__all__ = ["MintedToken", "Requests", "new_key", "parse_topic_argument"]

# For a call that an application waits for before it can begin anything: long enough for a restart
# of a service, short enough that a wrong URL is noticed.
_START_PATIENCE_S: Final = 20.0
# An event is worth more patience than a start: the application has it only here.
_PUBLISH_PATIENCE_S: Final = 300.0
_APP_CLASS: Final = "app"


@attrs.frozen
class MintedToken:
    """What a browser of one of your own users needs to open one connection.

    Attributes:
        token: For ``hello`` or ``renew``; opens one connection, once. A secret.
        expires_at_s: Unix time at which it, and what was opened with it, ends unless renewed.
        sync_url: Where to connect, ws(s)://.../sync/v1/ws.
        topics: What it may subscribe to.
    """

    token: str = attrs.field(repr=False)
    expires_at_s: float
    sync_url: str
    topics: tuple[TopicName, ...]


def new_key() -> str:
    """Return an idempotency key that nobody else has."""
    return secrets.token_hex(16)


def parse_topic_argument(topic: str) -> TopicName:
    """Return the name of a topic of the registry. Raises KhalaError ``topic_invalid``."""
    try:
        return parse_topic(topic).name
    except TopicInvalid as error:
        raise error_for("topic_invalid", details={"problem": error.detail}) from error


class Requests:
    """Asks control and runtime on behalf of one Khala."""

    def __init__(self, control: ControlClient, runtime: RuntimeClient, *, rng: Rng, sync_url: str) -> None:
        self._control = control
        self._runtime = runtime
        self._rng = rng
        self._sync_url = sync_url

    def _retry(self, patience_s: float = _START_PATIENCE_S) -> Retry:
        return Retry(self._rng, patience_s=patience_s)

    async def start_run(
        self, *, key: str, name: str, agent: str, source: str, attributes: Mapping[str, str], org_id: str
    ) -> RunInfo:
        """Create a run; the same key is the same run."""
        created = await self._retry().attempt(
            lambda: self._runtime.create_run(
                idempotency_key=key,
                name=name,
                agent=agent,
                source=source,
                attributes=attributes,
                org_id=org_id,
            )
        )
        return created.run

    async def find_run(self, run_id: str) -> RunInfo:
        """Return a run."""
        return await self._retry().attempt(lambda: self._runtime.get_run(run_id))

    async def find_cursor(self, topic: TopicName, seq: int) -> Cursor:
        """Return the cursor at ``seq`` in the topic's history of now.

        A bare seq gets the lineage of now, and where there is a log its chain at that place: from
        there on it is as good as a cursor that was kept.
        """
        retry = self._retry()
        info = await retry.attempt(lambda: self._runtime.get_topic(topic))
        if history_path(topic) is None or seq > info.head_seq:
            return Cursor(topic, Seq(seq), info.lineage)
        page = await retry.attempt(lambda: self._runtime.read_history(topic, after_seq=seq, limit=1))
        return Cursor(topic, Seq(seq), page.cursor.lineage, page.chain_before)

    async def publish(self, topic: str, kind: str, data: Mapping[str, object], *, key: str) -> Ack:
        """Append one event to an app topic."""
        parsed = parse_topic(parse_topic_argument(topic))
        if parsed.topic_class.name != _APP_CLASS:
            problem = "only app topics are published to; events of a run are emitted by khala.run"
            raise error_for("topic_invalid", details={"problem": problem})
        event = OutgoingEvent.of(kind, data, topic_class=_APP_CLASS)
        org_id, name = parsed.ids["org_id"], parsed.ids["name"]
        (ack,) = await self._retry(_PUBLISH_PATIENCE_S).attempt(
            lambda: self._runtime.append_to_app_topic(org_id, name, (event,), idempotency_key=key)
        )
        return ack

    async def mint(self, user_id: str, device_id: str, topics: Sequence[str], *, ttl_s: int) -> MintedToken:
        """Mint the token of one connection for a user of the caller's own application."""
        minted = await self._retry().attempt(
            lambda: self._control.mint_sync_token(topics, ttl_s=ttl_s, subject=(user_id, device_id))
        )
        return MintedToken(
            token=minted.token,
            expires_at_s=minted.expires_at_s,
            sync_url=self._sync_url,
            topics=tuple(grant.topic for grant in minted.grants),
        )
