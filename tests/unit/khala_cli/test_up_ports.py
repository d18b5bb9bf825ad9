"""Unit tests of khala.cli.up_ports."""

from __future__ import annotations

import socket

import pytest

from khala.cli.failures import CommandFailed
from khala.cli.up_ports import HOST, UpPorts, choose_ports, is_free


def test_the_block_is_the_four_ports_above_its_base() -> None:
    """The base itself is kept for the one origin."""
    ports = UpPorts(8470)
    assert (ports.control, ports.runtime, ports.node, ports.admin) == (8471, 8472, 8473, 8474)


def test_any_free_block_is_free_and_complete() -> None:
    """0 asks for one; all its ports can be bound."""
    ports = choose_ports(0)
    assert UpPorts.taken_in(ports.base) == []
    assert ports.admin <= 65_535


def test_taken_ports_are_named_with_their_service() -> None:
    """Status 78: a person has to choose."""
    base = UpPorts.free().base
    with socket.socket() as one, socket.socket() as two:
        one.bind((HOST, base + 1))
        one.listen()
        two.bind((HOST, base + 4))
        two.listen()
        assert not is_free(base + 1)
        with pytest.raises(
            CommandFailed, match=rf"ports {base + 1} \(control\), {base + 4} \(admin\)"
        ) as refused:
            choose_ports(base)
    assert refused.value.exit_status == 78
    assert choose_ports(base) == UpPorts(base)
