"""The conversation's table: which message is allowed when, and what illegal input changes (nothing)."""

import pytest

from khala.core.limits import NodeLimits
from khala.core.protocol import (
    ClientBuilds,
    ConnectionProtocol,
    Phase,
    RemoteProtocolError,
    check_versions,
)
from khala_contracts import codec, reason_codes
from khala_contracts.codec import (
    ClientHeartbeat,
    ClientMessage,
    CursorStart,
    FromStart,
    Hello,
    Renew,
    Subscribe,
    SubscribeFrom,
    TopicStart,
    Unsubscribe,
    VersionRange,
    encode_varint,
)
from khala_contracts.reason_codes import ReasonCode
from khala_service.live_limits import take_over
from tests.topic_log import DEVICE, run_topic

HELLO = Hello(
    token="t", ticket=None, device_id=DEVICE, client_build_id="b1",
    protocol=VersionRange(1, 1), schema=VersionRange(1, 1),
)  # fmt: skip
TOPIC = run_topic().name
SUBSCRIBE = Subscribe((TopicStart(TOPIC, FromStart(SubscribeFrom.NOW)),))
UNSUBSCRIBE = Unsubscribe((TOPIC,))
RENEW = Renew("t2")
COMMANDS = [SUBSCRIBE, UNSUBSCRIBE, RENEW]


def _protocol(phase: Phase = Phase.AWAITING_HELLO, *, limits: NodeLimits | None = None) -> ConnectionProtocol:
    protocol = ConnectionProtocol(limits or NodeLimits(), is_text=False, now=0.0)
    if phase is not Phase.AWAITING_HELLO:
        _receive(protocol, HELLO)
    if phase in {Phase.READY, Phase.CLOSING}:
        protocol.welcome()
    if phase is Phase.CLOSING:
        protocol.close()
    assert protocol.phase is phase
    return protocol


def _receive(protocol: ConnectionProtocol, message: ClientMessage, *, now: float = 0.0) -> object:
    return protocol.receive_untrusted(codec.encode_client_message(message), now)


def _refusal(protocol: ConnectionProtocol, data: bytes | str | None, *, now: float = 0.0) -> ReasonCode:
    """Receive what must be refused; the phase must not change by it."""
    before = protocol.phase
    with pytest.raises(RemoteProtocolError) as caught:
        protocol.receive_untrusted(data, now)
    assert protocol.phase is before
    return caught.value.reason


# -- the table ---------------------------------------------------------------------------------


def test_hello_comes_first() -> None:
    """A hello begins authentication and is the command to run."""
    protocol = _protocol()
    assert _receive(protocol, HELLO) == HELLO
    assert protocol.phase is Phase.AUTHENTICATING


@pytest.mark.parametrize("message", [*COMMANDS, ClientHeartbeat()])
def test_nothing_comes_before_hello(message: ClientMessage) -> None:
    """Any other first message is protocol_error, and changes nothing."""
    assert _refusal(_protocol(), codec.encode_client_message(message)) is reason_codes.PROTOCOL_ERROR


@pytest.mark.parametrize("phase", [Phase.AUTHENTICATING, Phase.READY])
def test_a_second_hello(phase: Phase) -> None:
    """Hello twice is protocol_error, before and after the welcome."""
    assert _refusal(_protocol(phase), codec.encode_client_message(HELLO)) is reason_codes.PROTOCOL_ERROR


@pytest.mark.parametrize("message", COMMANDS)
@pytest.mark.parametrize("phase", [Phase.AUTHENTICATING, Phase.READY])
def test_commands(phase: Phase, message: ClientMessage) -> None:
    """Once hello was said, commands are taken; those before the welcome run after it."""
    protocol = _protocol(phase)
    assert _receive(protocol, message) == message
    assert protocol.phase is phase


@pytest.mark.parametrize("phase", [Phase.AUTHENTICATING, Phase.READY])
def test_a_heartbeat_is_noted(phase: Phase) -> None:
    """A heartbeat is no command; it says that the client lives."""
    protocol = _protocol(phase)
    assert _receive(protocol, ClientHeartbeat(), now=7.5) is None
    assert protocol.heard_at == 7.5


@pytest.mark.parametrize("phase", [Phase.AWAITING_HELLO, Phase.AUTHENTICATING, Phase.READY])
def test_a_ping_is_noted_in_every_phase(phase: Phase) -> None:
    """A ping or pong is allowed at any time and says that the client lives."""
    protocol = _protocol(phase)
    assert protocol.receive_untrusted(None, 7.5) is None
    assert protocol.heard_at == 7.5


def test_after_the_close_nothing_counts() -> None:
    """In CLOSING neither rubbish nor a flood raises or starts anything."""
    protocol = _protocol(Phase.CLOSING)
    for data in (b"\xff\xff", "text", None, codec.encode_client_message(SUBSCRIBE)) * 1_000:
        assert protocol.receive_untrusted(data, 0.0) is None
    assert protocol.phase is Phase.CLOSING


# -- what is no message ----------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.AWAITING_HELLO, Phase.READY])
@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b""])
def test_rubbish(phase: Phase, data: bytes) -> None:
    """Bytes that are no message are malformed_message."""
    assert _refusal(_protocol(phase), data) is reason_codes.MALFORMED_MESSAGE


@pytest.mark.parametrize("phase", [Phase.AWAITING_HELLO, Phase.READY])
def test_command_shaped(phase: Phase) -> None:
    """INV-12: nothing can be written here. An unknown member of the oneof is authority_write_forbidden."""
    publish = encode_varint(15 << 3 | 2) + b"\x03abc"
    assert _refusal(_protocol(phase), publish) is reason_codes.AUTHORITY_WRITE_FORBIDDEN


def test_command_shaped_json() -> None:
    """The same in the other subprotocol."""
    protocol = ConnectionProtocol(NodeLimits(), is_text=True, now=0.0)
    assert _refusal(protocol, '{"publish":{"topic":"x"}}') is reason_codes.AUTHORITY_WRITE_FORBIDDEN


def test_the_subprotocol_decides_the_kind_of_message() -> None:
    """Text on khala.v1 and binary on khala.v1.json are malformed; each takes its own kind."""
    binary = ConnectionProtocol(NodeLimits(), is_text=False, now=0.0)
    text = ConnectionProtocol(NodeLimits(), is_text=True, now=0.0)
    hello_text = codec.encode_client_message_json(HELLO)
    assert _refusal(binary, hello_text) is reason_codes.MALFORMED_MESSAGE
    assert _refusal(text, codec.encode_client_message(HELLO)) is reason_codes.MALFORMED_MESSAGE
    assert text.receive_untrusted(hello_text, 0.0) == HELLO


@pytest.mark.parametrize(
    ("cursor", "is_taken"),
    [
        (CursorStart(0), True),
        (CursorStart(0, "lin_x"), True),
        (CursorStart(1, "lin_x"), True),
        (CursorStart(2**63 - 1, "lin_x"), True),
        (CursorStart(1, "lin_x", bytes(32)), True),
        (CursorStart(1), False),
        (CursorStart(-1, "lin_x"), False),
        (CursorStart(1, "lin_x", bytes(31)), False),
        (CursorStart(1, "lin_x", bytes(33)), False),
        (CursorStart(1, "l" * 65), False),
    ],
)
def test_cursor_forms(cursor: CursorStart, is_taken: bool) -> None:
    """KH-35: what is no position is malformed_message with the field, and reads nothing."""
    protocol = _protocol(Phase.READY)
    message = Subscribe((TopicStart(TOPIC, cursor),))
    if is_taken:
        assert _receive(protocol, message) == message
        return
    with pytest.raises(RemoteProtocolError) as caught:
        _receive(protocol, message)
    assert caught.value.reason is reason_codes.MALFORMED_MESSAGE
    assert caught.value.details["field"].startswith("subscribe.topics[0].cursor.")


def test_a_seq_beyond_int64() -> None:
    """2^63 cannot be said in binary (it is a negative number); in JSON it is malformed."""
    protocol = ConnectionProtocol(NodeLimits(), is_text=True, now=0.0)
    protocol.receive_untrusted(codec.encode_client_message_json(HELLO), 0.0)
    text = codec.encode_client_message_json(Subscribe((TopicStart(TOPIC, CursorStart(7, "lin_x")),)))
    assert '"7"' in text
    assert _refusal(protocol, text.replace('"7"', f'"{2**63}"')) is reason_codes.MALFORMED_MESSAGE
    assert protocol.receive_untrusted(text.replace('"7"', f'"{2**63 - 1}"'), 0.0) is not None


# -- limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "is_taken"), [(0, False), (1, True), (64, True), (65, False)])
def test_topics_per_message(count: int, is_taken: bool) -> None:
    """1 to 64 topics in one subscribe or unsubscribe."""
    names = [run_topic(number).name for number in range(count)]
    start = FromStart(SubscribeFrom.NOW)
    for message in (Subscribe(tuple(TopicStart(n, start) for n in names)), Unsubscribe(tuple(names))):
        protocol = _protocol(Phase.READY)
        if is_taken:
            assert _receive(protocol, message) == message
        elif count:
            data = codec.encode_client_message(message)
            assert _refusal(protocol, data) is reason_codes.LIMIT_EXCEEDED
        else:
            with pytest.raises(RemoteProtocolError):
                _receive(protocol, message)


@pytest.mark.parametrize("data", [None, codec.encode_client_message(ClientHeartbeat())])
def test_rate_of_messages(data: bytes | None) -> None:
    """client_messages_burst at once; one more, ping or message, is rate_limited; a second later it is not."""
    protocol = _protocol(Phase.READY, limits=NodeLimits(client_messages_burst=10, client_messages_per_s=4.0))
    for _ in range(9):  # the hello was the first
        assert protocol.receive_untrusted(data, 0.0) is None
    assert _refusal(protocol, data) is reason_codes.RATE_LIMITED
    assert protocol.receive_untrusted(data, 0.25) is None
    assert _refusal(protocol, data, now=0.25) is reason_codes.RATE_LIMITED


def test_a_refused_message_is_still_a_sign_of_life() -> None:
    """heard_at moves with whatever arrives."""
    protocol = _protocol(Phase.READY)
    _refusal(protocol, b"\xff", now=3.0)
    assert protocol.heard_at == 3.0


def test_denied_subscribes() -> None:
    """The 20th denied subscribe within 60 s ends the connection; the 19th does not."""
    protocol = _protocol(Phase.READY)
    for second in range(19):
        protocol.deny(float(second))
    with pytest.raises(RemoteProtocolError) as caught:
        protocol.deny(59.0)
    assert caught.value.reason is reason_codes.RATE_LIMITED


def test_denied_subscribes_are_forgotten() -> None:
    """19 within the window for ever are no offence."""
    protocol = _protocol(Phase.READY)
    for number in range(100):
        protocol.deny(number * 3.25)


# -- versions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["protocol", "schema"])
@pytest.mark.parametrize(
    ("offered", "is_spoken"),
    [((1, 1), True), ((1, 9), True), ((2, 2), False), ((2, 9), False)],
)
def test_versions(field: str, offered: tuple[int, int], is_spoken: bool) -> None:
    """A range that contains ours is spoken; otherwise upgrade_required names what failed."""
    ranges = {"protocol": VersionRange(1, 1), "schema": VersionRange(1, 1), field: VersionRange(*offered)}
    hello = Hello("t", None, DEVICE, "b1", ranges["protocol"], ranges["schema"])
    if is_spoken:
        check_versions(hello, ClientBuilds())
        return
    with pytest.raises(RemoteProtocolError) as caught:
        check_versions(hello, ClientBuilds("0.2.0"))
    assert caught.value.reason is reason_codes.UPGRADE_REQUIRED
    assert caught.value.details == {
        "failed": field, "offered": f"{offered[0]}-{offered[1]}", "supported": "1",
        "min_build_id": "0.2.0",
    }  # fmt: skip


@pytest.mark.parametrize(("build_id", "is_accepted"), [("0.1.9", False), ("0.2.0", True), ("my-app", False)])
def test_minimum_build(build_id: str, is_accepted: bool) -> None:
    """PR-14, PR-20: an older build, or one that is no version, is told which is the oldest; a reload counts at once."""
    hello = Hello("t", None, DEVICE, build_id, VersionRange(1, 1), VersionRange(1, 1))
    builds = ClientBuilds()
    check_versions(hello, builds)
    builds.min_build_id = "0.2.0"
    if is_accepted:
        check_versions(hello, builds)
        return
    with pytest.raises(RemoteProtocolError) as caught:
        check_versions(hello, builds)
    assert caught.value.reason is reason_codes.UPGRADE_REQUIRED
    assert caught.value.details == {
        "failed": "build", "offered": build_id, "supported": "0.2.0-", "min_build_id": "0.2.0",
    }  # fmt: skip


def test_a_reload_of_the_message_rate() -> None:
    """KH-45: the rate is read at each message, in connections that are open, too."""
    limits = NodeLimits(client_messages_burst=2, client_messages_per_s=1.0)
    protocol = ConnectionProtocol(limits, is_text=False, now=0.0)
    protocol.receive_untrusted(None, 0.0)
    take_over(limits, NodeLimits(client_messages_burst=1, client_messages_per_s=0.5))
    protocol.receive_untrusted(None, 0.0)
    with pytest.raises(RemoteProtocolError) as caught:
        protocol.receive_untrusted(None, 1.9)
    assert caught.value.details == {"limit": "client_messages_per_s", "max": "0.5"}
    assert caught.value.retry_after_ms == 2_000
    protocol.receive_untrusted(None, 2.0)
