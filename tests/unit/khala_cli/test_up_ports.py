"""Unit tests of khala.cli.up_ports."""

from __future__ import annotations

import socket

import pytest

from khala.adapters.free_ports import HIGHEST, LOWEST, is_free
from khala.cli.failures import CommandFailed
from khala.cli.up_ports import HOST, UpPorts, choose_ports


def test_the_block_begins_with_its_base() -> None:
    """The base itself is the one origin; nodes have two each, and the broker comes last."""
    ports = UpPorts(8470)
    assert (ports.origin, ports.control, ports.runtime, ports.node(), ports.admin(), ports.last) == (
        8470, 8471, 8472, 8473, 8474, 8474,
    )  # fmt: skip
    ports = UpPorts(8470, nodes=3, has_nats=True)
    assert [(ports.node(n), ports.admin(n)) for n in (1, 2, 3)] == [(8473, 8474), (8475, 8476), (8477, 8478)]
    assert (ports.nats, ports.last) == (8479, 8479)


def test_a_shared_port() -> None:
    """All nodes listen where the first one does, and each is asked for its health apart; free ports are counted once."""
    ports = UpPorts(8470, nodes=3, is_shared=True)
    assert [(ports.node(n), ports.admin(n)) for n in (1, 2, 3)] == [(8473, 8474), (8473, 8476), (8473, 8478)]
    chosen = choose_ports(0, nodes=3, is_shared=True)
    assert (chosen.is_shared, chosen.taken()) == (True, [])
    with socket.socket() as taken:
        taken.bind((HOST, chosen.node()))
        taken.listen()
        assert chosen.taken() == [("node-1", chosen.node())]


def test_any_free_block_is_free_and_complete() -> None:
    """0 asks for one; all its ports can be bound."""
    ports = choose_ports(0, nodes=4, has_nats=True)
    assert (ports.taken(), ports.nodes, ports.has_nats) == ([], 4, True)
    # Linux gives outgoing connections the ports from 32768 on; one of them would keep a server from its own.
    assert LOWEST <= ports.base < HIGHEST
    assert ports.last < 32_768


def test_taken_ports_are_named_with_their_service() -> None:
    """Status 78: a person has to choose."""
    base = UpPorts.free(nodes=2, has_nats=True).base
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for taken, offset in ((one, 0), (two, 6), (three, 7)):
            taken.bind((HOST, base + offset))
            taken.listen()
        assert not is_free(base)
        said = rf"ports {base} \(origin\), {base + 6} \(admin-2\), {base + 7} \(nats\)"
        with pytest.raises(CommandFailed, match=said) as refused:
            choose_ports(base, nodes=2, has_nats=True)
    assert refused.value.exit_status == 78
    assert choose_ports(base) == UpPorts(base)


def test_a_block_that_does_not_fit_is_refused() -> None:
    """At the highest number there is, and one beyond."""
    assert UpPorts(65_535 - 6, nodes=2).last == 65_535
    with pytest.raises(CommandFailed, match="port 65536 does not exist") as refused:
        choose_ports(65_535 - 5, nodes=2)
    assert refused.value.exit_status == 78
