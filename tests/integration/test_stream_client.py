"""The subscribers in C (chaos/load/native/stream.h): they find what is wrong, and what is right passes.

A benchmark without this would praise a node that loses frames. The server here says exactly what a test
tells it to, byte by byte.
"""

from __future__ import annotations

import shutil
import socket
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from chaos.load.known_payloads import payload_of_seq
from chaos.load.native_client import NativeClient, ReceiverFailedError
from chaos.load.native_tools import compile_native
from chaos.load.preambles import FROM_NOW, Preamble, write_preambles
from khala.core.websocket_frames import frame_message
from khala_contracts.codec import (
    EntryTemplate,
    ErrorMessage,
    ReplayComplete,
    ServerHeartbeat,
    Subscribed,
    SubscriptionMode,
    TopicStart,
    encode_server_control,
)
from khala_contracts.reason_codes import RATE_LIMITED, SLOW_CONSUMER
from khala_contracts.topics import Tier, parse_topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from khala_contracts.codec import ServerControl

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler"),
]

TOPIC: Final = parse_topic("app:org_01fwhe4yddfk4scvajq9ww84cz:stadium").name
UPGRADED: Final = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
TIMEOUT_S: Final = 20.0


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the client, once."""
    return compile_native("stream_client", tmp_path_factory.mktemp("native"))


def control(message: ServerControl) -> bytes:
    """Return a control message as the node frames it."""
    return frame_message(encode_server_control(message))


def subscribed(after_seq: int = 0) -> bytes:
    """Return the answer to a subscribe."""
    return control(
        Subscribed(
            topic=TOPIC,
            lineage="lin_00000000000000000000000000",
            head_seq=after_seq,
            floor_seq=1,
            chain_at_start=bytes(32),
            tier=Tier.WARM,
            mode=SubscriptionMode.LIVE,
            start_seq=after_seq,
        )
    )


def frames(*seqs: int, payload: bytes | None = None, topic: str = TOPIC) -> bytes:
    """Return one message with these frames."""
    template = EntryTemplate(topic)
    entries = [template.entry(seq, "output", payload or payload_of_seq(seq, 40), 1) for seq in seqs]
    return frame_message(b"".join(entries))


@contextmanager
def server(connections: Sequence[Sequence[bytes]]) -> Iterator[int]:
    """Serve one connection after the other: the first part answers the upgrade, each further is sent at once.

    The connections stay open until the block is left, but for those whose last part is empty, which
    hear nothing more.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def serve() -> None:
        for parts in connections:
            client, _ = listening.accept()
            kept.append(client)
            data = b""
            while b"\r\n\r\n" not in data:
                data += client.recv(65_536)
            for part in parts:
                client.sendall(part)
            if not parts[-1]:
                # Not close: what the client still says would be answered by a reset.
                client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        thread.join(TIMEOUT_S)
        listening.close()
        for client in kept:
            client.close()


@contextmanager
def client(
    program: Path,
    folder: Path,
    parts: Sequence[Sequence[bytes]],
    *,
    connections: int = 1,
    log: Path | None = None,
) -> Iterator[NativeClient]:
    """Start the client on a server that says these parts."""
    preamble = Preamble.of_subscriber("token", "dev_00000000", [TopicStart(TOPIC, FROM_NOW)])
    write_preambles(folder / "preambles", [preamble] * connections)
    with (
        server(parts) as port,
        NativeClient(program, port, folder / "preambles", opens_per_s=0, log=log) as started,
    ):
        yield started


def test_what_is_right_passes_and_is_counted(program: Path, tmp_path: Path) -> None:
    """Messages cut anywhere, control messages between, pings: every frame is counted once, with its time."""
    said = b"".join(
        [
            subscribed(6),
            frames(7, 8, 9),
            control(ReplayComplete(TOPIC, 9, bytes(32))),
            control(ServerHeartbeat((), 0)),
            b"\x89\x00",
            frames(10),
            frames(*range(11, 2_011)),
        ]
    )
    pieces = [
        UPGRADED[:20],
        UPGRADED[20:] + said[:1],
        *(said[at : at + 977] for at in range(1, len(said), 977)),
    ]
    with client(program, tmp_path, [pieces], log=tmp_path / "log") as started:
        started.open(timeout_s=TIMEOUT_S)
        started.begin_run(2_010, timeout_s=TIMEOUT_S)
        started.end_run(timeout_s=TIMEOUT_S)
        assert started.ask("report", timeout_s=TIMEOUT_S)["live"] == 1
    entries = list(struct.iter_unpack("<IIqq", (tmp_path / "log").read_bytes()))
    assert [(connection, topic, seq) for connection, topic, seq, _ in entries] == [
        (0, 0, seq) for seq in range(7, 2_011)
    ]
    times = [received_ns for *_, received_ns in entries]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param(frames(7, 9), "a frame repeated or left out", id="left out"),
        pytest.param(frames(7, 8, 8), "a frame repeated or left out", id="repeated"),
        pytest.param(frames(8), "a frame repeated or left out", id="first left out"),
        # 26 further on the letters are the same: only the digits tell.
        pytest.param(
            frames(7, payload=payload_of_seq(33, 40)), "another payload than was written", id="mixed"
        ),
        pytest.param(
            frames(7, payload=payload_of_seq(7, 40)[:-1] + b"!"),
            "another payload than was written",
            id="byte",
        ),
        pytest.param(frames(7, payload=b"short"), "another payload than was written", id="short"),
        pytest.param(
            frames(7, topic=TOPIC + "x"), "a frame of a topic that was not asked for", id="foreign topic"
        ),
        pytest.param(frame_message(b"\x0a\x7f\x0a"), "a message that cannot be read", id="cut"),
        pytest.param(frame_message(b"\x0a\x02\x12\x00"), "a frame that cannot be read", id="not a frame"),
        pytest.param(
            control(ReplayComplete(TOPIC, 7, bytes(32))),
            "replay_complete at another seq",
            id="complete early",
        ),
        pytest.param(control(ErrorMessage.of(SLOW_CONSUMER)), "error: slow_consumer", id="error"),
        pytest.param(b"\x88\x02" + struct.pack(">H", 4001), "closed by the node", id="closed"),
        pytest.param(b"", "ended without a close frame", id="cut off"),
    ],
)
def test_what_is_wrong_is_found_and_said(program: Path, tmp_path: Path, said: bytes, reason: str) -> None:
    """The command ends with the reason, and no figure is given."""
    with (
        client(program, tmp_path, [[UPGRADED, subscribed(6), said]]) as started,
        pytest.raises(ReceiverFailedError, match=reason),
    ):
        started.open(timeout_s=TIMEOUT_S)
        started.begin_run(9, timeout_s=1.0)
        started.end_run(timeout_s=TIMEOUT_S)


def test_who_is_refused_comes_back(program: Path, tmp_path: Path) -> None:
    """The node admits so many a second; a 503 spends no token, and is counted."""
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    with client(program, tmp_path, [[refusal, b""], [UPGRADED, subscribed(6)]]) as started:
        assert started.open(timeout_s=TIMEOUT_S)["refused"] == 1


def test_who_is_turned_away_in_words_comes_back(program: Path, tmp_path: Path) -> None:
    """A node above its rate upgrades, says rate_limited and closes: no violation, and counted as refused."""
    refusal = control(ErrorMessage.of(RATE_LIMITED, retry_after_ms=10)) + b"\x88\x02\x0f\xa3"
    with client(program, tmp_path, [[UPGRADED + refusal, b""], [UPGRADED, subscribed(6)]]) as started:
        assert started.open(timeout_s=TIMEOUT_S)["refused"] == 1


def test_a_run_waits_for_every_connection(program: Path, tmp_path: Path) -> None:
    """One that has less than the others is missing, and said to be."""
    whole = [UPGRADED, subscribed(0), frames(1, 2)]
    with client(program, tmp_path, [whole, [UPGRADED, subscribed(0), frames(1)]], connections=2) as started:
        started.open(timeout_s=TIMEOUT_S)
        started.begin_run(2, timeout_s=0.3)
        with pytest.raises(ReceiverFailedError, match='"done": false'):
            started.end_run(timeout_s=TIMEOUT_S)
