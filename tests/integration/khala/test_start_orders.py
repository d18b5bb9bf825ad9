"""KH-41: a whole node that starts before its database, control or broker: refuses with a time, then is ready."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING

import attrs
import httpx
import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from fanout_drivers.memory import MemoryDriver
from khala.app import NodeConfig, serve_node
from khala_contracts import http_messages as m
from khala_contracts import sync_claims
from khala_contracts.codec import ErrorMessage, Welcome
from khala_service.adapters.postgres import open_asyncio_loop, open_pool
from khala_service.config import Secret
from khala_service.http_edge import make_app, read_body, respond, serve
from khala_service.identifiers import SystemClock
from khala_service.metrics import MetricsRegistry
from tests.actors.khala.node_under_test import hello_with
from tests.integration.khala.rig import BareClient, open_socket
from tests.integration.khala.troubled_proxy import TroubledProxy, troubled_proxy
from tests.postgres_cluster import Database  # noqa: TC001  # pytest looks at annotations of fixtures
from tests.topic_log import LINEAGE, claims_for, run_topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from quart import Response
    from quart_trio import QuartTrio

PARTS = ("database", "control", "broker")
TOPIC = run_topic(1)
# SPEC: after the last of them is up.
READY_S = 10.0


@attrs.define(eq=False)
class FakeControl:
    """Control's two routes that a node calls; it can be switched on."""

    port: int
    key: Ed25519PrivateKey = attrs.field(factory=Ed25519PrivateKey.generate)
    spent: dict[str, str] = attrs.field(factory=dict)

    def token(self, jti: str) -> str:
        """Return a token for the topic."""
        now_s = round(SystemClock().now())
        claims = attrs.evolve(claims_for(TOPIC), jti=jti, issued_at_s=now_s, expires_at_s=now_s + 300)
        return jwt.encode(sync_claims.to_claims(claims), self.key, algorithm="EdDSA", headers={"kid": "k"})

    def app(self) -> QuartTrio:
        """Return its routes."""
        app = make_app("control", metrics=MetricsRegistry("control"), ready_checks={})

        @app.get("/.well-known/jwks.json")
        async def keys() -> dict[str, object]:
            jwk = OKPAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            return {"keys": [{**jwk, "kid": "k"}]}

        @app.post("/internal/v1/sync-tokens/redeem")
        async def redeem() -> Response:
            asked = await read_body(m.RedeemRequest)
            for one in asked.redemptions:
                self.spent[one.jti] = one.connection_id
            ok = next(number for number, word in m.REDEEM_RESULTS.words.items() if word == "ok")
            return respond(m.RedeemResponse(results=[ok] * len(asked.redemptions)))

        @app.get("/internal/v1/revocations")
        async def revocations() -> Response:
            return respond(m.RevocationsResponse(head_seq=0, floor_seq=1))

        return app


@attrs.define(eq=False)
class SlowDriver(MemoryDriver):
    """A driver whose broker is away until a test says otherwise."""

    is_connected: bool = False

    async def check_health(self) -> bool:
        """Whether the broker is there."""
        await trio.lowlevel.checkpoint()
        return self.is_connected


@attrs.define(eq=False)
class World:
    """One node, and what it needs, each to be brought up by a test."""

    nursery: trio.Nursery
    database: Database
    proxy: TroubledProxy
    control: FakeControl
    driver: SlowDriver
    node_port: int = 0
    admin_port: int = 0

    async def bring_up(self, part: str) -> None:
        """Start one part."""
        match part:
            case "database":
                self.proxy.become("passes")
            case "control":
                serving = partial(
                    serve, self.control.app(), host="127.0.0.1", port=self.control.port, shutdown=trio.Event()
                )
                await self.nursery.start(serving)
            case _:
                assert part == "broker"
                self.driver.is_connected = True

    async def readiness(self) -> tuple[bool, dict[str, str]]:
        """Ask the node."""
        async with httpx.AsyncClient(trust_env=False) as http:
            response = await http.get(f"http://127.0.0.1:{self.admin_port}/readyz")
        document = response.json()
        assert (response.status_code == 200) == document["ready"]
        return document["ready"], document["checks"]

    async def say_hello(self, jti: str) -> BareClient:
        """Connect and say hello; return once it is answered."""
        client = await open_socket(self.node_port, self.nursery)
        await client.say(hello_with(self.control.token(jti)))
        await client.wait(lambda: bool(client.of(Welcome) or client.of(ErrorMessage)))
        return client


@asynccontextmanager
async def open_world(database: Database) -> AsyncIterator[World]:
    """Run a node for which nothing is there."""
    dsn = database.dsn("khala_reader")
    listening = await trio.open_tcp_listeners(0, host="127.0.0.1")
    control_port = listening[0].socket.getsockname()[1]
    await listening[0].aclose()
    async with open_asyncio_loop(), troubled_proxy(dsn) as proxy, trio.open_nursery() as nursery:
        async with open_pool(database.superuser_dsn, application_name="khala-test", max_size=1) as pool:
            await pool.execute(
                "INSERT INTO runtime.lineage VALUES ($1, NULL, 'test', '1', 1, '0/0', clock_timestamp(), true)",
                LINEAGE,
            )
        proxy.become("refuses")
        world = World(nursery, database, proxy, FakeControl(control_port), SlowDriver())
        config = NodeConfig(
            database_dsn=Secret(proxy.dsn(dsn)),
            control_url=f"http://127.0.0.1:{control_port}",
            service_credential=Secret("khs_" + "a" * 43),
            fanout_keys={"1": Secret("0f" * 32)},
            port=0,
            admin_port=0,
        )
        endpoints = await nursery.start(partial(serve_node, config, driver=world.driver))
        world.node_port, world.admin_port = endpoints.port, endpoints.admin_port
        yield world
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("order", list(permutations(PARTS)))
async def test_every_order_ends_ready(runtime_database: Database, order: tuple[str, ...]) -> None:
    """Not ready and says why, refuses hellos without spending their tokens, then ready by itself."""
    async with open_world(runtime_database) as world:
        for number, part in enumerate(order):
            is_ready, checks = await world.readiness()
            assert not is_ready
            names = {"database": "journal", "control": "control_keys", "broker": "fanout"}
            assert all(checks[names[missing]] != "ok" for missing in order[number:])
            client = await world.say_hello(f"early-{number}")
            (refused,) = client.of(ErrorMessage)
            assert (refused.code, refused.retry_after_ms > 0) == ("unavailable", True)
            await world.bring_up(part)
        assert world.control.spent == {}
        with trio.fail_after(READY_S):
            # The very token that was refused before opens the connection now.
            while not (client := await world.say_hello("early-0")).of(Welcome):
                await trio.sleep(0.1)
            while not (await world.readiness())[0]:
                await trio.sleep(0.1)
        assert list(world.control.spent) == ["early-0"]
        await client.subscribe(TOPIC)
        await client.wait(lambda: bool(client.of(ErrorMessage)))
        assert client.of(ErrorMessage)[0].code == "forbidden"  # a topic that does not exist
