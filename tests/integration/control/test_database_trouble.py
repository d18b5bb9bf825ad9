"""DB-08 for control: while its database is away every route says `unavailable`; a token opens one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala_service.config import Secret
from khala_service.identifiers import SystemIds
from tests.integration.control.rig import (
    DEVICE,
    ControlRig,
    Document,
    Person,
    bearer,
    make_config,
    refusal,
    running_control,
)
from tests.integration.fragile_database import FragileDatabase, fragile_database
from tests.integration.runtime.cutting_proxy import cutting_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from tests.integration.fragile_database import Ending

REDEEM = "/internal/v1/sync-tokens/redeem"


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FragileDatabase]:
    """A server that every test of this module may end."""
    with fragile_database(tmp_path_factory.mktemp("fragile")) as database:
        yield database


@pytest.mark.parametrize("how", ["restart", "immediate", "kill"])
async def test_the_server_ends_under_load(fragile: FragileDatabase, tmp_path: Path, how: Ending) -> None:
    """Tokens are minted and redeemed all the time: 200 or 503, and a pair that was retried is not replayed."""
    config = make_config(fragile.database, tmp_path)
    async with running_control(config, fragile.database) as control:
        person = await control.sign_in()
        opened: list[Document] = []
        stop = trio.Event()

        async def connect(number: int) -> None:
            while not stop.is_set():
                minted = await _until_done(control, "/api/sync/token", _wanted(person), person.access_token)
                pair = _redemption(control, person, str(minted["jti"]), f"con_{number}_{len(opened)}")
                await _redeem_until_known(control, pair)
                opened.append(pair)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(connect, number)
            await _wait_count(opened, 10)
            await fragile.end_and_start(how, away_s=0.1)
            await _wait_count(opened, len(opened) + 10)
            stop.set()
        stolen = [{**pair, "connection_id": "con_thief"} for pair in opened[:256]]
        assert set(await control.redeem(*stolen)) == {"replayed"}


async def test_every_route_while_the_server_is_away(fragile: FragileDatabase, tmp_path: Path) -> None:
    """503 with a time to come back, never 500; readiness tells; the same requests work once it is back."""
    config = make_config(fragile.database, tmp_path)
    async with running_control(config, fragile.database) as control:
        person = await control.sign_in()
        pair = _redemption(control, person, SystemIds().new("jti"), "con_1")
        node = config.node_credential.reveal()
        runtime = config.runtime_credential.reveal()
        posts = (
            ("/api/sync/token", _wanted(person), person.access_token),
            (REDEEM, {"redemptions": [pair]}, node),
            ("/internal/v1/principals/resolve", {"credential": person.access_token}, runtime),
            ("/api/auth/exchange", {"code": "c" * 43, "code_verifier": "v" * 43}, None),
            ("/api/auth/refresh", {"refresh_token": person.refresh_token, "device_id": DEVICE}, None),
            ("/api/keys", {"name": "ci", "org_id": person.org_id, "rights": ["read"]}, person.access_token),
        )
        await trio.to_thread.run_sync(fragile.end, "immediate")
        try:
            for path, body, token in posts:
                _expect_unavailable(path, await control.post(path, body, token))
            _expect_unavailable("start", await control.walk_sign_in("bob"))
            _expect_unavailable("session", await control.get("/api/auth/session", person.access_token))
            await trio.sleep(0.3)  # answers of /readyz are shared for that long
            assert (await control.http.get("/readyz")).status_code == 503
            assert (await control.http.get("/healthz")).status_code == 200
        finally:
            await trio.to_thread.run_sync(fragile.start)
        await _redeem_until_known(control, pair)
        await _until_done(control, "/api/sync/token", _wanted(person), person.access_token)


async def test_nothing_gets_through(fragile: FragileDatabase, tmp_path: Path) -> None:
    """A network that swallows everything: unavailable within the time-outs; the same pair is ok afterwards."""
    direct = fragile.database.dsn("khala_control")
    async with cutting_proxy(direct) as proxy:
        config = attrs.evolve(
            make_config(fragile.database, tmp_path),
            database_dsn=Secret(proxy.dsn(direct)),
            database_statement_timeout_ms=200,
            database_acquire_timeout_ms=500,
        )
        async with running_control(config, fragile.database) as control:
            person = await control.sign_in()
            pair = _redemption(control, person, SystemIds().new("jti"), "con_1")
            proxy.swallow()
            node = config.node_credential.reveal()
            with trio.fail_after(10):
                _expect_unavailable("redeem", await control.post(REDEEM, {"redemptions": [pair]}, node))
                minted = await control.post("/api/sync/token", _wanted(person), person.access_token)
                _expect_unavailable("mint", minted)
            proxy.pass_on()
            await _redeem_until_known(control, pair)
            assert await control.redeem({**pair, "connection_id": "con_2"}) == ["replayed"]


def _wanted(person: Person) -> Document:
    return {"topics": [f"user:{person.user_id}:runs"]}


def _redemption(control: ControlRig, person: Person, jti: str, connection_id: str) -> Document:
    now_ms = int(control.clock.now() * 1000)
    return {
        "jti": jti,
        "connection_id": connection_id,
        "node_id": "nod_1",
        "session_id": person.session_id,
        "principal_id": person.user_id,
        "user_id": person.user_id,
        "device_id": DEVICE,
        "token_expires_at": now_ms + 300_000,
        "token_issued_at": now_ms,
    }


def _expect_unavailable(what: str, answer: httpx.Response) -> None:
    assert refusal(answer) == (503, "unavailable"), (what, answer.text)
    assert answer.json()["retry_after_ms"] > 0
    assert int(answer.headers["Retry-After"]) >= 1


async def _until_done(control: ControlRig, path: str, body: Document, token: str) -> Document:
    """Send the same request until it is done; anything but an honest refusal in between fails."""
    with trio.fail_after(20):
        while True:
            answer = await control.http.post(path, json=body, headers=bearer(token))
            if answer.status_code == 200:
                document: Document = answer.json()
                return document
            _expect_unavailable(path, answer)
            await trio.sleep(0.05)


async def _redeem_until_known(control: ControlRig, pair: Document) -> None:
    node = control.config.node_credential.reveal()
    answer = await _until_done(control, REDEEM, {"redemptions": [pair]}, node)
    assert answer["results"] == ["REDEEM_RESULT_OK"]


async def _wait_count(opened: list[Document], count: int) -> None:
    with trio.fail_after(30):
        while len(opened) < count:
            await trio.sleep(0.02)
