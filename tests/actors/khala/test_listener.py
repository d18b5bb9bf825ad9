"""Admission and containment, with scripted clients instead of a socket; leaving: test_departing.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from khala.actors.listener import PLACE_KEPT_S, REFUSAL_LINGER_S
from khala.core.limits import NodeLimits
from khala_contracts.codec import ErrorMessage, Unsubscribe, encode_client_message
from khala_service.live_limits import take_over
from tests.actors.khala.listener_under_test import open_listener
from tests.actors.khala.node_under_test import hello_with
from tests.actors.khala.simulated_transport import SimulatedTransport
from tests.actors.khala.wire_transcript import WireTranscript

if TYPE_CHECKING:
    from trio.testing import MockClock


def told(transport: SimulatedTransport) -> ErrorMessage:
    """Return the error that a client was told after its upgrade, before the close."""
    transcript = WireTranscript()
    error = transcript.feed(transport.take())[0]
    assert transcript.closed_with == 4003
    assert isinstance(error, ErrorMessage)
    return error


async def test_admission_at_its_burst(autojump_clock: MockClock) -> None:
    """admission_burst clients at once; one more is told rate_limited and when, and then there is room."""
    async with open_listener(NodeLimits(admission_burst=5, admission_per_s=2.0)) as under_test:
        admitted = [await under_test.connect() for _ in range(5)]
        refused = await under_test.connect(says_hello=False)
        error = told(refused)
        assert (error.code, error.retry_after_ms) == ("rate_limited", 500)
        assert error.details == {"limit": "admission_per_s", "max": "2.0"}
        assert refused.is_aborted
        assert under_test.counters.connections_open == 5
        assert under_test.counters.hellos_refused == {"rate_limited": 1}
        assert under_test.counters.limit_violations == {"admission_per_s": 1}
        await trio.sleep(0.5)
        await under_test.connect()
        assert under_test.counters.connections_open == 6
        assert not any(transport.is_aborted for transport in admitted)
        assert len(under_test.lives.opened) == 6


async def test_more_refusals_than_can_be_told(autojump_clock: MockClock) -> None:
    """Above the rate of refusals in words the answer is HTTP 429 at once, with the same error and a turn of its own."""
    async with open_listener(NodeLimits(admission_burst=2, admission_per_s=0.5)) as under_test:
        for _ in range(4):
            await under_test.connect()
        head, _, body = (await under_test.connect()).take().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 6\r\n" in head + b"\r\n"
        error = json.loads(body)
        assert (error["code"], error["retry_after_ms"], error["details"]) == (
            "rate_limited",
            6_000,
            {"limit": "admission_per_s"},
        )
        assert under_test.counters.handshakes_rejected == {"429": 1}
        assert under_test.counters.limit_violations == {"admission_per_s": 3}


async def test_whoever_is_refused_may_be_gone_already(autojump_clock: MockClock) -> None:
    """A client that resets its connection while it waits to be refused is no trouble for the others."""
    async with open_listener(NodeLimits(admission_burst=1, admission_per_s=0.5)) as under_test:
        first = await under_test.connect()
        await under_test.connect(says_hello=False)
        gone = SimulatedTransport()
        gone.reset()
        under_test.acceptor.connect(gone)
        await wait_all_tasks_blocked()
        assert gone.is_aborted
        refused = await under_test.connect()
        assert refused.take().startswith(b"HTTP/1.1 429 ")
        assert not refused.is_aborted
        await trio.sleep(REFUSAL_LINGER_S + 0.01)
        assert refused.is_aborted
        assert not first.is_aborted


async def test_handshakes_at_once(autojump_clock: MockClock) -> None:
    """handshakes_max clients that have not said hello; one more is turned away until one has."""
    async with open_listener(NodeLimits(handshakes_max=3)) as under_test:
        waiting = [await under_test.connect(says_hello=False) for _ in range(3)]
        error = told(await under_test.connect(says_hello=False))
        assert (error.code, error.details["limit"]) == ("rate_limited", "handshakes_max")
        under_test.peers[waiting[0]].say(encode_client_message(hello_with("t")))
        await wait_all_tasks_blocked()
        welcome = await under_test.connect()
        assert not welcome.is_aborted
        assert under_test.counters.connections_accepted == 4


async def test_silent_sockets_do_not_shut_the_door(autojump_clock: MockClock) -> None:
    """All places taken by clients that say nothing: after a second the oldest gives way to whoever comes."""
    async with open_listener(NodeLimits(handshakes_max=3)) as under_test:
        silent = [await under_test.connect(says_hello=False) for _ in range(3)]
        await trio.sleep(PLACE_KEPT_S - 0.01)
        told(await under_test.connect(says_hello=False))
        assert not any(transport.is_aborted for transport in silent)
        await trio.sleep(0.01)
        welcome = await under_test.connect()
        assert not welcome.is_aborted
        assert told(silent[0]).details["limit"] == "handshakes_max"
        assert not any(transport.is_aborted for transport in silent[1:])
        assert under_test.counters.handshakes_open == 2


async def test_a_reload_counts_for_the_next_client(autojump_clock: MockClock) -> None:
    """KH-45: limits are read at each decision: a lower rate and fewer places refuse the next client."""
    limits = NodeLimits(admission_burst=100, handshakes_max=2)
    async with open_listener(limits) as under_test:
        await under_test.connect(says_hello=False)
        take_over(limits, NodeLimits(admission_burst=100, handshakes_max=1))
        assert told(await under_test.connect(says_hello=False)).details["max"] == "1"
        take_over(limits, NodeLimits(admission_burst=1, admission_per_s=0.001, handshakes_max=64))
        await under_test.connect()
        assert told(await under_test.connect(says_hello=False)).details["limit"] == "admission_per_s"


async def test_a_crash_ends_one_connection(autojump_clock: MockClock) -> None:
    """INV-9: a bug met by one client is logged and counted; the others stay and new ones are served."""
    async with open_listener() as under_test:
        healthy, doomed = await under_test.connect(), await under_test.connect()
        under_test.peers[doomed].say(encode_client_message(Unsubscribe(("x",))))
        await wait_all_tasks_blocked()
        assert doomed.is_aborted
        assert under_test.log.crashed == ["con_2"]
        assert under_test.counters.task_restarts == {"connection": 1}
        assert not healthy.is_aborted
        await under_test.connect()
        assert under_test.counters.connections_open == 2


async def test_every_life_is_reported_once(autojump_clock: MockClock) -> None:
    """OBS-08: opened and closed with the id, and the reason of the end: ours, the client's, or none."""
    async with open_listener() as under_test:
        transports = [await under_test.connect() for _ in range(4)]
        under_test.peers[transports[0]].leave(1001)
        under_test.peers[transports[1]].vanish()
        under_test.peers[transports[2]].say(encode_client_message(Unsubscribe(("x",))))
        await wait_all_tasks_blocked()
        under_test.drain.set()
        await trio.sleep(1)
        assert under_test.lives.opened == ["con_1", "con_2", "con_3", "con_4"]
        assert dict(under_test.lives.closed) == {
            "con_1": "1001",
            "con_2": "1006",
            "con_3": "internal",
            "con_4": "draining",
        }
        assert len(under_test.lives.closed) == 4


async def test_a_thousand_connections_leave_no_task(autojump_clock: MockClock) -> None:
    """ARC-13: after 1,000 clients have come and gone, in every way, no task of theirs is left."""
    limits = NodeLimits(admission_burst=1_000, handshakes_max=1_000)
    async with open_listener(limits) as under_test:
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        clients = [await under_test.connect(says_hello=number % 3 > 0) for number in range(1_000)]
        for number, client in enumerate(clients):
            peer = under_test.peers[client]
            (peer.leave, peer.vanish)[number % 2]()
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert under_test.counters.connections_open == 0
        assert under_test.listener.connections == {}
