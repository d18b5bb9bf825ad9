"""The embedded NATS server: private, named, ended by pid, and clear about what is missing."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from khala.adapters import embedded_nats
from khala.adapters.embedded_nats import (
    EmbeddedNatsFailed,
    EmbeddedNatsRefused,
    nats_command,
    open_embedded_nats,
    wait_nats,
)
from khala.cli.failures import EXIT_FAILED, EXIT_REFUSED, describe_failure
from tests.integration.drivers.rig import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from khala.adapters.embedded_nats import NatsCommand

pytestmark = pytest.mark.slow


async def say(port: int, words: bytes) -> bytes:
    """Connect as a client that says these words; return what the server answers to them."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        received = b""
        await stream.send_all(words)
        with trio.fail_after(5):
            while b"PONG" not in received and b"-ERR" not in received:
                part = await stream.receive_some(4096)
                if not part:
                    break
                received += part
        return received


async def test_it_serves_for_the_length_of_the_block(tmp_path: Path) -> None:
    """It answers at once, wants the password, and is gone afterwards: the process and the port."""
    port = free_port()
    async with open_embedded_nats(tmp_path, port) as server:
        assert (server.port, server.url) == (port, f"nats://127.0.0.1:{port}")
        login = b'CONNECT {"user":"%s","pass":"%s"}\r\nPING\r\n'
        user, password = (part.encode() for part in server.command.login("node"))
        assert b"PONG" in await say(port, login % (user, password))
        assert b"Authorization Violation" in await say(port, login % (user, b"guess"))
        assert password.decode() not in repr(server)
        assert password.decode() not in repr(server.command)
        pid = server.pid
    assert server.process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_the_password_stays_and_is_private(tmp_path: Path) -> None:
    """Made once, in files of mode 0600; each command has a name of its own."""
    first, second = nats_command(tmp_path, 1), nats_command(tmp_path, 2)
    assert first.passwords == second.passwords
    assert len(set(first.passwords.values())) == len(first.passwords) == 3
    assert first.server_name != second.server_name
    for file in ("secrets/nats_node", "secrets/nats_runtime", "secrets/nats_control", "run/nats.conf"):
        assert (tmp_path / file).stat().st_mode & 0o777 == 0o600
    for folder in ("secrets", "run"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700
    for secret_place in (first.argv, dict(first.env)):
        assert not any(password in str(secret_place) for password in first.passwords.values())


async def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """Another server has the port: it is not mistaken for ours, and the error says what is wrong."""
    port = free_port()
    async with open_embedded_nats(tmp_path, port):
        with pytest.raises(EmbeddedNatsFailed, match="address already in use") as failed:
            async with open_embedded_nats(tmp_path, port):
                raise AssertionError("it was opened")
    failure = describe_failure(failed.value)
    assert failure is not None
    assert failure.exit_status == EXIT_FAILED


async def test_a_stranger_on_the_port_is_not_ours(tmp_path: Path, nats_server: NatsCommand) -> None:
    """Waiting compares the name: a healthy server of somebody else does not end it."""
    stranger = attrs.evolve(nats_server, server_name="khala-another")
    with trio.move_on_after(0.3) as scope:
        await wait_nats(stranger)
    assert scope.cancelled_caught
    with trio.fail_after(5):
        await wait_nats(nats_server)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is not installed: a sentence that names it, exit status 78, nothing written."""

    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(embedded_nats, "distribution", missing)
    with pytest.raises(EmbeddedNatsRefused, match=r"khala\[nats-server\]") as refused:
        nats_command(tmp_path, 4222)
    failure = describe_failure(refused.value)
    assert failure is not None
    assert failure.exit_status == EXIT_REFUSED
    assert list(tmp_path.iterdir()) == []
