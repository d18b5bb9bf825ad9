from __future__ import annotations

import attrs
import pytest

from khala_client.core.happenings import CloseRequest, LeaveAsked, ServerRefused, TokenDue, Welcomed
from khala_client.core.protocol import (
    ClientProtocol,
    Identity,
    LocalProtocolError,
    Phase,
    RemoteProtocolError,
)
from khala_contracts import codec, reason_codes
from khala_contracts.codec import (
    ClientHeartbeat,
    ErrorMessage,
    GoAway,
    Hello,
    Lagging,
    Renewed,
    ServerControl,
    VersionRange,
    Welcome,
)
from tests.unit.khala_client.node_model import NodeModel, topic_number

IDENTITY = Identity("dev_00000001", "0.1.0")
NOW_S = 1_000.0


@attrs.frozen
class Fixed:
    """An rng that always draws the same."""

    value: float = 0.0

    def random(self) -> float:
        """Return the value."""
        return self.value


def control(message: ServerControl) -> bytes:
    """Encode a message of the node."""
    return codec.encode_server_control(message)


def opened(*, rng: Fixed | None = None, node: NodeModel | None = None) -> ClientProtocol:
    """Return a protocol that was welcomed at NOW_S."""
    protocol = ClientProtocol(IDENTITY, rng=rng or Fixed())
    (welcome,) = (node or NodeModel([])).receive(protocol.open("token", NOW_S))
    protocol.receive_untrusted(welcome, NOW_S)
    return protocol


def test_hello_is_first_and_once() -> None:
    """It names token, device, build and ranges."""
    protocol = ClientProtocol(IDENTITY, rng=Fixed())
    hello = codec.decode_client_message_untrusted(protocol.open("secret", NOW_S))
    assert hello == Hello("secret", None, "dev_00000001", "0.1.0", VersionRange(1, 1), VersionRange(1, 1))
    assert "secret" not in repr(hello)
    with pytest.raises(LocalProtocolError):
        protocol.open("secret", NOW_S)


def test_welcome_opens() -> None:
    """The node's intervals replace ours."""
    node = NodeModel([])
    node.heartbeat_interval_ms = 5_000
    protocol = ClientProtocol(IDENTITY, rng=Fixed())
    (data,) = node.receive(protocol.open("token", NOW_S))
    message, happenings = protocol.receive_untrusted(data, NOW_S + 1)
    assert isinstance(message, Welcome)
    assert happenings == (Welcomed(message),)
    assert protocol.phase is Phase.OPEN
    assert (protocol.hello_deadline_s, protocol.heartbeat_at_s, protocol.dead_at_s) == (
        None,
        1_006.0,
        1_046.0,
    )


@pytest.mark.parametrize("late_s", [0.0, 0.001])
def test_no_welcome_in_ten_seconds(late_s: float) -> None:
    """The deadline is 10 s after hello, not before."""
    protocol = ClientProtocol(IDENTITY, rng=Fixed())
    protocol.open("token", NOW_S)
    assert protocol.next_wakeup_s() == NOW_S + 10
    assert protocol.tick(NOW_S + 9.999).close is None
    assert protocol.tick(NOW_S + 10 + late_s).close == CloseRequest(1000, "no welcome in time")


def test_before_welcome_only_a_refusal_may_come() -> None:
    """Everything else is a violation; a refusal is kept for the decision after the close."""
    protocol = ClientProtocol(IDENTITY, rng=Fixed())
    protocol.open("token", NOW_S)
    with pytest.raises(RemoteProtocolError, match="Lagging before welcome"):
        protocol.receive_untrusted(control(Lagging(topic_number(1), 1, 2)), NOW_S)
    refusal = ErrorMessage.of(reason_codes.TOKEN_REPLAYED)
    assert protocol.receive_untrusted(control(refusal), NOW_S)[1] == (ServerRefused(refusal),)
    assert protocol.last_error == refusal


def test_violations_after_welcome() -> None:
    """A second welcome, and what does not decode."""
    protocol = opened()
    (welcome,) = NodeModel([]).receive(ClientProtocol(IDENTITY, rng=Fixed()).open("t", 0))
    with pytest.raises(RemoteProtocolError, match="second welcome"):
        protocol.receive_untrusted(welcome, NOW_S)
    with pytest.raises(RemoteProtocolError, match="malformed_message"):
        protocol.receive_untrusted(b"\xff\xff", NOW_S)


def test_a_welcome_with_a_protocol_that_we_did_not_offer() -> None:
    """We offered 1..1."""
    protocol = ClientProtocol(IDENTITY, rng=Fixed())
    (data,) = NodeModel([]).receive(protocol.open("token", NOW_S))
    welcome = codec.decode_server_message_untrusted(data)
    assert isinstance(welcome, Welcome)
    with pytest.raises(RemoteProtocolError, match="chose protocol 2"):
        protocol.receive_untrusted(control(attrs.evolve(welcome, protocol=2)), NOW_S)


def test_a_heartbeat_and_a_ping_are_due_each_interval() -> None:
    """Every 15 s, whatever else is sent."""
    protocol = opened()
    assert protocol.next_wakeup_s() == NOW_S + 15
    ticked = protocol.tick(NOW_S + 15)
    assert [codec.decode_client_message_untrusted(data) for data in ticked.send] == [ClientHeartbeat()]
    assert ticked.ping
    assert protocol.heartbeat_at_s == NOW_S + 30
    assert protocol.tick(NOW_S + 16).send == ()


def test_silence_is_death_and_any_sign_of_life_postpones_it() -> None:
    """45 s without a byte; a pong counts."""
    protocol = opened()
    protocol.alive(NOW_S + 10)
    assert protocol.tick(NOW_S + 54.9).close is None
    assert protocol.tick(NOW_S + 55).close == CloseRequest(1000, "nothing received in time")


@pytest.mark.parametrize(("draw", "renew_in_s"), [(0.0, 200.0), (0.5, 185.0), (0.999999, 170.0)])
def test_a_token_is_renewed_at_two_thirds_of_its_life(draw: float, renew_in_s: float) -> None:
    """300 s of life: at 200 s at the latest, earlier by at most a tenth of the life."""
    protocol = opened(rng=Fixed(draw))
    assert protocol.renew_at_s == pytest.approx(NOW_S + renew_in_s, abs=0.001)
    protocol.alive(NOW_S + 199)
    ticked = protocol.tick(protocol.renew_at_s or 0)
    assert ticked.happenings == (TokenDue(),)
    assert protocol.renew_at_s is None
    assert protocol.tick(NOW_S + 201).happenings == ()


def test_renewed_sets_the_next_renewal_by_the_servers_clock() -> None:
    """Only differences of the server's wall clock count; ours may be anything."""
    node = NodeModel([])
    protocol = opened(node=node)
    protocol.renew("second")
    assert protocol.renew_at_s is None
    protocol.receive_untrusted(control(Renewed(node.wall_ms + 200_000 + 300_000)), NOW_S + 200)
    assert protocol.renew_at_s == pytest.approx(NOW_S + 200 + 200)
    assert protocol.token_ends_s == pytest.approx(NOW_S + 500)


def test_a_failed_mint_is_tried_again() -> None:
    """TokenDue comes again when the caller says."""
    protocol = opened()
    protocol.retry_renew(NOW_S + 3)
    assert protocol.tick(NOW_S + 3).happenings == (TokenDue(),)


def test_renew_is_for_open_connections() -> None:
    """Before the welcome there is nothing to renew."""
    with pytest.raises(LocalProtocolError):
        ClientProtocol(IDENTITY, rng=Fixed()).renew("token")


@pytest.mark.parametrize(
    ("reconnect_after_ms", "deadline_ms", "leaves_in_s", "returns_in_s"),
    [
        (2_000, 30_000, 2.0, 2.0),
        (60_000, 30_000, 30.0, 60.0),
        (500, 0, 0.5, 0.5),
        (2**32 - 1, 30_000, 30.0, 900.0),
    ],
)
def test_a_draining_node_is_left_when_it_says(
    reconnect_after_ms: int, deadline_ms: int, leaves_in_s: float, returns_in_s: float
) -> None:
    """At the return time, at the latest at the deadline; back at the return time, in a quarter of an hour at the latest."""
    protocol = opened()
    _, happenings = protocol.receive_untrusted(control(GoAway(reconnect_after_ms, deadline_ms)), NOW_S)
    assert happenings == (LeaveAsked(int(returns_in_s * 1000)),)
    assert protocol.return_at_s == NOW_S + returns_in_s
    assert protocol.tick(NOW_S + leaves_in_s - 0.01).close is None
    assert protocol.tick(NOW_S + leaves_in_s).close == CloseRequest(1000, "leaving a draining node")


def test_nothing_is_received_after_the_end() -> None:
    """A closed protocol has no deadline and takes no bytes."""
    protocol = opened()
    protocol.close()
    assert protocol.next_wakeup_s() is None
    with pytest.raises(LocalProtocolError):
        protocol.receive_untrusted(b"", NOW_S)
