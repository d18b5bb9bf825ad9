"""Control and runtime over HTTP: one method per route, one attempt per call.

Uses nothing of an event loop, so it runs under trio and asyncio alike. No retry but one: a bearer
that was refused as expired is exchanged and the call made again. The operation's retry owner is the
caller (the emitter, the sync link, a command); repeat a mutation with the same idempotency key.

Every method raises what http_calls.send does: Unavailable, ReauthRequired, Forbidden,
UpgradeRequired, or KhalaError with the registry's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

import attrs
from google.protobuf.message import Message

from khala_client.errors import ReauthRequired
from khala_client.event_stream import NDJSON, StreamOutcome, decode_stream_outcome_untrusted, encode_stream
from khala_client.http_calls import answer_bytes, check_base_url, send
from khala_client.outgoing import OutgoingEvent, event_message
from khala_client.resources import (
    Ack,
    Compatibility,
    EventPage,
    RunInfo,
    RunPage,
    ServiceKey,
    SessionInfo,
    SessionTokens,
    SyncToken,
    TopicInfo,
)
from khala_client.sign_in import sign_in_at_development_issuer
from khala_contracts import http_messages as m
from khala_contracts.sync_claims import Surface
from khala_contracts.topics import parse_topic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from khala_client.credentials import Credentials
    from khala_contracts.topics import TopicName

__all__ = ["ControlClient", "CreatedRun", "RuntimeClient", "history_path"]

_Answer = TypeVar("_Answer", bound=Message)
_NO_ATTRIBUTES: Final[Mapping[str, str]] = {}


class _ServiceClient:
    """Calls one service in somebody's name."""

    _name: str

    def __init__(self, base_url: str, http: httpx.AsyncClient, credentials: Credentials | None) -> None:
        """Use ``http`` (http_calls.open_http) for a service at ``base_url``; None: unauthenticated calls only."""
        self.base_url = check_base_url(base_url, name=f"the URL of {self._name}")
        self._http = http
        self._credentials = credentials

    async def _call(
        self,
        method: str,
        path: str,
        answer: type[_Answer],
        *,
        body: Message | None = None,
        idempotency_key: str | None = None,
        query: Mapping[str, str] | None = None,
    ) -> _Answer:
        async def attempt(bearer: str) -> _Answer:
            return await send(
                self._http,
                method,
                self.base_url + path,
                answer,
                body=body,
                bearer=bearer,
                idempotency_key=idempotency_key,
                query=query,
            )

        bearer = await self._bearer()
        try:
            return await attempt(bearer)
        except ReauthRequired:
            if not await self._replaced(bearer):
                raise
        return await attempt(await self._bearer())

    async def _bearer(self) -> str:
        if self._credentials is None:
            raise ReauthRequired("unauthenticated")
        return await self._credentials.bearer()

    async def _replaced(self, bearer: str) -> bool:
        return self._credentials is not None and await self._credentials.replace(bearer)


class ControlClient(_ServiceClient):
    """Sign-in, sessions, sync tokens, service keys."""

    _name = "control"

    async def sign_in_dev(
        self, login: str, *, device_id: str, surface: Surface = Surface.DESKTOP
    ) -> SessionTokens:
        """Sign in at a system with the development issuer (``not_found`` elsewhere); any name is believed."""
        return await sign_in_at_development_issuer(
            self._http, self.base_url, login=login, device_id=device_id, surface=surface
        )

    async def refresh(self, refresh_token: str, *, device_id: str) -> SessionTokens:
        """Exchange a refresh token; it is used up by this, also if the answer gets lost."""
        request = m.RefreshRequest(refresh_token=refresh_token, device_id=device_id)
        url = f"{self.base_url}/api/auth/refresh"
        return SessionTokens.of(await send(self._http, "POST", url, m.SessionTokens, body=request))

    async def log_out(self) -> None:
        """End this session everywhere."""
        await self._call("POST", "/api/auth/logout", m.LogoutResponse, body=m.LogoutRequest())

    async def get_session(self) -> SessionInfo:
        """Return the session of the credential in use."""
        return SessionInfo.of(await self._call("GET", "/api/auth/session", m.Session))

    async def list_sessions(self, *, device_id: str = "") -> tuple[SessionInfo, ...]:
        """Return the newest 200 sessions of this user, ended ones included; of one device if it is named."""
        query = {"device_id": device_id} if device_id else None
        answer = await self._call("GET", "/api/auth/sessions", m.ListSessionsResponse, query=query)
        return tuple(SessionInfo.of(session) for session in answer.sessions)

    async def revoke_sessions(
        self, *, session_id: str = "", device_id: str = "", others: bool = False
    ) -> tuple[str, ...]:
        """End sessions of this user and return the ids of those that this ended.

        Args:
            session_id: This one.
            device_id: Those of this device.
            others: All but the one in use. Nothing named: all of them.
        """
        scope = m.REVOKE_SCOPE_OTHERS if others else m.REVOKE_SCOPE_ALL
        if session_id:
            scope = m.REVOKE_SCOPE_SESSION
        elif device_id:
            scope = m.REVOKE_SCOPE_DEVICE
        request = m.RevokeSessionsRequest(scope=scope, session_id=session_id, device_id=device_id)
        answer = await self._call("POST", "/api/auth/sessions/revoke", m.RevokeSessionsResponse, body=request)
        return tuple(answer.session_ids)

    async def mint_sync_token(
        self, topics: Sequence[str], *, ttl_s: int = 0, subject: tuple[str, str] | None = None
    ) -> SyncToken:
        """Mint the token of one connection, for 1..256 topics.

        Args:
            topics: Each in the registry's grammar, no repeats.
            ttl_s: 60..900; 0 takes the server's default.
            subject: ``(user_id, device_id)`` of a user of your own application; needs the mint right.

        Raises:
            Forbidden: one of the topics (``error.topic``) may not be read, or does not exist.
        """
        device_id = self._credentials.device_id if self._credentials is not None and subject is None else ""
        request = m.SyncTokenRequest(topics=topics, device_id=device_id, ttl_s=ttl_s)
        if subject is not None:
            request.subject.user_id, request.subject.device_id = subject
        return SyncToken.of(await self._call("POST", "/api/sync/token", m.SyncTokenResponse, body=request))

    async def create_key(
        self,
        name: str,
        *,
        rights: Sequence[str],
        topics: Sequence[str] = (),
        org_id: str = "",
        ttl_s: int = 0,
    ) -> ServiceKey:
        """Make a service key with rights of publish, work, read, mint; only this answer has its secret."""
        request = m.CreateKeyRequest(name=name, rights=rights, topics=topics, org_id=org_id, ttl_s=ttl_s)
        answer = await self._call("POST", "/api/keys", m.CreateKeyResponse, body=request)
        return ServiceKey.of(answer.key, secret=answer.secret)

    async def list_keys(self) -> tuple[ServiceKey, ...]:
        """Return the keys that this user may see, without secrets."""
        answer = await self._call("GET", "/api/keys", m.ListKeysResponse)
        return tuple(ServiceKey.of(key) for key in answer.keys)

    async def revoke_key(self, key_id: str) -> ServiceKey:
        """End a key; repeating it changes nothing."""
        answer = await self._call("POST", f"/api/keys/{quote(key_id, safe='')}/revoke", m.RevokeKeyResponse)
        return ServiceKey.of(answer.key)

    async def rotate_key(self, key_id: str, *, overlap_s: int | None = None, ttl_s: int = 0) -> ServiceKey:
        """Give a key a new secret, which the result has.

        Args:
            key_id: The key.
            overlap_s: How long the old secret goes on working; None: an hour; 0: not at all, nor an earlier one.
            ttl_s: New lifetime of the key from now on; 0: its expiry stays.
        """
        request = m.RotateKeyRequest(overlap_s=overlap_s, ttl_s=ttl_s)
        path = f"/api/keys/{quote(key_id, safe='')}/rotate"
        answer = await self._call("POST", path, m.RotateKeyResponse, body=request)
        return ServiceKey.of(answer.key, secret=answer.secret)

    async def get_compatibility(self) -> Compatibility:
        """Return what the server accepts; no credential is needed."""
        return Compatibility.of(
            await send(self._http, "GET", f"{self.base_url}/api/compat", m.CompatResponse)
        )


@attrs.frozen
class CreatedRun:
    """A run and the ack of its ``run.started``."""

    run: RunInfo
    ack: Ack


class RuntimeClient(_ServiceClient):
    """Runs, their events, topics."""

    _name = "runtime"

    async def create_run(
        self,
        *,
        idempotency_key: str,
        name: str = "",
        agent: str = "",
        source: str = "",
        attributes: Mapping[str, str] = _NO_ATTRIBUTES,
        org_id: str = "",
    ) -> CreatedRun:
        """Create a run; the same key returns the same run for 7 days.

        Raises:
            KhalaError: ``name_taken`` if another run of this owner has the name.
        """
        request = m.CreateRunRequest(
            name=name, agent=agent, source=source, attributes=attributes, org_id=org_id
        )
        answer = await self._call(
            "POST", "/v1/runs", m.CreateRunResponse, body=request, idempotency_key=idempotency_key
        )
        return CreatedRun(RunInfo.of(answer.run), Ack.of(answer.ack))

    async def get_run(self, run_id: str) -> RunInfo:
        """Return a run. A foreign one is ``not_found``, as one that does not exist."""
        return RunInfo.of((await self._call("GET", _run_path(run_id), m.GetRunResponse)).run)

    async def list_runs(self, *, limit: int = 0, page_token: str = "") -> RunPage:
        """Return a page of the caller's runs, newest first; 0 takes the server's page size."""
        query = {"limit": str(limit) if limit else "", "page_token": page_token}
        query = {name: value for name, value in query.items() if value}
        return RunPage.of(await self._call("GET", "/v1/runs", m.ListRunsResponse, query=query))

    async def transition_run(
        self,
        run_id: str,
        to_state: str,
        *,
        idempotency_key: str,
        reason: str = "",
        exit_status: int | None = None,
        result: str = "",
    ) -> tuple[RunInfo, Ack]:
        """Move a run to running, paused, succeeded, failed or cancelled.

        Raises:
            KhalaError: ``invalid_transition``, ``run_finished``.
        """
        request = m.TransitionRunRequest(
            to_state=m.RunState.Name(m.RUN_STATES.number(to_state)),
            reason=reason,
            exit_status=exit_status,
            result=result,
        )
        answer = await self._call(
            "POST",
            f"{_run_path(run_id)}/transitions",
            m.TransitionRunResponse,
            body=request,
            idempotency_key=idempotency_key,
        )
        return RunInfo.of(answer.run), Ack.of(answer.ack)

    async def append(
        self,
        run_id: str,
        events: Sequence[OutgoingEvent],
        *,
        idempotency_key: str,
        expected_seq: int | None = None,
    ) -> tuple[Ack, ...]:
        """Append 1..500 events (4 MiB) as one decision: all of them, or none.

        Args:
            run_id: The run.
            events: In this order.
            idempotency_key: Names this request; a retry with it and the same events returns the
                original acks.
            expected_seq: Only if the topic's head is exactly this (``seq_conflict`` otherwise).
        """
        request = m.AppendEventsRequest(
            events=[event_message(event) for event in events], expected_seq=expected_seq
        )
        answer = await self._call(
            "POST",
            f"{_run_path(run_id)}/events",
            m.AppendEventsResponse,
            body=request,
            idempotency_key=idempotency_key,
        )
        return tuple(Ack.of(ack) for ack in answer.acks)

    async def append_to_app_topic(
        self,
        org_id: str,
        name: str,
        events: Sequence[OutgoingEvent],
        *,
        idempotency_key: str,
        expected_seq: int | None = None,
    ) -> tuple[Ack, ...]:
        """Append 1..500 events to ``app:{org_id}:{name}`` as one decision; otherwise as ``append``.

        Raises:
            KhalaError: ``not_found`` without the publish right there, or if there is no such org.
        """
        request = m.AppendEventsRequest(
            events=[event_message(event) for event in events], expected_seq=expected_seq
        )
        answer = await self._call(
            "POST",
            _app_path(org_id, name),
            m.AppendEventsResponse,
            body=request,
            idempotency_key=idempotency_key,
        )
        return tuple(Ack.of(ack) for ack in answer.acks)

    async def append_keyed(self, run_id: str, events: Sequence[OutgoingEvent]) -> StreamOutcome:
        """Append a stream of events, each with a key of its own.

        Committed in chunks, in order: of a refused stream the beginning may be committed. A retry
        with the same keys appends only what is missing.

        Raises:
            ValueError: an event without a key.
        """
        content = encode_stream(events)

        async def attempt(bearer: str) -> StreamOutcome:
            data = await answer_bytes(
                self._http,
                "POST",
                f"{self.base_url}{_run_path(run_id)}/events",
                content=content,
                content_type=NDJSON,
                accept=NDJSON,
                bearer=bearer,
            )
            return decode_stream_outcome_untrusted(data)

        bearer = await self._bearer()
        try:
            return await attempt(bearer)
        except ReauthRequired:
            if not await self._replaced(bearer):
                raise
        return await attempt(await self._bearer())

    async def read_events(self, run_id: str, *, after_seq: int = 0, limit: int = 0) -> EventPage:
        """Return events with ``seq > after_seq``, ascending; 0 takes the server's page size."""
        return await self._read_page(f"{_run_path(run_id)}/events", after_seq, limit)

    async def read_history(self, topic: TopicName, *, after_seq: int = 0, limit: int = 0) -> EventPage:
        """Return events of a run's or an app topic, as ``read_events``.

        Raises:
            ValueError: the topic is of a class whose log is not served (``history_path``).
        """
        path = history_path(topic)
        if path is None:
            raise ValueError(topic)
        return await self._read_page(path, after_seq, limit)

    async def _read_page(self, path: str, after_seq: int, limit: int) -> EventPage:
        query = {"after_seq": str(after_seq)} | ({"limit": str(limit)} if limit else {})
        return EventPage.of(await self._call("GET", path, m.ListEventsResponse, query=query))

    async def transfer_run(self, run_id: str, owner_user_id: str, *, idempotency_key: str) -> RunInfo:
        """Give a run to another member of its org.

        Raises:
            KhalaError: ``forbidden`` for who neither owns it nor administers its org,
                ``invalid_argument`` for a user who is no member, ``name_taken``.
        """
        answer = await self._call(
            "POST",
            f"{_run_path(run_id)}/transfer",
            m.TransferRunResponse,
            body=m.TransferRunRequest(owner_user_id=owner_user_id),
            idempotency_key=idempotency_key,
        )
        return RunInfo.of(answer.run)

    async def get_topic(self, topic: TopicName | str) -> TopicInfo:
        """Return where a topic stands."""
        return TopicInfo.of(await self._call("GET", f"/v1/topics/{quote(topic, safe='')}", m.TopicInfo))


def history_path(topic: TopicName) -> str | None:
    """Return where the event log of a topic is read by pages, None of classes whose log is not served."""
    parsed = parse_topic(topic)
    match parsed.topic_class.name:
        case "run_events":
            return f"{_run_path(parsed.ids['run_id'])}/events"
        case "app":
            return _app_path(parsed.ids["org_id"], parsed.ids["name"])
        case _:
            return None


def _app_path(org_id: str, name: str) -> str:
    return f"/v1/app-topics/{quote(org_id, safe='')}/{quote(name, safe='')}/events"


def _run_path(run_id: str) -> str:
    return f"/v1/runs/{quote(run_id, safe='')}"
