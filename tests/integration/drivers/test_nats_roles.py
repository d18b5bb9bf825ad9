"""What each role may do at a NATS server, and how it proves that it has the role: FD-08. Real servers."""

from __future__ import annotations

import base64
import binascii
import json
import subprocess
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import fanout_drivers.nats
from fanout_drivers.base import PositionUnknown, RecordCopy, RevocationsHint
from fanout_drivers.driver_watch import DriverWatch
from fanout_drivers.nats import NatsDriver
from fanout_drivers.nats_credentials import NatsKey
from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala.adapters.embedded_nats import nats_command, open_embedded_nats, wait_nats
from khala.adapters.embedded_nats_config import NatsServerTls
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.errors import Unavailable
from khala_service.logs import configure_logging
from khala_service.readiness import Readiness
from khala_service.secret import Secret
from tests.contract.driver_suite import TOPIC, receive_news, wait_healthy
from tests.integration.drivers.rig import PREFIX, free_port, login_of, running_driver
from tests.integration.drivers.test_nats_strangers import make_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fanout_drivers.base import FanoutDriver
    from khala.adapters.embedded_nats import NatsCommand

pytestmark = pytest.mark.slow

DEADLINE_S = 30.0


@asynccontextmanager
async def open_roles(command: NatsCommand, *roles: str) -> AsyncIterator[list[NatsDriver]]:
    """Connect a driver for each role."""
    async with AsyncExitStack() as held:
        await held.enter_async_context(open_asyncio_loop())
        drivers = []
        for role in roles:
            driver = NatsDriver((command.url,), login_of(command, role), PREFIX)
            drivers.append(await held.enter_async_context(running_driver(driver)))
            await wait_healthy(driver)
        with trio.fail_after(DEADLINE_S):
            yield drivers


async def wait_forbidden(driver: NatsDriver, count: int) -> None:
    """Return when the server has refused so many records."""
    while driver.counters.forbidden < count:
        await trio.sleep(0.01)


async def test_a_node_cannot_publish(
    nats_server: NatsCommand, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A record or a hint by a node's login reaches nobody, is counted and said; its connection goes on receiving."""
    monkeypatch.setattr(fanout_drivers.nats, "FORBIDDEN_PAUSE_S", 0.5)
    configure_logging("test")
    async with (
        open_roles(nats_server, "node", "node", "runtime") as (node, witness, runtime),
        node.open_subscriber() as own,
        witness.open_subscriber() as other,
    ):
        for subscriber in (own, other):
            await subscriber.subscribe(TOPIC)
        await node.publish(TOPIC, b"forged")
        await wait_forbidden(node, 1)
        with pytest.raises(Unavailable, match="broker_permission_refused"):
            await node.publish(TOPIC, b"forged")
        with pytest.raises(Unavailable, match="broker_permission_refused"):
            await node.hint_revocations()
        assert not node.publish_nowait(TOPIC, b"forged")
        assert not await node.check_health()
        assert node.counters.trouble == "broker_permission_refused"
        # The same connection; what the runtime publishes is all that anybody hears.
        await runtime.publish(TOPIC, b"true")
        for subscriber in (own, other):
            assert await receive_news(subscriber) == RecordCopy(TOPIC, b"true")
        assert node.counters.connects == 1
        # It is tried again after a pause, and refused again.
        await wait_healthy(node)
        assert node.counters.trouble == ""
        await node.hint_revocations()
        await wait_forbidden(node, 2)
        await runtime.publish(TOPIC, b"again")
        assert await other.receive() == RecordCopy(TOPIC, b"again"), "the hint of a node was heard"
    said = [line for line in capfd.readouterr().err.splitlines() if "broker_publish_forbidden" in line]
    assert len(said) == 2
    assert TOPIC not in "".join(said)


async def test_control_hints_and_no_more(nats_server: NatsCommand) -> None:
    """Control's login publishes hints, no records; a runtime's the other way round."""
    async with (
        open_roles(nats_server, "control", "runtime", "node") as (control, runtime, node),
        node.open_subscriber() as subscriber,
    ):
        await subscriber.subscribe(TOPIC)
        await control.hint_revocations()
        assert await subscriber.receive() == RevocationsHint()
        await control.publish(TOPIC, b"forged")
        await wait_forbidden(control, 1)
        await runtime.hint_revocations()
        await wait_forbidden(runtime, 1)
        assert control.counters.connects == runtime.counters.connects == node.counters.connects == 1


@pytest.mark.parametrize("role", ["runtime", "control"])
async def test_only_nodes_listen(nats_server: NatsCommand, role: str) -> None:
    """A subscription that the server refuses is said: nothing would ever come."""
    async with open_roles(nats_server, role) as (driver,), driver.open_subscriber() as subscriber:
        await subscriber.subscribe(TOPIC)
        while driver.counters.trouble != "broker_permission_refused":
            await trio.sleep(0.01)
        assert await receive_news(subscriber) == PositionUnknown(None)


async def test_a_wrong_credential_is_not_ready_and_says_why(nats_server: NatsCommand) -> None:
    """A node with another node's old password: not ready, and the word of the check names the login."""
    login = attrs.evolve(login_of(nats_server, "node"), password=Secret("yesterday's"))
    driver = NatsDriver((nats_server.url,), login, PREFIX)
    readiness = Readiness({"fanout": DriverWatch(driver, is_needed_at_start=True).check})
    with trio.fail_after(DEADLINE_S):
        async with open_asyncio_loop(), running_driver(driver):
            while (report := await readiness.report()).checks["fanout"] == "connecting":
                await trio.sleep(0.05)
            assert report.checks == {"fanout": "connecting: broker_login_refused"}
            assert not report.is_ready


# -- keys instead of passwords ---------------------------------------------------------------------


def encode_key(prefix: bytes, key: bytes) -> str:
    """Return a key as NATS writes it."""
    content = prefix + key
    return base64.b32encode(content + binascii.crc_hqx(content, 0).to_bytes(2, "little")).decode().rstrip("=")


# The letters with which NATS marks keys, in five bits each.
SEED, USER, ACCOUNT, OPERATOR = 18, 20, 0, 14


@attrs.frozen
class Issuer:
    """A key of an operator or an account, which signs JWTs as ``nsc`` does."""

    kind: int
    private: Ed25519PrivateKey = attrs.field(factory=Ed25519PrivateKey.generate)

    @property
    def public(self) -> str:
        """Its name."""
        return encode_key(bytes([self.kind << 3]), self.private.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        """Its secret."""
        prefix = bytes([SEED << 3 | self.kind >> 2, (self.kind << 6 | 0) & 0xFF])
        return encode_key(prefix, self.private.private_bytes_raw())

    def issue(self, subject: str, kind: str, **claims: object) -> str:
        """Return a signed JWT about somebody."""
        body = {
            "jti": subject, "iat": int(time.time()) - 10, "iss": self.public, "name": kind, "sub": subject,
            "nats": {"type": kind, "version": 2, **claims},
        }  # fmt: skip
        parts = [json.dumps(part).encode() for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)]
        signed = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
        signature = base64.urlsafe_b64encode(self.private.sign(signed.encode())).rstrip(b"=").decode()
        return f"{signed}.{signature}"


@contextmanager
def running_with(folder: Path, authorization: str) -> Iterator[NatsCommand]:
    """Start a server with a text of its own about who may connect."""
    command = nats_command(folder, free_port())
    config = Path(command.argv[-1])
    before, _, rest = config.read_text().partition("authorization {")
    assert "max_payload" in rest
    config.write_text(f"{before}{authorization}\nmax_payload: 1MB\n")
    with subprocess.Popen(
        command.argv, env=dict(command.env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield command
        finally:
            process.terminate()


@asynccontextmanager
async def open_configured(folder: Path, authorization: str) -> AsyncIterator[str]:
    """Run a server with a text of its own about who may connect; yields its address."""
    with running_with(folder, authorization) as command:
        with trio.fail_after(DEADLINE_S):
            await wait_nats(command)
        yield command.url


@asynccontextmanager
async def open_by_config(url: str, **fields: object) -> AsyncIterator[FanoutDriver]:
    """Open the driver as a node does."""
    config = FanoutConfig(driver="nats", nats_servers=(url,), nats_doorbell=False, **fields)  # type: ignore[arg-type]
    context = DriverContext(config=config, database_dsn=Secret("postgresql://nowhere"), component="node")
    async with open_asyncio_loop(), open_driver(context, is_one_process=False) as driver:
        yield driver


async def wait_trouble(driver: FanoutDriver, trouble: str) -> None:
    """Return when this is why there is no connection."""
    with trio.fail_after(DEADLINE_S):
        while driver.counters.trouble != trouble:
            await trio.sleep(0.02)


async def test_an_nkey_opens_and_another_does_not(tmp_path: Path) -> None:
    """The server knows the public key; only whoever has its seed gets in."""
    user = Issuer(USER)
    assert NatsKey.parse(Secret(user.seed)).public == user.public
    async with open_configured(tmp_path, f'authorization {{ users: [{{ nkey: "{user.public}" }}] }}') as url:
        async with open_by_config(url, nats_credentials=Secret(user.seed)) as driver:
            await wait_healthy(driver)
        async with open_by_config(url, nats_credentials=Secret(Issuer(USER).seed)) as driver:
            await wait_trouble(driver, "broker_login_refused")


async def test_a_credentials_file_opens_and_a_forged_one_does_not(tmp_path: Path) -> None:
    """A user's JWT, signed by an account that the server's operator signed; the permissions are those in it."""
    operator, account, user = Issuer(OPERATOR), Issuer(ACCOUNT), Issuer(USER)
    limits = {"subs": -1, "data": -1, "payload": -1}
    account_limits = {**limits, "imports": -1, "exports": -1, "conn": -1, "leaf": -1, "wildcards": True}
    account_jwt = operator.issue(account.public, "account", limits=account_limits)
    permissions = {"pub": {"deny": [">"]}, "sub": {"allow": [f"{PREFIX}.v1.>", "khala.>"]}}
    authorization = (
        f"operator: {operator.issue(operator.public, 'operator')}\nresolver: MEMORY\n"
        f'resolver_preload: {{ {account.public}: "{account_jwt}" }}'
    )

    def credentials(issuer: Issuer) -> Secret:
        jwt = issuer.issue(user.public, "user", **permissions, **limits)
        return Secret(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\nimportant\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )

    async with open_configured(tmp_path, authorization) as url:
        async with open_by_config(url, nats_credentials=credentials(account)) as driver:
            await wait_healthy(driver)
            await driver.publish(TOPIC, b"forged")
            with trio.fail_after(DEADLINE_S):
                assert isinstance(driver, NatsDriver)
                await wait_forbidden(driver, 1)
        async with open_by_config(url, nats_credentials=credentials(Issuer(ACCOUNT))) as driver:
            await wait_trouble(driver, "broker_login_refused")


async def test_certificates_of_both_sides(tmp_path: Path) -> None:
    """A server that asks for a certificate: with ours and its authority it is used; without either it is not."""
    folders = [tmp_path / name for name in ("server", "client")]
    for folder in folders:
        folder.mkdir()
    (server_cert, server_key), (cert, key) = (make_certificate(folder) for folder in folders)
    tls = NatsServerTls(cert=server_cert, key=server_key, client_ca=cert)
    async with open_embedded_nats(tmp_path, free_port(), tls=tls) as server:
        assert server.url.startswith("tls://")
        user, password = server.command.login("node")
        login = {"nats_user": user, "nats_password": Secret(password)}
        ours = {"nats_tls_cert": cert, "nats_tls_key": key}
        async with open_by_config(server.url, nats_tls_ca=server_cert, **ours, **login) as driver:
            await wait_healthy(driver)
        async with open_by_config(server.url, **ours, **login) as driver:
            await wait_trouble(driver, "broker_certificate_refused")
        async with open_by_config(server.url, nats_tls_ca=server_cert, **login) as driver:
            with trio.fail_after(DEADLINE_S):
                while not driver.counters.connect_failures:
                    await trio.sleep(0.02)
            assert driver.counters.connects == 0
