"""What control mints is what a node accepts: the two ends of one token, by their own code."""

from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest

from khala.adapters.sync_tokens import JwksTokenVerifier
from khala.ports import TokenRefusedError
from khala_contracts.ids import is_device_id, is_id
from tests.integration.control.rig import DEVICE, ControlRig, make_config, running_control
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
