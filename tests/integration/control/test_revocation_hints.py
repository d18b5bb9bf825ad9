"""Control hints through the driver after each transaction that wrote the log; on a real database."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from control.adapters.postgres.revocations import RevocationWriter
from control.core.revocations import session_ended
from fanout_drivers.base import RevocationsHint
from fanout_drivers.memory import MemoryDriver
from khala_service.adapters.postgres import open_asyncio_loop, open_pool
from khala_service.errors import Unavailable
from khala_service.identifiers import SystemIds
from tests.integration.control.rig import OTHER_DEVICE, ControlRig, bearer, make_config, running_control

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from fanout_drivers.base import FanoutSubscriber
    from tests.postgres_cluster import Database

HEARD_S = 10.0


@asynccontextmanager
async def running(
    database: Database, directory: Path, driver: MemoryDriver
) -> AsyncIterator[tuple[ControlRig, FanoutSubscriber]]:
    """Run control with the driver, and a node's end of it."""
    config = make_config(database, directory)
    async with (
        driver.open_subscriber() as subscriber,
        running_control(config, database, driver=driver) as rig,
    ):
        yield rig, subscriber


async def head_seq(control: ControlRig) -> int:
    """Return how far the log has come."""
    answer = await control.get("/internal/v1/revocations?after=0", control.config.node_credential.reveal())
    return int(answer.json()["head_seq"])


async def test_every_cause_hints(control_database: Database, tmp_path: Path) -> None:
    """Sign-out, revocation, reuse, a key, a user of a key's, a membership: whoever hears the hint finds the row."""
    async with running(control_database, tmp_path, MemoryDriver()) as (control, subscriber):
        ann, other = await control.sign_in("ann"), await control.sign_in("ann", OTHER_DEVICE)
        bob, carl = await control.sign_in("bob"), await control.sign_in("carl")
        key_id, secret = await control.create_key(ann, "mint", "read")
        subject = {"user_id": "u-17", "device_id": OTHER_DEVICE}
        minted = await control.mint(secret, f"app:{ann.org_id}:news", subject=subject)
        assert minted.status_code == 200, minted.text
        made = await control.post("/api/orgs", {"name": "acme"}, ann.access_token)
        org_id = made.json()["org_id"]
        member = {"user_id": bob.user_id, "role": "member"}
        await control.post(f"/api/orgs/{org_id}/members", member, ann.access_token)
        await control.post(
            "/api/auth/refresh", {"refresh_token": carl.refresh_token, "device_id": carl.session["device_id"]}
        )
        stolen = {"refresh_token": carl.refresh_token, "device_id": OTHER_DEVICE}
        token = ann.access_token
        causes: list[Callable[[], Awaitable[object]]] = [
            lambda: control.http.delete(f"/api/orgs/{org_id}/members/{bob.user_id}", headers=bearer(token)),
            lambda: control.post("/api/auth/revoke-subject", {"user_id": "u-17"}, secret),
            lambda: control.post(f"/api/keys/{key_id}/revoke", {}, token),
            lambda: control.post("/api/auth/refresh", stolen),
            lambda: control.post("/api/auth/sessions/revoke", {"scope": "REVOKE_SCOPE_OTHERS"}, token),
            lambda: control.post("/api/auth/logout", {}, token),
        ]
        assert other.session_id
        for number, cause in enumerate(causes):
            before = await head_seq(control)
            async with trio.open_nursery() as causing:
                causing.start_soon(cause)
                with trio.fail_after(HEARD_S):
                    assert await subscriber.receive() == RevocationsHint(), f"cause {number}"
                assert await head_seq(control) == before + 1, f"cause {number} hinted before its commit"
        metrics = (await control.get("/metrics")).text
        assert 'khala_control_revocation_hints_total{outcome="published"} 6.0' in metrics
        assert "khala_driver_connected 1.0" in metrics


async def test_what_ends_nothing_hints_nothing(control_database: Database, tmp_path: Path) -> None:
    """Signing in, minting, and ending what has ended."""
    async with running(control_database, tmp_path, MemoryDriver()) as (control, subscriber):
        ann = await control.sign_in("ann")
        await control.mint(ann.access_token, f"user:{ann.user_id}:runs")
        body = {"scope": "REVOKE_SCOPE_OTHERS"}
        assert (await control.post("/api/auth/sessions/revoke", body, ann.access_token)).status_code == 200
        with trio.move_on_after(0.3) as quiet:
            await subscriber.receive()
        assert quiet.cancelled_caught


@attrs.define(eq=False)
class _BadDriver(MemoryDriver):
    """Refuses, or never returns."""

    hangs: bool = False

    async def hint_revocations(self) -> None:
        if self.hangs:
            await trio.sleep_forever()
        raise Unavailable("broker_away")


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_driver_that_is_away_delays_no_revocation(
    control_database: Database, tmp_path: Path, hangs: bool
) -> None:
    """INV-27: refused or stuck for ever, the revocation is answered, and in the log; so is the next one."""
    async with running(control_database, tmp_path, _BadDriver(hangs=hangs)) as (control, _):
        ann = await control.sign_in("ann")
        for number in range(3):
            await control.sign_in("ann", OTHER_DEVICE)
            with trio.fail_after(HEARD_S):
                body = {"scope": "REVOKE_SCOPE_OTHERS"}
                done = await control.post("/api/auth/sessions/revoke", body, ann.access_token)
            assert done.status_code == 200
            assert await head_seq(control) == number + 1
        if not hangs:
            metrics = (await control.get("/metrics")).text
            assert 'khala_control_revocation_hints_total{outcome="published"} 0.0' in metrics
            assert 'khala_control_revocation_hints_total{outcome="failed"} 0.0' not in metrics


async def test_a_transaction_tells_when_it_has_ended(control_database: Database) -> None:
    """Once, after the commit and not before; also after a rollback, since a lost answer looks like one."""
    told: list[int] = []
    async with (
        open_asyncio_loop(),
        open_pool(control_database.dsn("khala_control"), application_name="test", max_size=2) as pool,
    ):

        async def count_rows() -> int:
            row = await pool.fetchrow("SELECT head_seq FROM control.revocation_head")
            assert row is not None
            return int(row["head_seq"])

        writer = RevocationWriter(lambda: told.append(1))
        rows = [session_ended(SystemIds().new("ses"))]
        async with pool.acquire() as connection:
            async with connection.transaction():
                await writer.append(connection, rows, cause="test", now_ms=1)
                assert not told
                assert await count_rows() == 0
            assert told == [1]
            assert await count_rows() == 1
            with suppress(KeyError):
                async with connection.transaction():
                    await writer.append(connection, rows, cause="test", now_ms=1)
                    raise KeyError
            assert told == [1, 1]
            async with connection.transaction():
                await writer.append(connection, [], cause="test", now_ms=1)
            assert told == [1, 1]
            assert await count_rows() == 1
