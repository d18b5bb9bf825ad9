"""A peer of the stadium: Centrifugo, where its program is on PATH, with its memory and PostgreSQL brokers.

Written against the documentation of version 6: JSON configuration, the HTTP API's ``/api/batch``, and client
protocol 2 in protobuf (``native/centrifugo.h``). Its subscribers need no token (``client.insecure``), which
spares it what our node does at hello and costs it nothing while it sends. As with the node, the next
publication goes out when the first subscriber has the last one.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import subprocess
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, Literal

import attrs

from chaos.load.known_payloads import payload_of_seq
from chaos.load.native_client import NativeClient, ReceiverFailedError
from chaos.load.preambles import Preamble, mask_message, upgrade_request, write_preambles
from chaos.load.process_figures import cpu_s_of_process
from chaos.load.stadium_sides import OPEN_TIMEOUT_S, RUN_TIMEOUT_S, Programs, Run, Side
from chaos.load.system_under_test import SystemFailedError
from khala.adapters.embedded_postgres_directory import write_private
from khala.adapters.free_ports import HOST, draw_port, is_free
from khala_contracts.codec import encode_varint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chaos.load.committed_records import CommittedRecord
    from chaos.load.rig import Rig

__all__ = ["BROKERS", "PROGRAM", "centrifugo_dsn", "centrifugo_side", "find_centrifugo"]

Broker = Literal["memory", "postgres"]
PROGRAM: Final = "centrifugo"
BROKERS: Final[tuple[Broker, ...]] = ("memory", "postgres")
CHANNEL: Final = "stadium"
DATABASE: Final = "centrifugo"
SUBPROTOCOL: Final = "centrifuge-protobuf"
_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.02
_RECEIVE_BYTES: Final = 1 << 20
# Between a publication and its arrival at the first subscriber.
_ANSWER_TIMEOUT_S: Final = 20.0
# The beginning of the reply to command 2: its id, and the tag of a subscribe result.
_SUBSCRIBED: Final = b"\x08\x02\x32"
# Longer than anything that is looked for.
_KEPT_BYTES: Final = 4_096


def find_centrifugo() -> str | None:
    """Return the program, None if it is not on PATH."""
    return shutil.which(PROGRAM)


def centrifugo_dsn(rig: Rig) -> str:
    """Make an empty database for it in the rig's PostgreSQL; return how to connect."""
    rig.system.run_database_program(
        "psql",
        "postgres",
        "-XAtq",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        f"CREATE DATABASE {DATABASE}",
        timeout_s=60.0,
    )
    password = rig.secret("postgres_postgres")
    return f"postgres://postgres:{password}@{HOST}:{rig.system.postgres_port}/{DATABASE}?sslmode=disable"


@attrs.define
class CentrifugoSide:
    """A running Centrifugo with its subscribers."""

    name: str
    subscribers: int
    head_seq: int
    _payload_bytes: int
    _process: subprocess.Popen[bytes]
    _api: http.client.HTTPConnection
    _first: socket.socket
    _client: NativeClient

    def run(self, records: Sequence[CommittedRecord]) -> Run:
        """Publish the frames of each record in one request; see Side."""
        cpu_before = cpu_s_of_process(self._process.pid)
        self._client.begin_run(records[-1].last_seq, timeout_s=RUN_TIMEOUT_S)
        for record in records:
            self._publish(range(record.first_seq, record.last_seq + 1))
            self._wait_first(record.last_seq)
        received = self._client.end_run(timeout_s=RUN_TIMEOUT_S)
        cpu_s = cpu_s_of_process(self._process.pid) - cpu_before
        self.head_seq = records[-1].last_seq
        frames = records[-1].last_seq - records[0].first_seq + 1
        return Run(frames * self.subscribers, received.seconds, cpu_s, received.cpu_s)

    def _publish(self, seqs: range) -> None:
        payloads = (payload_of_seq(seq, self._payload_bytes) for seq in seqs)
        commands = [
            {"publish": {"channel": CHANNEL, "b64data": base64.b64encode(payload).decode()}}
            for payload in payloads
        ]
        self._api.request(
            "POST", "/api/batch", json.dumps({"commands": commands}), {"Content-Type": "application/json"}
        )
        answer = self._api.getresponse()
        body = answer.read()
        if answer.status != http.client.OK or b'"error"' in body:
            raise ReceiverFailedError(f"{self.name} answered {answer.status} {body[:200]!r}")

    def _wait_first(self, seq: int) -> None:
        _receive_until(self._first, b"%016x" % seq)


@contextmanager
def centrifugo_side(
    program: str,
    broker: Broker,
    programs: Programs,
    *,
    head_seq: int,
    subscribers: int,
    payload_bytes: int,
    dsn: str = "",
) -> Iterator[Side]:
    """Start it with a broker, and connect everybody.

    Args:
        program: From ``find_centrifugo``.
        broker: Where publications go.
        programs: The receiver, and a folder.
        head_seq: After which the frames begin.
        subscribers: With the one that sets the pace.
        payload_bytes: Of each frame.
        dsn: For the broker ``postgres``.

    Raises:
        SystemFailedError: It did not start; perhaps it is too old for that broker.
    """
    name, folder = f"{PROGRAM}_{broker}", programs.folder
    port = _free_port()
    config, log = folder / f"{name}.json", folder / f"{name}.log"
    write_private(config, json.dumps(_config(port, broker, dsn)))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "--config", str(config)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait_listening(name, process, port, log)
        preamble = _preamble()
        write_preambles(folder / f"{name}.preambles", [preamble] * (subscribers - 1))
        with (
            _first_subscriber(port, preamble) as first,
            NativeClient(
                programs.client,
                port,
                folder / f"{name}.preambles",
                opens_per_s=0,
                centrifugo_after_seq=head_seq,
            ) as client,
        ):
            client.open(timeout_s=OPEN_TIMEOUT_S)
            with closing(http.client.HTTPConnection(HOST, port, timeout=RUN_TIMEOUT_S)) as api:
                yield CentrifugoSide(name, subscribers, head_seq, payload_bytes, process, api, first, client)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _config(port: int, broker: Broker, dsn: str) -> dict[str, object]:
    config: dict[str, object] = {
        "http_server": {"address": HOST, "port": str(port)},
        "http_api": {"insecure": True},
        # The first subscriber reads only while a measurement runs: no pings in between.
        "client": {"insecure": True, "ping_interval": "3600s", "pong_timeout": "60s"},
        "channel": {
            "without_namespace": {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
        },
        "log": {"level": "error"},
    }
    if broker == "postgres":
        # Payloads are bytes; the doorbell spares it the wait for its next poll.
        postgres = {"dsn": dsn, "binary_data": True, "use_notify": True}
        config["broker"] = {"enabled": True, "type": "postgres", "postgres": postgres}
    return config


def _preamble() -> Preamble:
    """Return connect and subscribe: commands 1 and 2, each with its length before it."""
    channel = CHANNEL.encode()
    subscribe = b"\x0a" + encode_varint(len(channel)) + channel
    commands = (b"\x08\x01\x22\x00", b"\x08\x02\x2a" + encode_varint(len(subscribe)) + subscribe)
    messages = b"".join(mask_message(encode_varint(len(command)) + command) for command in commands)
    upgrade = upgrade_request(HOST, "/connection/websocket", SUBPROTOCOL)
    return Preamble(upgrade, messages, [(CHANNEL, -1)])


@contextmanager
def _first_subscriber(port: int, preamble: Preamble) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, port), timeout=_ANSWER_TIMEOUT_S) as first:
        first.sendall(preamble.upgrade)
        answer = _receive_until(first, b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 101"):
            raise ReceiverFailedError(f"{PROGRAM} refused the upgrade: {answer[:200]!r}")
        first.sendall(preamble.messages)
        _receive_until(first, _SUBSCRIBED)
        yield first


def _receive_until(stream: socket.socket, wanted: bytes) -> bytes:
    """Return what came last, once ``wanted`` is in it."""
    seen = b""
    try:
        while wanted not in seen:
            data = stream.recv(_RECEIVE_BYTES)
            if not data:
                raise ReceiverFailedError(f"{PROGRAM} ended its first subscriber")
            seen = seen[-_KEPT_BYTES:] + data
    except TimeoutError:
        raise ReceiverFailedError(f"{PROGRAM} sent its first subscriber no {wanted!r}") from None
    return seen


def _free_port() -> int:
    while not is_free(port := draw_port()):
        pass
    return port


def _wait_listening(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1.0).close()
        except OSError:
            time.sleep(_POLL_S)  # noqa: TID251 - waits for a process, outside of any event loop
        else:
            return
    raise SystemFailedError(f"{name} did not start: {log.read_text(errors='replace').strip()[-300:]}")
