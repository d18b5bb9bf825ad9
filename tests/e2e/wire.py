"""A bare client: it says what a test tells it to say, also what is wrong, and shows every answer.

``Api`` speaks HTTP as one of several people; ``Wire`` is one WebSocket. Nothing here reconnects, retries,
renews, applies or discards: what the system does must be seen, not smoothed.
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import attrs
import httpx
import trio
from trio_websocket import ConnectionClosed, wrap_client_stream

from khala_contracts.chain import chain_next
from khala_contracts.codec import (
    CursorStart,
    ErrorMessage,
    FramesMessage,
    FromStart,
    Hello,
    ReplayComplete,
    ServerHeartbeat,
    Subscribe,
    Subscribed,
    SubscribeFrom,
    TopicStart,
    VersionRange,
    Welcome,
    decode_server_message_json_untrusted,
    decode_server_message_untrusted,
    encode_client_message,
    encode_client_message_json,
)
from khala_contracts.topics import TopicName, format_run_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from google.protobuf.message import Message
    from trio_websocket import WebSocketConnection

    from khala_contracts.codec import ClientMessage, ServerMessage
    from khala_contracts.frames import Frame
    from tests.e2e.system import System

BINARY: Final = "khala.v1"
TEXT: Final = "khala.v1.json"
JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
DEVICE: Final = "dev_0123456789abcdef"
BUILD_ID: Final = "wire-tests"
V1: Final = VersionRange(1, 1)
BEGINNING: Final = FromStart(SubscribeFrom.BEGINNING)
NOW: Final = FromStart(SubscribeFrom.NOW)
# Above every answer of a healthy system, also on a machine that is busy with other things.
ANSWER_S: Final = 10.0
# A frame of 256 KiB as base64, and its envelope.
MESSAGE_MAX_BYTES: Final = 1 << 20

M = TypeVar("M")
Document = dict[str, Any]


# -- HTTP --------------------------------------------------------------------------------------------


@attrs.frozen
class Person:
    """A signed-in development user on one device."""

    login: str
    device_id: str
    user_id: str
    org_id: str
    session_id: str
    access_token: str = attrs.field(repr=False)
    refresh_token: str = attrs.field(repr=False)


@attrs.frozen
class Position:
    """A place in a run's history, as a client keeps it."""

    topic: TopicName
    seq: int
    lineage: str
    chain: bytes = attrs.field(repr=False)

    @property
    def start(self) -> CursorStart:
        """Subscribe after it."""
        return CursorStart(self.seq, self.lineage, self.chain)


@attrs.frozen
class Api:
    """HTTP of a running system. Answers are returned as they come, refusals too."""

    http: httpx.AsyncClient
    control_url: str
    runtime_url: str

    async def get(self, url: str, credential: str | None = None, **headers: str) -> httpx.Response:
        """GET a path of the runtime (/v1), of control (/api), or a whole URL."""
        return await self.http.get(self._url(url), headers=_headers(credential, headers))

    async def post(
        self,
        url: str,
        body: Mapping[str, object] | Message | str | bytes,
        credential: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        """POST a body: a mapping or text as JSON, a message or bytes as protobuf.

        Names of headers are given with ``_`` for ``-``.
        """
        if isinstance(body, (str, bytes)):
            content: str | bytes = body
        elif hasattr(body, "SerializeToString"):
            content = body.SerializeToString(deterministic=True)
        else:
            content = json.dumps(body)
        media_type = PROTOBUF if isinstance(content, bytes) else JSON
        sent = _headers(credential, {"Content_Type": media_type, **headers})
        return await self.http.post(self._url(url), content=content, headers=sent)

    def _url(self, url: str) -> str:
        if url.startswith("/v1"):
            return self.runtime_url + url
        return self.control_url + url if url.startswith("/") else url

    async def walk_sign_in(
        self, login: str = "ann", device_id: str = DEVICE, *, surface: str = "desktop", accept: str = JSON
    ) -> httpx.Response:
        """Go as a program goes through the development issuer; return the first answer that leads nowhere."""
        query = {"login_hint": login, "device_id": device_id, "surface": surface}
        started = await self.http.get(self._url("/api/auth/start"), params=query)
        if not started.has_redirect_location:
            return started
        granted = await self.http.get(started.headers["Location"])
        if not granted.has_redirect_location:
            return granted
        cookie = f"khala_sign_in={started.cookies['khala_sign_in']}"
        return await self.http.get(granted.headers["Location"], headers={"Accept": accept, "Cookie": cookie})

    async def sign_in(self, login: str = "ann", device_id: str = DEVICE) -> Person:
        """Sign a development user in."""
        document = _document(await self.walk_sign_in(login, device_id))
        session = document["session"]
        return Person(
            login=login,
            device_id=device_id,
            user_id=session["user_id"],
            org_id=session["orgs"][0]["org_id"],
            session_id=session["session_id"],
            access_token=document["access_token"],
            refresh_token=document["refresh_token"],
        )

    async def mint(self, person: Person, *topics: str, ttl_s: int = 300) -> str:
        """Return a sync token for exactly these topics."""
        body = {"topics": list(topics), "ttl_s": ttl_s}
        token: str = _document(await self.post("/api/sync/token", body, person.access_token))["token"]
        return token

    async def create_run(self, person: Person, **fields: object) -> TopicName:
        """Make a run; return its topic, whose only event is run.started."""
        answer = _document(await self.post("/v1/runs", fields, person.access_token))
        return format_run_events(answer["run"]["run_id"])

    async def append(
        self, person: Person, topic: TopicName, *events: Mapping[str, object], key: str | None = None
    ) -> list[Position]:
        """Append events in one request; return where they are."""
        headers = {} if key is None else {"Idempotency_Key": key}
        body = {"events": list(events)}
        answer = await self.post(events_path(topic), body, person.access_token, **headers)
        return positions(_document(answer)["acks"])

    async def watermark(self, person: Person, topic: TopicName) -> Position:
        """Read a run; return the position that the read corresponds to."""
        answer = _document(await self.get(f"/v1/runs/{run_of(topic)}", person.access_token))
        return _position(answer["run"]["watermark"])


@asynccontextmanager
async def open_api(system: System) -> AsyncIterator[Api]:
    """HTTP of the system for one block; nothing of the environment leads around it."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with httpx.AsyncClient(trust_env=False, timeout=30.0, verify=False, limits=limits) as http:  # noqa: S501 - plain HTTP on loopback; loading certificates takes longer than a test
        yield Api(http, system.ready["control_url"], system.ready["runtime_url"])


def thought(text: object) -> Document:
    """Return one event of the commonest kind."""
    return {"kind": "thought", "data": {"text": str(text)}}


def run_of(topic: str) -> str:
    """Return the id of the run whose events the topic holds."""
    return topic.split(":")[1]


def events_path(topic: str) -> str:
    """Return the path to which events of the topic are posted."""
    return f"/v1/runs/{run_of(topic)}/events"


def positions(acks: Sequence[Mapping[str, str]]) -> list[Position]:
    """Return the positions that acknowledgements name."""
    return [_position(ack) for ack in acks]


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return status and reason code of a refused request."""
    document = answer.json()
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", document["request_id"]), document
    return answer.status_code, document["code"]


def _headers(credential: str | None, headers: Mapping[str, str]) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return named if credential is None else {"Authorization": f"Bearer {credential}", **named}


def _document(answer: httpx.Response) -> Document:
    assert answer.is_success, (answer.status_code, answer.text)
    document: Document = answer.json()
    return document


def _position(ack: Mapping[str, str]) -> Position:
    chain = base64.b64decode(ack["chain"], validate=True)
    # 64-bit numbers are text in JSON; int() of a number would hide that.
    assert isinstance(ack["seq"], str)
    return Position(TopicName(ack["topic"]), int(ack["seq"]), ack["lineage"], chain)


# -- WebSocket ---------------------------------------------------------------------------------------


def hello(token: str, device_id: str = DEVICE) -> Hello:
    """Return the first message of a client that does everything right."""
    return Hello(token, None, device_id, BUILD_ID, V1, V1)


def follow(*topics: str, start: CursorStart | FromStart = BEGINNING) -> Subscribe:
    """Return a subscribe that starts every topic at the same place."""
    return Subscribe(tuple(TopicStart(topic, start) for topic in topics))


@attrs.frozen
class Ending:
    """How a connection ended: the errors said before, the code and the reason of the close frame."""

    errors: tuple[ErrorMessage, ...]
    close_code: int | None
    close_reason: str | None

    @property
    def codes(self) -> tuple[list[str], int | None]:
        """The reason codes said, and the close code."""
        return [error.code for error in self.errors], self.close_code


@attrs.define
class Wire:
    """One WebSocket. Every message received is decoded by the strict codec and kept in ``raw``."""

    socket: WebSocketConnection
    # Below the library, for bytes that it would not send.
    stream: trio.SocketStream
    raw: list[bytes | str] = attrs.field(factory=list)

    @property
    def is_text(self) -> bool:
        """Whether this is khala.v1.json."""
        return self.socket.subprotocol == TEXT

    async def send(self, message: ClientMessage | bytes | str) -> None:
        """Send a message of the protocol, or whatever these bytes or this text are."""
        if isinstance(message, (bytes, str)):
            await self.socket.send_message(message)
        elif self.is_text:
            await self.socket.send_message(encode_client_message_json(message))
        else:
            await self.socket.send_message(encode_client_message(message))

    async def receive(self, *, timeout_s: float = ANSWER_S) -> ServerMessage:
        """Return the next message.

        Raises:
            ConnectionClosed: The node closed.
            trio.TooSlowError: Nothing came in time.
        """
        with trio.fail_after(timeout_s):
            data = await self.socket.get_message()
        self.raw.append(data)
        if isinstance(data, str):
            assert self.is_text, "text on the binary subprotocol"
            return decode_server_message_json_untrusted(data)
        assert not self.is_text, "binary on the JSON subprotocol"
        return decode_server_message_untrusted(data)

    async def expect(self, wanted: type[M], *, timeout_s: float = ANSWER_S) -> M:
        """Return the next message but heartbeats, which must be of this type."""
        message = await self.receive(timeout_s=timeout_s)
        while isinstance(message, ServerHeartbeat) and wanted is not ServerHeartbeat:
            message = await self.receive(timeout_s=timeout_s)
        assert isinstance(message, wanted), message
        return message

    async def ask(self, message: ClientMessage | bytes | str, wanted: type[M]) -> M:
        """Send a message and return its answer; what running subscriptions bring is passed over."""
        await self.send(message)
        return await self.answer(wanted)

    async def answer(self, wanted: type[M]) -> M:
        """Return the next message that belongs to no running subscription; it must be of this type."""
        message = await self.receive()
        while isinstance(message, (FramesMessage, ReplayComplete, ServerHeartbeat)):
            message = await self.receive()
        assert isinstance(message, wanted), message
        return message

    async def greet(self, token: str, device_id: str = DEVICE) -> Welcome:
        """Say hello and return the welcome."""
        await self.send(hello(token, device_id))
        return await self.expect(Welcome)

    async def ending(self, *, timeout_s: float = ANSWER_S) -> Ending:
        """Read to the end; errors may precede it, nothing else but frames and heartbeats."""
        errors: list[ErrorMessage] = []
        with trio.fail_after(timeout_s):
            while True:
                try:
                    message = await self.receive(timeout_s=timeout_s)
                except ConnectionClosed as closed:
                    reason = closed.reason
                    code = None if reason is None else int(reason.code)
                    return Ending(tuple(errors), code, None if reason is None else reason.reason)
                assert isinstance(message, (ErrorMessage, FramesMessage, ServerHeartbeat)), message
                if isinstance(message, ErrorMessage):
                    errors.append(message)


@asynccontextmanager
async def open_wire(
    system: System,
    subprotocol: str = BINARY,
    *,
    receive_buffer_bytes: int | None = None,
    origin: str | None = None,
) -> AsyncIterator[Wire]:
    """Connect; no hello is said.

    Args:
        system: Whose node.
        subprotocol: The one that is offered.
        receive_buffer_bytes: Of the kernel, for clients that read slowly; None leaves it as it is.
        origin: Of the page, as a browser says it; None: no browser.
    """
    host, port, path = sync_address(system)
    # The stream is ours: the library leaves it open where the peer was the first to close.
    async with await trio.open_tcp_stream(host, port) as stream, trio.open_nursery() as pumps:
        if receive_buffer_bytes is not None:
            stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer_bytes)
        socket = await wrap_client_stream(
            pumps,
            stream,
            f"{host}:{port}",
            path,
            subprotocols=[subprotocol],
            extra_headers=[] if origin is None else [(b"Origin", origin.encode())],
            message_queue_size=64,
            max_message_size=MESSAGE_MAX_BYTES,
            receive_buffer_size=64 * 1024,
        )
        assert socket.subprotocol == subprotocol
        yield Wire(socket, stream)
        pumps.cancel_scope.cancel()


def sync_address(system: System) -> tuple[str, int, str]:
    """Return host, port and path of the node's WebSocket."""
    url = urlsplit(system.ready["sync_url"])
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port, url.path


@asynccontextmanager
async def open_welcomed(
    system: System, api: Api, person: Person, *topics: str, subprotocol: str = BINARY, ttl_s: int = 300
) -> AsyncIterator[Wire]:
    """Connect and be welcomed with a fresh token for these topics."""
    token = await api.mint(person, *topics, ttl_s=ttl_s)
    async with open_wire(system, subprotocol) as wire:
        await wire.greet(token, person.device_id)
        yield wire


# -- one subscription as a client must see it ----------------------------------------------------------


@attrs.define
class Follower:
    """Judges one subscription message by message (SPEC section 1, promise 3; section 3, barriers).

    Invariant: every frame is ``position + 1``; ``chain`` is the chain at ``position``;
    replay_complete comes once, exactly when its ``through_seq`` has been passed.
    """

    subscribed: Subscribed
    position: int
    chain: bytes = attrs.field(repr=False)
    frames: list[Frame] = attrs.field(factory=list, repr=False)
    completed: ReplayComplete | None = None

    @classmethod
    def of(cls, subscribed: Subscribed) -> Follower:
        """Begin at what the node says that it begins at."""
        return cls(subscribed, subscribed.start_seq, subscribed.chain_at_start)

    def take(self, message: ServerMessage) -> None:
        """Judge one message of this topic; heartbeats may come in between."""
        match message:
            case ServerHeartbeat():
                pass
            case FramesMessage(frames=frames):
                for frame in frames:
                    self._apply(frame)
            case ReplayComplete():
                assert self.completed is None, "replay_complete twice"
                assert (message.through_seq, message.chain) == (self.position, self.chain)
                assert message.through_seq == self.subscribed.head_seq
                self.completed = message
            case _:
                raise AssertionError(message)

    def _apply(self, frame: Frame) -> None:
        assert frame.topic == self.subscribed.topic
        assert frame.seq == self.position + 1, (frame.seq, self.position)
        is_replay = frame.seq <= self.subscribed.head_seq
        assert (self.completed is None) is is_replay, "replay_complete is between replay and live"
        self.position = frame.seq
        self.chain = chain_next(self.chain, frame.seq, frame.schema_version, frame.kind, frame.payload)
        self.frames.append(frame)


async def subscribe(wire: Wire, topic: str, start: CursorStart | FromStart = BEGINNING) -> Follower:
    """Subscribe to one topic that must be served."""
    await wire.send(follow(topic, start=start))
    answer = await wire.expect(Subscribed)
    assert answer.topic == topic
    return Follower.of(answer)


async def read_through(wire: Wire, follower: Follower, seq: int, *, timeout_s: float = ANSWER_S) -> None:
    """Read one subscription's messages until it stands at ``seq`` and its replay is complete."""
    with trio.fail_after(timeout_s):
        while follower.position < seq or follower.completed is None:
            follower.take(await wire.receive(timeout_s=timeout_s))
    assert follower.position == seq


# -- secrets of the system, for tests that must act as somebody else ----------------------------------


def secret_of(system: System, name: str) -> str:
    """Return one secret of the data directory."""
    return (system.data_dir / "secrets" / name).read_text().strip()


def database_dsn(system: System, role: str) -> str:
    """Return the URL with which a role connects to the embedded PostgreSQL."""
    pid_file: Path = system.data_dir / "postgres" / "data" / "postmaster.pid"
    port = pid_file.read_text().splitlines()[3]
    password = secret_of(system, f"postgres_{role}")
    return f"postgresql://{role}:{password}@127.0.0.1:{port}/khala"
