"""A Khala in a few hundred lines, for tests of the client's ring: real WebSockets, HTTP by function call.

On either event loop. The node is NodeModel behind a WebSocket server on a loopback port; control and
runtime answer through httpx's mock transport. All three share the same logs. Faults are attributes
that a test sets.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

import anyio
import anyio.lowlevel
import attrs
import httpx

from khala_client.http_calls import PROTOBUF
from khala_client.settings import Settings
from khala_client.trio import Khala as TrioKhala
from khala_contracts import codec, reason_codes, strict_json
from khala_contracts import http_messages as m
from khala_contracts.chain import chain_next
from khala_contracts.codec import ErrorMessage
from khala_contracts.frames import Frame
from khala_contracts.reason_codes import REGISTRY, ReasonCode
from khala_contracts.topics import TopicName, format_app
from tests.actors.khala_client.scripted_socket import PeerGone, ServerSocket, serve_streams
from tests.unit.khala_client.node_model import LogModel, NodeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from anyio.abc import SocketStream
    from google.protobuf.message import Message

    from khala_client.ring.khala import Khala

__all__ = ["KEY", "Connection", "World", "open_world"]

KEY: Final = "khk_test"
PAGE_EVENTS: Final = 3


class Connection:
    """One WebSocket at the node's end."""

    def __init__(self, world: World, socket: ServerSocket) -> None:
        self.world = world
        self.socket = socket
        self.is_frozen = False
        self.node = NodeModel(world.logs.values())
        self.node.token_ttl_ms = world.token_ttl_ms
        self.node.refusals = world.refusals
        self.is_open = True

    async def serve(self) -> None:
        """Answer until the client goes."""
        try:
            while True:
                data = await self.socket.get_message()
                if self.is_frozen:
                    await anyio.sleep_forever()
                hello_error = (
                    self.world.hello_errors.popleft()
                    if self.world.hello_errors and self.node.hello is None
                    else None
                )
                if hello_error is not None:
                    await self.fail(hello_error)
                    return
                for answer in self.node.receive(data):
                    await self.socket.send_message(answer)
                await self.pump()
        except PeerGone:
            return
        finally:
            self.is_open = False

    async def pump(self) -> None:
        """Send what is due, in messages of ``frames_per_message`` frames, through the world's fault."""
        for topic in self.node.topics:
            while messages := self.node.pump(topic, self.world.frames_per_message):
                for data in messages:
                    for piece in self.world.fault(data):
                        await self.socket.send_message(piece)

    async def send(self, message: codec.ServerControl) -> None:
        """Send one control message."""
        await self.socket.send_message(codec.encode_server_control(message))

    async def fail(self, reason: ReasonCode, *, retry_after_ms: int = 0) -> None:
        """Error, then close, as the registry says."""
        assert reason.close_code is not None
        await self.send(ErrorMessage.of(reason, retry_after_ms=retry_after_ms))
        await self.socket.aclose(reason.close_code, reason.name)

    async def reset(self) -> None:
        """Drop TCP without a close frame."""
        await self.socket.reset()


def _no_fault(data: bytes) -> list[bytes]:
    return [data]


@attrs.define
class World:
    """Logs, what the services were asked, and what they should do wrong."""

    logs: dict[TopicName, LogModel] = attrs.field(factory=dict)
    connections: list[Connection] = attrs.field(factory=list)
    requests: list[tuple[str, httpx.Request]] = attrs.field(factory=list)
    port: int = 0
    frames_per_message: int = 2
    token_ttl_ms: int = 300_000
    forbidden: set[str] = attrs.field(factory=set)
    refusals: dict[str, ErrorMessage] = attrs.field(factory=dict)
    fault: Callable[[bytes], list[bytes]] = _no_fault
    # Consumed from the left: what the next hellos end with, and what the next HTTP calls are answered.
    hello_errors: deque[ReasonCode | None] = attrs.field(factory=deque)
    http_troubles: deque[Exception | httpx.Response | None] = attrs.field(factory=deque)
    # Appends whose answer gets lost after they were committed.
    lost_answers: int = 0
    # Appends wait here before they are answered.
    append_gate: anyio.Event | None = None
    mint_gate: anyio.Event | None = None
    transition_gate: anyio.Event | None = None
    keys: dict[str, bytes] = attrs.field(factory=dict)
    # The client of the loop that serves this world.
    front: type[Khala] = attrs.field(default=TrioKhala)
    run_states: dict[str, int] = attrs.field(factory=dict)

    @property
    def settings(self) -> Settings:
        """Settings of a client of this world."""
        return Settings(
            control_url="http://control.test",
            runtime_url="http://runtime.test",
            sync_url=f"ws://127.0.0.1:{self.port}/sync/v1/ws",
            device_id="dev_00000001",
            key=KEY,
        )

    @property
    def open_connections(self) -> list[Connection]:
        """Connections that are open now."""
        return [connection for connection in self.connections if connection.is_open]

    def add(self, topic: TopicName, count: int = 0) -> LogModel:
        """Make a topic."""
        self.logs[topic] = LogModel(topic)
        self.logs[topic].append(count)
        return self.logs[topic]

    async def append(self, topic: TopicName, count: int = 1) -> None:
        """Commit frames, and let the node send them."""
        self.logs[topic].append(count)
        for connection in self.open_connections:
            await connection.pump()

    def calls(self, path_ending: str) -> list[httpx.Request]:
        """Return the requests to a route."""
        return [request for path, request in self.requests if path.endswith(path_ending)]

    # -- HTTP ------------------------------------------------------------------------------------

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one HTTP request."""
        await anyio.lowlevel.checkpoint()
        path = request.url.path
        self.requests.append((f"{request.method} {path}", request))
        trouble = self.http_troubles.popleft() if self.http_troubles else None
        if isinstance(trouble, Exception):
            raise trouble
        if trouble is not None:
            return trouble
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return problem(reason_codes.UNAUTHENTICATED)
        match request.method, path.strip("/").split("/"):
            case "POST", ["api", "sync", "token"]:
                if self.mint_gate is not None:
                    await self.mint_gate.wait()
                return self._mint(m.SyncTokenRequest.FromString(request.content))
            case "POST", ["v1", "runs"]:
                return self._create(request)
            case "GET", ["v1", "runs", run_id]:
                return self._get_run(run_id)
            case "POST", ["v1", "runs", run_id, "events"]:
                if self.append_gate is not None:
                    await self.append_gate.wait()
                return self._append(run_id, request)
            case "POST", ["v1", "runs", run_id, "transitions"]:
                if self.transition_gate is not None:
                    await self.transition_gate.wait()
                return self._transition(run_id, m.TransitionRunRequest.FromString(request.content))
            case "GET", ["v1", "runs", run_id, "events"]:
                return self._page(
                    run_id, int(request.url.params["after_seq"]), request.url.params.get("limit")
                )
            case "POST", ["v1", "app-topics", org_id, name, "events"]:
                return self._append_app(format_app(org_id, name), request)
            case "GET", ["v1", "topics", topic]:
                return self._topic(TopicName(topic))
            case _:
                return problem(reason_codes.NOT_FOUND)

    def _mint(self, body: m.SyncTokenRequest) -> httpx.Response:
        denied = [topic for topic in body.topics if topic in self.forbidden]
        if denied:
            return problem(reason_codes.FORBIDDEN, topic=denied[0])
        granted = [m.TopicGrant(topic=topic) for topic in body.topics]
        token = f"token-{len(self.requests)}"
        return success(m.SyncTokenResponse(token=token, jti="j", expires_at=1_300_000, grants=granted))

    def _create(self, request: httpx.Request) -> httpx.Response:
        body = m.CreateRunRequest.FromString(request.content)
        key = request.headers["Idempotency-Key"]
        if key in self.keys:
            return httpx.Response(201, content=self.keys[key], headers={"Content-Type": PROTOBUF})
        run_id = f"run_{len(self.run_states) + 1:026d}"
        log = self.add(TopicName(f"run:{run_id}:events"))
        self.run_states[run_id] = 2
        ack = self._write(log, "run.started", b"")
        answer = m.CreateRunResponse(run=self._run(run_id, name=body.name), ack=ack)
        self.keys[key] = answer.SerializeToString()
        return success(answer, 201)

    def _run(self, run_id: str, name: str = "") -> m.Run:
        state = m.RunState.Name(self.run_states[run_id])
        return m.Run(run_id=run_id, name=name, state=state, topic=f"run:{run_id}:events")

    def _get_run(self, run_id: str) -> httpx.Response:
        if run_id not in self.run_states:
            return problem(reason_codes.NOT_FOUND)
        return success(m.GetRunResponse(run=self._run(run_id)))

    def _append(self, run_id: str, request: httpx.Request) -> httpx.Response:
        log = self.logs[TopicName(f"run:{run_id}:events")]
        if request.headers["Content-Type"] == PROTOBUF:
            events = m.AppendEventsRequest.FromString(request.content).events
            poison = [event for event in events if b"poison" in event.payload_bytes]
            if poison:
                return problem(reason_codes.INVALID_ARGUMENT)
            answer = self._once(
                request, lambda: [self._write(log, event.kind, event.payload_bytes) for event in events]
            )
            response = success(m.AppendEventsResponse(acks=answer))
        else:
            lines = [strict_json.parse_strict(line, m.EventInput) for line in request.content.splitlines()]
            acks = [self._write_keyed(log, line) for line in lines]
            chunk = m.AppendStreamAck(committed=m.AppendEventsResponse(acks=acks))
            response = httpx.Response(200, content=strict_json.print_json(chunk))
        if self.lost_answers:
            self.lost_answers -= 1
            raise httpx.ReadTimeout("the answer got lost")
        return response

    def _append_app(self, topic: TopicName, request: httpx.Request) -> httpx.Response:
        if topic not in self.logs:
            return problem(reason_codes.NOT_FOUND)
        events = m.AppendEventsRequest.FromString(request.content).events
        acks = self._once(
            request,
            lambda: [self._write(self.logs[topic], event.kind, event.payload_bytes) for event in events],
        )
        if self.lost_answers:
            self.lost_answers -= 1
            raise httpx.ReadTimeout("the answer got lost")
        return success(m.AppendEventsResponse(acks=acks))

    def _once(self, request: httpx.Request, write: Callable[[], list[m.Ack]]) -> list[m.Ack]:
        key = request.headers["Idempotency-Key"]
        if key not in self.keys:
            self.keys[key] = m.AppendEventsResponse(acks=write()).SerializeToString()
        return list(m.AppendEventsResponse.FromString(self.keys[key]).acks)

    def _write_keyed(self, log: LogModel, line: m.EventInput) -> m.Ack:
        key = line.idempotency_key
        if key not in self.keys:
            self.keys[key] = self._write(log, line.kind, line.payload_bytes).SerializeToString()
        return m.Ack.FromString(self.keys[key])

    def _write(self, log: LogModel, kind: str, payload: bytes) -> m.Ack:
        seq = log.head_seq + 1
        log.frames.append(Frame(log.topic, seq, kind, payload, 1))
        log.chains.append(chain_next(log.chains[-1], seq, 1, kind, payload))
        return m.Ack(
            event_id=f"evt_{seq}", topic=log.topic, seq=seq, lineage=log.lineage, chain=log.chains[-1]
        )

    def _transition(self, run_id: str, body: m.TransitionRunRequest) -> httpx.Response:
        self.run_states[run_id] = body.to_state
        payload = json.dumps({"reason": body.reason}).encode()
        ack = self._write(self.logs[TopicName(f"run:{run_id}:events")], "run.finished", payload)
        return success(m.TransitionRunResponse(run=self._run(run_id), ack=ack))

    def _page(self, run_id: str, after_seq: int, limit: str | None) -> httpx.Response:
        log = self.logs[TopicName(f"run:{run_id}:events")]
        frames = log.after(after_seq, int(limit) if limit else PAGE_EVENTS)
        through = frames[-1].seq if frames else after_seq
        return success(
            m.ListEventsResponse(
                events=[
                    m.Event(
                        topic=log.topic,
                        seq=frame.seq,
                        kind=frame.kind,
                        payload_bytes=frame.payload,
                        schema_version=1,
                    )
                    for frame in frames
                ],
                watermark=m.Watermark(
                    topic=log.topic, lineage=log.lineage, seq=through, chain=log.chains[through]
                ),
                head_seq=log.head_seq,
                floor_seq=log.floor_seq,
                chain_before=log.chains[after_seq],
            )
        )

    def _topic(self, topic: TopicName) -> httpx.Response:
        if topic not in self.logs:
            return problem(reason_codes.NOT_FOUND)
        log = self.logs[topic]
        return success(
            m.TopicInfo(
                topic=topic,
                lineage=log.lineage,
                head_seq=log.head_seq,
                head_chain=log.chains[log.head_seq],
                floor_seq=log.floor_seq,
                floor_chain=log.chains[log.floor_seq - 1],
            )
        )

    # -- WebSocket -------------------------------------------------------------------------------

    async def serve_connection(self, stream: SocketStream) -> None:
        """Accept one WebSocket."""
        async with stream:
            socket = ServerSocket(stream)
            request = await socket.accept()
            assert request.path == "/sync/v1/ws"
            assert request.headers["Sec-WebSocket-Protocol"] == "khala.v1"
            assert not self.open_connections, "two sockets of one client at once"
            connection = Connection(self, socket)
            self.connections.append(connection)
            await connection.serve()


def success(message: Message, status: int = 200) -> httpx.Response:
    """Return an answer of a service."""
    return httpx.Response(status, content=message.SerializeToString(), headers={"Content-Type": PROTOBUF})


def problem(reason: ReasonCode, *, topic: str = "", retry_after_ms: int = 0) -> httpx.Response:
    """Return a refusal of a service."""
    row = REGISTRY[reason.name]
    error = m.Error(
        code=row.name,
        message=row.text,
        retryable=row.retryable,
        retry_after_ms=retry_after_ms,
        details={"topic": topic} if topic else {},
    )
    return success(error, row.http_status or 500)


@contextmanager
def _http_into(world: World) -> Iterator[None]:
    def open_mock() -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(world.handle), headers={"Accept": PROTOBUF})

    with patch("khala_client.ring.khala.open_http", open_mock):
        yield


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    """Serve a world inside the block."""
    world = World()
    with _http_into(world):
        async with serve_streams(world.serve_connection) as world.port:
            yield world
