"""A control service on a real database and real sockets, beside a runtime that only knows owners."""

import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import asyncpg
import attrs
import httpx
import trio
from quart import Response, request

from control.adapters.configuration import ControlConfig
from control.app import serve_control
from fanout_drivers.base import FanoutDriver
from khala.adapters.free_ports import draw_port, is_free
from khala_contracts import http_messages as m
from khala_service.adapters.asyncio_bridge import run_in_asyncio
from khala_service.adapters.postgres import open_asyncio_loop
from khala_service.config import Secret
from khala_service.http_edge import make_app, read_body, respond, serve
from khala_service.identifiers import SystemIds, SystemRng
from khala_service.logs import configure_logging
from khala_service.metrics import MetricsRegistry
from khala_service.service_auth import ServiceCredentials, new_service_credential
from tests.postgres_cluster import Database

JSON: Final = {"Content-Type": "application/json"}
DEVICE: Final = "dev_0123456789abcdef"
OTHER_DEVICE: Final = "dev_fedcba9876543210"

# The last step of a sign-in.
Callback = Callable[[], Awaitable[httpx.Response]]
# What a response's JSON is: the tests look into it by name.
Document = dict[str, Any]


class ShiftedClock:
    """Wall time that a test may move."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def now(self) -> float:
        """Return Unix time, seconds."""
        return time.time() + self.offset_s


class StubRuntime:
    """The runtime's one internal route that control calls."""

    def __init__(self) -> None:
        self.owners: dict[str, tuple[str, str]] = {}
        self.asked: list[list[str]] = []
        self.answers_after_s = 0.0

    def add_run(self, owner_user_id: str, org_id: str = "") -> str:
        """Return the topic of a new run."""
        topic = f"run:{SystemIds().new('run')}:events"
        self.owners[topic] = (owner_user_id, org_id)
        return topic

    def add_worker(self, owner_user_id: str, org_id: str = "") -> str:
        """Return the topic of a new worker."""
        topic = f"worker:{SystemIds().new('wrk')}:events"
        self.owners[topic] = (owner_user_id, org_id)
        return topic

    async def serve(
        self, credential: Secret, *, drain: trio.Event, task_status: trio.TaskStatus[int]
    ) -> None:
        """Answer until `drain`."""
        app = make_app(
            "stub_runtime", metrics=MetricsRegistry("stub", process_metrics=False), ready_checks={}
        )
        callers = ServiceCredentials({"control": credential})

        @app.post("/internal/v1/topics/owners")
        async def owners() -> Response:
            callers.require(request.headers.get("Authorization"))
            body = await read_body(m.TopicOwnersRequest)
            self.asked.append(list(body.topics))
            await trio.sleep(self.answers_after_s)
            return respond(m.TopicOwnersResponse(owners=[self._owner(topic) for topic in body.topics]))

        await serve(app, host="127.0.0.1", port=0, shutdown=drain, task_status=task_status)

    def _owner(self, topic: str) -> m.TopicOwner:
        user_id, org_id = self.owners.get(topic, ("", ""))
        return m.TopicOwner(topic=topic, known=topic in self.owners, owner_user_id=user_id, org_id=org_id)


@attrs.define
class Person:
    """A signed-in person as its client knows itself."""

    access_token: str
    refresh_token: str
    session: Document

    @property
    def user_id(self) -> str:
        """Id of the user."""
        return str(self.session["user_id"])

    @property
    def org_id(self) -> str:
        """Id of the personal org."""
        return str(self.session["orgs"][0]["org_id"])

    @property
    def session_id(self) -> str:
        """Id of the session."""
        return str(self.session["session_id"])


@attrs.define
class ControlRig:
    """What a test sees of the service, and what it may turn."""

    http: httpx.AsyncClient
    runtime: StubRuntime
    clock: ShiftedClock
    log: io.StringIO
    config: ControlConfig
    database: Database

    async def get(self, path: str, token: str | None = None) -> httpx.Response:
        """GET with a bearer token."""
        return await self.http.get(path, headers=bearer(token))

    async def post(
        self, path: str, body: Mapping[str, object] | str, token: str | None = None, **headers: str
    ) -> httpx.Response:
        """POST JSON with a bearer token."""
        sent = {**JSON, **bearer(token), **headers}
        if isinstance(body, str):
            return await self.http.post(path, content=body, headers=sent)
        return await self.http.post(path, json=body, headers=sent)

    async def walk_sign_in(
        self,
        login: str = "ann",
        device_id: str = DEVICE,
        *,
        surface: str = "web",
        accept: str = "application/json",
    ) -> httpx.Response:
        """Go from the start through the development issuer to the callback; return its answer, or a refusal before."""
        return await (await self.walk_to_callback(login, device_id, surface=surface, accept=accept))()

    async def walk_to_callback(
        self, login: str, device_id: str, *, surface: str = "web", accept: str = "application/json"
    ) -> Callback:
        """Go as far as the issuer leads; what is returned makes the last request, or has the refusal before it."""

        async def refused(answer: httpx.Response) -> httpx.Response:
            return answer

        query = {"login_hint": login, "device_id": device_id, "surface": surface}
        started = await self.http.get("/api/auth/start", params=query)
        if not started.has_redirect_location:
            return partial(refused, started)
        granted = await self.http.get(started.headers["Location"])
        if not granted.has_redirect_location:
            return partial(refused, granted)
        # Its own: many sign-ins of one client at once would share the jar.
        cookie = f"khala_sign_in={started.cookies['khala_sign_in']}"
        headers = {"Accept": accept, "Cookie": cookie}
        return partial(self.http.get, granted.headers["Location"], headers=headers)

    async def sign_in(self, login: str = "ann", device_id: str = DEVICE) -> Person:
        """Sign a development user in."""
        return signed_in(await self.walk_sign_in(login, device_id))

    async def create_key(self, person: Person, *rights: str, **fields: object) -> tuple[str, str]:
        """Create a service key in the personal org; return its id and secret."""
        body = {"name": "ci", "org_id": person.org_id, "rights": list(rights), **fields}
        answer = await self.post("/api/keys", body, person.access_token)
        assert answer.status_code == 201, answer.text
        return answer.json()["key"]["key_id"], answer.json()["secret"]

    async def mint(self, token: str, *topics: str, **fields: object) -> httpx.Response:
        """Ask for a sync token."""
        return await self.post("/api/sync/token", {"topics": list(topics), **fields}, token)

    async def redeem(self, *redemptions: Mapping[str, object]) -> list[str]:
        """Redeem as a node; return the words of the results."""
        answer = await self.post(
            "/internal/v1/sync-tokens/redeem",
            {"redemptions": list(redemptions)},
            self.config.node_credential.reveal(),
        )
        assert answer.status_code == 200, answer.text
        return [result.removeprefix("REDEEM_RESULT_").lower() for result in answer.json()["results"]]

    async def rows(self, sql: str, *args: object) -> list[Document]:
        """Run SQL as the schema's owner and return its rows."""
        dsn = self.database.dsn("khala_control_owner")

        async def fetch() -> list[Document]:
            connection = await asyncpg.connect(dsn)
            try:
                return [dict(row) for row in await connection.fetch(sql, *args)]
            finally:
                connection.terminate()

        return await run_in_asyncio(fetch)


def signed_in(answer: httpx.Response) -> Person:
    """Return who a callback has signed in."""
    assert answer.status_code == 200, answer.text
    document = answer.json()
    return Person(document["access_token"], document["refresh_token"], document["session"])


def bearer(token: str | None) -> dict[str, str]:
    """Return the header of a credential."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def free_port() -> int:
    """Return a port of loopback that is free now, below those that the kernel gives out."""
    return next(port for port in iter(draw_port, None) if is_free(port))


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of an Error body."""
    return answer.status_code, str(answer.json()["code"])


def make_config(
    database: Database, directory: Path, *, mode: Literal["dev", "production"] = "dev"
) -> ControlConfig:
    """Return a configuration with credentials of its own and a free port that nobody else draws."""
    rng = SystemRng()
    return ControlConfig(
        database_dsn=Secret(database.dsn("khala_control")),
        runtime_url="http://127.0.0.1:9",
        service_credential=new_service_credential(rng.token_bytes),
        runtime_credential=new_service_credential(rng.token_bytes),
        node_credential=new_service_credential(rng.token_bytes),
        admin_token=Secret(rng.token_bytes(24).hex()),
        signing_keys_file=directory / "control_signing_keys.json",
        mode=mode,
        # Known beforehand: the issuer of dev mode is reached at it.
        port=free_port(),
        drain_notice_s=0.0,
    )


@asynccontextmanager
async def running_control(
    config: ControlConfig, database: Database, *, driver: FanoutDriver | None = None
) -> AsyncIterator[ControlRig]:
    """Yield the service with its stub runtime; stop both when the block is left."""
    log, clock, runtime, drain = io.StringIO(), ShiftedClock(), StubRuntime(), trio.Event()
    configure_logging("control", level="debug", stream=log, human=False)
    try:
        async with open_asyncio_loop(), trio.open_nursery() as nursery:
            runtime_port = await nursery.start(partial(runtime.serve, config.service_credential, drain=drain))
            config = attrs.evolve(config, runtime_url=f"http://127.0.0.1:{runtime_port}")
            endpoints = await nursery.start(
                partial(serve_control, config, driver=driver, drain=drain, clock=clock)
            )
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{endpoints.port}", trust_env=False, timeout=20
            ) as http:
                yield ControlRig(http, runtime, clock, log, config, database)
            drain.set()
        # Nothing that a client sends may reach our own mistakes.
        assert "request_failed" not in log.getvalue(), log.getvalue()
    finally:
        configure_logging("control")
