"""The fault proxy between a client and a server that echoes: each fault acts, is counted, and ends."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from chaos.drills.waiting import wait_until
from chaos.faults.fault import Fault
from chaos.faults.proxy_control import FaultProxy, ProxyRefused, running_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.faults.fault import Direction

pytestmark = pytest.mark.slow

LINK = "client.server"
HOST = "127.0.0.1"
DEADLINE_S = 20.0
# Long enough that a piece which passes would have come, on a busy machine too.
SILENCE_S = 0.2


@pytest.fixture(scope="module")
def server_port() -> Iterator[int]:
    """A server that sends back what it gets, and ends when its client does."""
    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            threading.Thread(target=_echo, args=(listener.accept()[0],), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while data := connection.recv(65_536):
            connection.sendall(data)


@pytest.fixture(scope="module")
def running(server_port: int) -> Iterator[FaultProxy]:
    """One proxy for all tests; the second link leads nowhere."""
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))
        with running_proxy({LINK: (HOST, server_port), "client.nobody": nobody.getsockname()}) as proxy:
            yield proxy


@pytest.fixture
def proxy(running: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy without a fault."""
    yield running
    running.clear()


@contextmanager
def connected(proxy: FaultProxy, link: str = LINK) -> Iterator[socket.socket]:
    """Connect through the link."""
    with socket.create_connection((HOST, proxy.ports[link]), DEADLINE_S) as connection:
        connection.settimeout(DEADLINE_S)
        yield connection


def receive(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes."""
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data)) or pytest.fail("it ended")
    return data


def is_silent(connection: socket.socket) -> bool:
    """Whether nothing comes."""
    connection.settimeout(SILENCE_S)
    try:
        return not connection.recv(1) and False
    except TimeoutError:
        return True
    finally:
        connection.settimeout(DEADLINE_S)


def test_without_a_fault_everything_passes(proxy: FaultProxy) -> None:
    """Bytes in both directions, the end of one, and the count of all."""
    before = proxy.counters(LINK)
    data = bytes(range(256)) * 2_000
    with connected(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
        assert receive(connection, len(data)) == data
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    after = proxy.counters(LINK)
    assert [after.passed_bytes[way] - before.passed_bytes[way] for way in ("up", "down")] == [len(data)] * 2
    assert (after.accepted - before.accepted, after.connected - before.connected) == (1, 1)
    wait_until(lambda: proxy.counters(LINK).open == 0, timeout_s=DEADLINE_S, what="nothing is left open")


def test_a_delay_holds_each_piece_back(proxy: FaultProxy) -> None:
    """There and back again, by what was asked for and not by much more; then at once."""
    with connected(proxy) as connection:
        with proxy.holding(LINK, Fault(delay_s=0.1)):
            began = time.monotonic()
            connection.sendall(b"late")
            assert receive(connection, 4) == b"late"
            assert time.monotonic() - began >= 0.2
        counters = proxy.counters(LINK)
        assert counters.delayed["up"] > 0
        assert counters.delayed["down"] > 0
        # What is on its way when the fault ends is not held any longer.
        proxy.set(LINK, Fault(delay_s=DEADLINE_S * 2))
        connection.sendall(b"soon")
        assert is_silent(connection)
        proxy.clear()
        assert receive(connection, 4) == b"soon"


@pytest.mark.parametrize("direction", ["both", "up", "down"])
def test_a_cut_lets_nothing_through_and_loses_nothing(proxy: FaultProxy, direction: Direction) -> None:
    """One way and both ways: silence, then everything, in order; the counters of that way alone move."""
    before = proxy.counters(LINK)
    with connected(proxy) as connection:
        connection.sendall(b"a")
        assert receive(connection, 1) == b"a"
        with proxy.holding(LINK, Fault(is_cut=True), direction=direction):
            connection.sendall(b"b")
            assert is_silent(connection)
            cut = proxy.counters(LINK)
            way = "down" if direction == "down" else "up"
            assert cut.cut_waits[way] == before.cut_waits[way] + 1
            assert cut.passed_bytes[way] == before.passed_bytes[way] + 1
            assert cut.passed_bytes["up"] == before.passed_bytes["up"] + (2 if direction == "down" else 1)
        connection.sendall(b"c")
        assert receive(connection, 2) == b"bc"


def test_a_new_connection_waits_for_the_end_of_a_cut(proxy: FaultProxy) -> None:
    """A handshake needs both ways, so one that is cut is enough; the end of a connection is cut, too."""
    with connected(proxy) as old:
        old.sendall(b"a")
        assert receive(old, 1) == b"a"
        with proxy.holding(LINK, Fault(is_cut=True), direction="down"), connected(proxy) as new:
            made = proxy.counters(LINK).connected
            new.sendall(b"x")
            assert is_silent(new)
            assert proxy.counters(LINK).connected == made
            old.shutdown(socket.SHUT_WR)
            assert is_silent(old)
            proxy.clear()
            assert receive(new, 1) == b"x"
            assert old.recv(1) == b""


def test_dropped_bytes_leave_a_connection_half_open(proxy: FaultProxy) -> None:
    """It looks well until the fault ends; then it is reset, because a stream with a hole must not go on."""
    with connected(proxy) as connection, connected(proxy) as unharmed:
        unharmed.sendall(b"a")
        assert receive(unharmed, 1) == b"a"
        proxy.set(LINK, Fault(is_dropping=True), direction="up")
        connection.sendall(b"gone")
        wait_until(
            lambda: proxy.counters(LINK).dropped_bytes["up"] == 4, timeout_s=DEADLINE_S, what="bytes vanish"
        )
        assert is_silent(connection)
        proxy.clear()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        unharmed.sendall(b"b")
        assert receive(unharmed, 1) == b"b"
    assert proxy.counters(LINK).dropped_bytes["down"] == 0


def test_resets_and_refusals(proxy: FaultProxy) -> None:
    """Every connection at once, and each new one; a server that is not there resets, too."""
    with connected(proxy) as connection:
        connection.sendall(b"a")
        assert receive(connection, 1) == b"a"
        assert proxy.reset(LINK) == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    before = proxy.counters(LINK)
    # The reset may come before connecting returns.
    with (
        proxy.holding(LINK, Fault(is_refusing=True)),
        pytest.raises(ConnectionResetError),
        connected(proxy) as refused,
    ):
        refused.recv(1)
    assert proxy.counters(LINK).refused == before.refused + 1
    with pytest.raises(ConnectionResetError), connected(proxy, "client.nobody") as failed:
        failed.recv(1)
    assert proxy.counters("client.nobody").failed == 1


def test_a_rate_is_kept(proxy: FaultProxy) -> None:
    """Not faster than was asked for, in one direction."""
    with connected(proxy) as connection, proxy.holding(LINK, Fault(rate_bytes_per_s=100_000), direction="up"):
        began = time.monotonic()
        connection.sendall(bytes(20_000))
        receive(connection, 20_000)
        assert time.monotonic() - began >= 0.2
    assert proxy.counters(LINK).throttled_s["up"] >= 0.2
    assert proxy.counters(LINK).throttled_s["down"] == 0


@pytest.mark.parametrize(
    "command",
    [
        {"do": "clear", "links": "nobody.*"},
        {"do": "burn", "links": "*"},
        {"do": "set", "links": "*", "direction": "both", "fault": {"delay_s": -1}},
        {"do": "set", "links": "*", "direction": "both", "fault": {"is_wet": True}},
        {"do": "set", "links": "*", "direction": "sideways", "fault": {}},
    ],
)
def test_a_command_that_would_do_nothing_is_refused(proxy: FaultProxy, command: dict[str, object]) -> None:
    """A fault that hits nobody is none, and must not pass for one."""
    with pytest.raises(ProxyRefused):
        proxy._ask(**command)
