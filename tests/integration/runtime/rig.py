"""A runtime on a real database and real sockets, beside a control that only knows bearers."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import httpx
import trio
from quart import Response, request

from fanout_drivers.memory import MemoryDriver
from khala_contracts import http_messages as m
from khala_contracts import kinds, reason_codes
from khala_contracts.sync_claims import PrincipalKind
from khala_service.adapters.postgres import open_asyncio_loop, open_pool
from khala_service.config import Secret
from khala_service.http_edge import HttpProblem, make_app, read_body, respond, serve
from khala_service.metrics import MetricsRegistry
from khala_service.service_auth import ServiceCredentials
from runtime.adapters.configuration import RuntimeConfig
from runtime.app import RuntimeEndpoints, serve_runtime
from runtime.core.limits import RuntimeLimits
from tests.actors.runtime.rig import KEY, ORG, OTHER_USER, USER, make_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from fanout_drivers.base import FanoutDriver
    from khala_service.adapters.postgres import PostgresPool
    from tests.postgres_cluster import Database

PROTOBUF: Final = "application/x-protobuf"
PROTOBUF_STREAM: Final = "application/x-protobuf-stream"
NDJSON: Final = "application/x-ndjson"
RUNTIME_CREDENTIAL: Final = Secret("khs_" + "r" * 43)
CONTROL_CREDENTIAL: Final = Secret("khs_" + "c" * 43)
FANOUT_KEY: Final = bytes(range(32))

# What a response's JSON is: the tests look into it by name.
Document = dict[str, Any]


def _person(user_id: str, org_id: str = "", role: str = "member") -> m.Principal:
    orgs = [m.OrgMembership(org_id=org_id, name="org", role=role)] if org_id else []
    return m.Principal(
        kind=m.PRINCIPAL_KINDS.to_wire(PrincipalKind.PERSON),
        principal_id=user_id,
        user_id=user_id,
        device_id="dev_00000000",
        orgs=orgs,
        expires_at=4_000_000_000_000,
    )


def _service_key(*rights: str, topics: Sequence[str] = ()) -> m.Principal:
    return m.Principal(
        kind=m.PRINCIPAL_KINDS.to_wire(PrincipalKind.SERVICE),
        principal_id=KEY,
        user_id=USER,
        rights=rights,
        topics=topics,
        orgs=[m.OrgMembership(org_id=ORG, name="org", role="member")],
        expires_at=4_000_000_000_000,
    )


ADMIN: Final = make_id("usr", 3)
# Bearer -> who it is.
PRINCIPALS: Final = {
    "user": _person(USER),
    "other": _person(OTHER_USER),
    "member": _person(OTHER_USER, ORG),
    "publisher": _service_key("publish"),
    "reader": _service_key("read"),
    "shop": _service_key("publish", "read", topics=[f"app:{ORG}:shop"]),
    "colleague": _person(USER, ORG),
    "admin": _person(ADMIN, ORG, "admin"),
}
# Who belongs to ORG, as control answers when it is asked about one user.
MEMBERS: Final = {USER, OTHER_USER, ADMIN}


@attrs.define
class StubControl:
    """Control's internal routes that the runtime calls."""

    revoked: set[str] = attrs.field(factory=set)
    members: set[str] = attrs.field(factory=lambda: set(MEMBERS))
    questions: int = 0

    async def serve(self, *, drain: trio.Event, port: int = 0, task_status: trio.TaskStatus[int]) -> None:
        """Answer until `drain`."""
        app = make_app(
            "stub_control", metrics=MetricsRegistry("stub", process_metrics=False), ready_checks={}
        )
        callers = ServiceCredentials({"runtime": RUNTIME_CREDENTIAL})

        @app.post("/internal/v1/principals/resolve")
        async def resolve() -> Response:
            callers.require(request.headers.get("Authorization"))
            body = await read_body(m.ResolvePrincipalRequest)
            self.questions += 1
            if body.credential not in PRINCIPALS or body.credential in self.revoked:
                raise HttpProblem(reason_codes.UNAUTHENTICATED)
            return respond(PRINCIPALS[body.credential])

        @app.get("/internal/v1/orgs/<org_id>/members/<user_id>")
        async def find_member(org_id: str, user_id: str) -> Response:
            callers.require(request.headers.get("Authorization"))
            if org_id != ORG or user_id not in self.members:
                raise HttpProblem(reason_codes.NOT_FOUND)
            return respond(m.OrgMember(user_id=user_id, role="member"))

        await serve(app, host="127.0.0.1", port=port, shutdown=drain, task_status=task_status)


@attrs.define
class RuntimeRig:
    """What a test sees of the service."""

    http: httpx.AsyncClient
    database: Database
    pool: PostgresPool
    control: StubControl
    driver: FanoutDriver
    drain: trio.Event

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        bearer: str = "user",
        key: str | None = None,
        content: bytes | None = None,
        media_type: str = "application/json",
        accept: str = "application/json",
    ) -> httpx.Response:
        """Send one request; `body` is sent as JSON, `content` as it is."""
        headers = {"Authorization": f"Bearer {bearer}", "Accept": accept}
        if key is not None:
            headers["Idempotency-Key"] = key
        data = content
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = media_type
        return await self.http.request(method, path, content=data, headers=headers)

    async def json(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        status: int = 200,
        bearer: str = "user",
        key: str | None = None,
    ) -> Document:
        """Send one request and return the JSON of its answer, whose status must be `status`."""
        response = await self.call(method, path, body, bearer=bearer, key=key)
        assert response.status_code == status, response.text
        document: Document = response.json()
        return document

    async def make_run(self, bearer: str = "user", **fields: object) -> str:
        """Return the id of a new run."""
        answer = await self.json("POST", "/v1/runs", fields, status=201, bearer=bearer)
        return str(answer["run"]["run_id"])

    async def append(
        self, run_id: str, *texts: str, bearer: str = "user", key: str | None = None
    ) -> list[Document]:
        """Append thoughts and return their acks."""
        body = {"events": [thought(text) for text in texts]}
        answer = await self.json("POST", f"/v1/runs/{run_id}/events", body, bearer=bearer, key=key)
        acks: list[Document] = answer["acks"]
        return acks

    async def texts(self, run_id: str) -> list[str]:
        """Return the texts of the run's thoughts, from the event log."""
        rows = await self.pool.fetch(
            "SELECT payload FROM runtime.events WHERE topic = $1 AND kind = 'thought' ORDER BY seq",
            f"run:{run_id}:events",
        )
        return [str(kinds.decode_payload("thought", row["payload"])["text"]) for row in rows]

    async def counts(self) -> tuple[int, ...]:
        """Return how many rows each table has: what must not change when something is refused.

        Without the lists of runs, which are written a moment after what they tell.
        """
        listed = "WHERE topic NOT LIKE 'user:%' AND topic NOT LIKE 'org:%'"
        tables = {
            "events": listed,
            "journal": listed,
            "topic_heads": listed,
            "runs": "",
            "idempotency_keys": "",
        }
        row = await self.pool.fetchrow(
            "SELECT "
            + ", ".join(f"(SELECT count(*) FROM runtime.{table} {only})" for table, only in tables.items())
        )
        assert row is not None
        return tuple(row)

    async def metric(self, name: str) -> float:
        """Return the sum of a metric's series at /metrics."""
        text = (await self.http.get("/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith((name + " ", name + "{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@attrs.frozen(kw_only=True)
class Settings:
    """What a test configures; the rest is as in production."""

    limits: RuntimeLimits = attrs.field(factory=RuntimeLimits)
    publish_rate_per_s: dict[str, float] = attrs.field(factory=dict)
    # None: the database directly.
    dsn: str | None = None
    port: int = 0
    driver: FanoutDriver = attrs.field(factory=MemoryDriver)
    # Fields of RuntimeConfig by name.
    changes: dict[str, Any] = attrs.field(factory=dict)


def make_config(database: Database, control_port: int, settings: Settings) -> RuntimeConfig:
    """Return a configuration for this database."""
    config = RuntimeConfig(
        database_dsn=Secret(settings.dsn or database.dsn("khala_runtime")),
        control_url=f"http://127.0.0.1:{control_port}",
        service_credential=RUNTIME_CREDENTIAL,
        control_credential=CONTROL_CREDENTIAL,
        fanout_key=Secret(FANOUT_KEY.hex()),
        fanout_key_id="test",
        port=settings.port,
        drain_notice_s=0.0,
        limits=settings.limits,
        publish_rate_per_s=settings.publish_rate_per_s,
    )
    return attrs.evolve(config, **settings.changes)


async def eventually(is_true: Callable[[], Awaitable[bool]], *, within_s: float = 10.0) -> None:
    """Wait until a condition holds."""
    with trio.fail_after(within_s):
        while True:
            if await is_true():
                return
            await trio.sleep(0.02)


def stream_body(events: Sequence[Document]) -> bytes:
    """Return events as NDJSON."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def thought(text: str, key: str = "") -> Document:
    """Return one event input."""
    event: Document = {"kind": "thought", "data": {"text": text}}
    return event | ({"idempotency_key": key} if key else {})


@asynccontextmanager
async def running_runtime(database: Database, settings: Settings | None = None) -> AsyncIterator[RuntimeRig]:
    """Serve a runtime; needs the asyncio loop to be open."""
    chosen = settings or Settings()
    control = StubControl()
    control_drain, drain = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        control_port = await nursery.start(partial(control.serve, drain=control_drain))
        config = make_config(database, control_port, chosen)
        endpoints: RuntimeEndpoints = await nursery.start(
            partial(serve_runtime, config, driver=chosen.driver, drain=drain)
        )
        base_url = f"http://127.0.0.1:{endpoints.port}"
        async with (
            open_pool(database.superuser_dsn, application_name="khala-test", max_size=4) as pool,
            httpx.AsyncClient(
                base_url=base_url, timeout=30, limits=httpx.Limits(max_connections=200), trust_env=False
            ) as http,
        ):
            yield RuntimeRig(http, database, pool, control, chosen.driver, drain)
        drain.set()
        control_drain.set()


@asynccontextmanager
async def open_runtime(database: Database, settings: Settings | None = None) -> AsyncIterator[RuntimeRig]:
    """Serve a runtime in an asyncio loop of its own."""
    async with open_asyncio_loop(), running_runtime(database, settings) as rig:
        yield rig


SMALL: Final = RuntimeLimits(
    append_events_max=5, append_bytes_max=2_000, page_events_max=10, page_runs_max=3, key_bytes_max=10
)
