"""The cluster of runbooks/drivers.md, as it is written there: three servers with TLS, and a login for each role."""

from __future__ import annotations

import re
import subprocess
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from fanout_drivers.base import RecordCopy, RevocationsHint
from fanout_drivers.nats import NatsDriver
from fanout_drivers.nats_interest import SPREAD_S
from fanout_drivers.opening import DriverContext, FanoutConfig, open_driver
from khala.adapters.embedded_nats import HOST, find_program
from khala.adapters.embedded_nats_config import ROLES
from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.secret import Secret
from tests.contract.driver_suite import TOPIC, receive_news, wait_healthy
from tests.integration.drivers.rig import free_port
from tests.integration.drivers.test_nats_strangers import make_certificate

if TYPE_CHECKING:
    from typing import Literal

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[3] / "runbooks" / "drivers.md"
DEADLINE_S = 30.0
SERVERS = (1, 2, 3)


def read_config() -> str:
    """Return the configuration of the page."""
    (block,) = re.findall(r"^```conf\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert isinstance(block, str)
    return block


def test_the_rights_of_the_page_are_those_of_the_embedded_server() -> None:
    """One system by itself and one on a shared broker: the first token is all that differs."""
    page = read_config()
    for role in ROLES:
        (line,) = [line for line in page.splitlines() if role.user in line]
        granted = re.findall(r'"([^"]+)"', line)
        wanted = [*role.may_publish, *role.may_subscribe, ">"]
        assert sorted(granted) == sorted(subject.replace("*.", "khala.", 1) for subject in wanted)


async def test_the_cluster_of_the_page(tmp_path: Path) -> None:
    """Written down, started, used: what the runtime publishes at one server reaches the node at another."""
    certificate, key = make_certificate(tmp_path)
    clients, routes = ({number: free_port() for number in SERVERS} for _ in range(2))
    passwords = {role.name: f"password-of-{role.name}" for role in ROLES}
    environ = {f"NATS_{name.upper()}": password for name, password in passwords.items()}

    def write(number: int) -> Path:
        text = read_config()
        others = [other for other in SERVERS if other != number]
        for before, after in (
            ("nats-1", f"server-{number}"),
            ("0.0.0.0:4222", f"{HOST}:{clients[number]}"),
            ("0.0.0.0:6222", f"{HOST}:{routes[number]}"),
            ("nats-2:6222", f"{HOST}:{routes[others[0]]}"),
            ("nats-3:6222", f"{HOST}:{routes[others[1]]}"),
            ("/etc/nats/server.pem", str(certificate)),
            ("/etc/nats/server.key", str(key)),
            ("/etc/nats/ca.pem", str(certificate)),
        ):
            assert before in text
            text = text.replace(before, after)
        file = tmp_path / f"nats-{number}.conf"
        file.write_text(text)
        return file

    with ExitStack() as servers:
        for number in SERVERS:
            log = servers.enter_context((tmp_path / f"nats-{number}.log").open("wb"))
            command = [str(find_program()), "--config", str(write(number))]
            process = servers.enter_context(subprocess.Popen(command, env=environ, stdout=log, stderr=log))  # noqa: ASYNC220
            servers.callback(process.terminate)
        async with AsyncExitStack() as held:
            await held.enter_async_context(open_asyncio_loop())

            async def connect(role: Literal["runtime", "control", "node"], server: int) -> NatsDriver:
                config = FanoutConfig(
                    driver="nats",
                    nats_servers=(f"tls://{HOST}:{clients[server]}",),
                    nats_user=f"khala-{role}",
                    nats_password=Secret(passwords[role]),
                    nats_tls_ca=certificate,
                    nats_doorbell=False,
                )
                context = DriverContext(
                    config=config, database_dsn=Secret("postgresql://none"), component=role
                )
                driver = await held.enter_async_context(open_driver(context, is_one_process=False))
                assert isinstance(driver, NatsDriver)
                await wait_healthy(driver)
                return driver

            runtime, control, node = (
                await connect("runtime", 1),
                await connect("control", 2),
                await connect("node", 3),
            )
            subscriber = await held.enter_async_context(node.open_subscriber())
            with trio.fail_after(DEADLINE_S):
                await subscriber.subscribe(TOPIC)
                assert node._session is not None
                assert node._session.is_clustered
                # Until it is at every server, and these have found each other.
                received = None
                while received != RecordCopy(TOPIC, b"news"):
                    await runtime.publish(TOPIC, b"news")
                    with trio.move_on_after(SPREAD_S):
                        received = await receive_news(subscriber)
                hint = None
                while hint != RevocationsHint():
                    await control.hint_revocations()
                    with trio.move_on_after(SPREAD_S):
                        hint = await subscriber.receive()
            counters = [driver.counters for driver in (runtime, control, node)]
            assert [counter.forbidden for counter in counters] == [0, 0, 0]
