"""What control mints is what a node accepts: the two ends of one token, by their own code."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import httpx
import jwt
import pytest
import trio

from control.adapters.signing_keys import load_key_ring
from khala.adapters.control_http import HttpControlClient
from khala.adapters.sync_tokens import JwksTokenVerifier
from khala.ports import ControlUnavailableError, TokenRefusedError
from khala_contracts import reason_codes
from khala_contracts.ids import is_device_id, is_id
from khala_service.adapters.http_client import open_service_client
from tests.integration.control.rig import DEVICE, ControlRig, free_port, make_config, running_control
from tests.postgres_cluster import Database


class PublishedKeys:
    """The node's source of keys, over control's public route."""

    def __init__(self, control: ControlRig) -> None:
        self._control = control

    async def fetch_keys(self) -> list[dict[str, object]]:
        """Return the key set."""
        answer = await self._control.http.get("/.well-known/jwks.json")
        keys: list[dict[str, object]] = answer.json()["keys"]
        return keys


@pytest.fixture
async def control(control_database: Database, tmp_path: Path) -> AsyncIterator[ControlRig]:
    """A service of its own per test."""
    async with running_control(make_config(control_database, tmp_path), control_database) as rig:
        yield rig


async def test_every_kind_of_sync_token_opens(control: ControlRig) -> None:
    """A person's, a key's and a derived user's token pass the node's verifier with all they say."""
    person = await control.sign_in()
    _, secret = await control.create_key(person, "read", "mint")
    run = control.runtime.add_run(person.user_id, person.org_id)
    subject = {"user_id": "customer", "device_id": DEVICE}
    verifier = JwksTokenVerifier(PublishedKeys(control))
    for answer in (
        await control.mint(person.access_token, run, f"device:{DEVICE}:inbox"),
        await control.mint(secret, run, device_id=DEVICE),
        await control.mint(secret, run, subject=subject),
    ):
        document = answer.json()
        claims = await verifier.verify(document["token"])
        assert claims.jti == document["jti"]
        assert claims.expires_at_s * 1000 == int(document["expires_at"])
        assert [grant.topic for grant in claims.grants] == [grant["topic"] for grant in document["grants"]]
        assert is_id("ses", claims.session_id)
        assert is_id("usr", claims.user_id)
        assert is_device_id(claims.device_id)
        redemption = {
            "jti": claims.jti,
            "connection_id": "con_1",
            "node_id": "nod_1",
            "session_id": claims.session_id,
            "principal_id": claims.principal_id,
            "user_id": claims.user_id,
            "device_id": claims.device_id,
            "token_expires_at": claims.expires_at_s * 1000,
            "token_issued_at": claims.issued_at_s * 1000,
        }
        assert await control.redeem(redemption) == ["ok"]


async def test_the_largest_token_fits_into_a_hello(control: ControlRig) -> None:
    """256 topics of the longest kind a person can ask for stay below the 64 KiB of one message."""
    person = await control.sign_in()
    topics = [f"app:{person.org_id}:{'x' * 59}-{number:03d}" for number in range(256)]
    token = (await control.mint(person.access_token, *topics)).json()["token"]
    assert len(token) < 64 * 1024 - 512
    claims = await JwksTokenVerifier(PublishedKeys(control)).verify(token)
    assert len(claims.grants) == 256


async def test_tokens_of_another_kind_do_not_open(control: ControlRig) -> None:
    """An access token and a sync token of another control are refused by the node."""
    person = await control.sign_in()
    verifier = JwksTokenVerifier(PublishedKeys(control))
    with pytest.raises(TokenRefusedError):
        await verifier.verify(person.access_token)
    directory = control.config.signing_keys_file.parent / "other"
    directory.mkdir()
    async with running_control(make_config(control.database, directory), control.database) as other:
        stranger = await other.sign_in()
        token = (await other.mint(stranger.access_token, f"user:{stranger.user_id}:runs")).json()["token"]
    with pytest.raises(TokenRefusedError):
        await verifier.verify(token)
    assert jwt.get_unverified_header(token)["alg"] == "EdDSA"


class LossyNetwork(httpx.AsyncBaseTransport):
    """Carries every request to control and loses the first answers on their way back."""

    def __init__(self, lost: int) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self.lost = lost
        self.carried = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Let control do it; then perhaps nobody hears of it."""
        response = await self._inner.handle_async_request(request)
        await response.aread()
        await response.aclose()
        self.carried += 1
        if self.lost > 0:
            self.lost -= 1
            raise httpx.ReadError("the answer is lost")
        return response

    async def aclose(self) -> None:
        """Close what it carries over."""
        await self._inner.aclose()


async def test_a_lost_answer_burns_no_token(control: ControlRig) -> None:
    """Control has redeemed and nobody heard: the same connection is let in, no other one ever is."""
    person = await control.sign_in()
    minted = (await control.mint(person.access_token, f"user:{person.user_id}:runs")).json()
    claims = await JwksTokenVerifier(PublishedKeys(control)).verify(minted["token"])
    network = LossyNetwork(lost=1)
    async with (
        open_service_client(
            str(control.http.base_url),
            peer="control",
            credential=control.config.node_credential,
            transport=network,
        ) as http,
        trio.open_nursery() as nursery,
    ):
        node = HttpControlClient(http, "node-1")
        nursery.start_soon(node.run)
        assert await node.redeem(claims, "con_1") is None
        assert network.carried == 2
        assert await node.redeem(claims, "con_2") is reason_codes.TOKEN_REPLAYED
        # Every answer lost: the hello is told "unavailable", and may come again over the same connection id.
        second = (await control.mint(person.access_token, f"user:{person.user_id}:runs")).json()
        claims = await JwksTokenVerifier(PublishedKeys(control)).verify(second["token"])
        network.lost = 2
        with pytest.raises(ControlUnavailableError):
            await node.redeem(claims, "con_3")
        assert await node.redeem(claims, "con_3") is None
        nursery.cancel_scope.cancel()
    rows = await control.rows(
        "SELECT jti, connection_id FROM control.token_redemptions ORDER BY connection_id"
    )
    assert [row["connection_id"] for row in rows] == ["con_1", "con_3"]


async def test_signing_keys_are_replaced_while_tokens_live(control: ControlRig, tmp_path: Path) -> None:
    """Tokens of the old key open while the ring has it, new ones are signed by the new; a node learns it by itself."""
    person = await control.sign_in()
    topic = f"user:{person.user_id}:runs"
    ring = json.loads(control.config.signing_keys_file.read_text())
    before = (await control.mint(person.access_token, topic)).json()["token"]
    other = tmp_path / "next.json"
    load_key_ring(other, may_create=True)
    for keys, are_good in (
        ([*json.loads(other.read_text()), *ring], (True, True)),
        (json.loads(other.read_text()), (False, True)),
    ):
        control.config.signing_keys_file.write_text(json.dumps(keys))
        config = attrs.evolve(control.config, port=free_port())
        async with running_control(config, control.database) as restarted:
            # A node that has seen only the old key fetches the ring for the unknown kid.
            verifier = JwksTokenVerifier(PublishedKeys(restarted))
            access = person.access_token if are_good[0] else (await restarted.sign_in()).access_token
            after = (await restarted.mint(access, topic)).json()["token"]
            assert jwt.get_unverified_header(after)["kid"] == keys[0]["kid"]
            for token, is_good in zip((before, after), are_good, strict=True):
                if is_good:
                    await verifier.verify(token)
                else:
                    with pytest.raises(TokenRefusedError):
                        await verifier.verify(token)
