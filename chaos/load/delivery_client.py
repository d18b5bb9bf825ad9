"""Subscribers that verify and time each frame, some slow on purpose: ``native/delivery_client.c``, and its log.

The time of a delivery is from ``committed_at`` of the journal row, which the database takes just before its
commit, to the ``read(2)`` that brought the frame: both by this machine's clock, so the fsync is in it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import attrs

from chaos.load.native_client import GRACE_S, NativeProgram, ReceiverFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chaos.load.rig import Rig

__all__ = ["DeliveryClient", "EndState", "Receipt", "committed_ns", "percentile", "read_log"]

_ENTRY: Final = struct.Struct("<IIqq")


@attrs.frozen
class EndState:
    """How one connection stands.

    Attributes:
        is_ended: Whether the node ended it.
        close_code: Of its close frame, 0 if none came.
        frames: That it got.
        last_seqs: Of each of its topics.
    """

    is_ended: bool
    close_code: int
    frames: int
    last_seqs: Sequence[int]


class DeliveryClient(NativeProgram):
    """Some connections in one process, in the order of their preambles."""

    def __init__(
        self,
        program: Path,
        port: int,
        preambles: Path,
        *,
        log: Path | None = None,
        receive_buffer_bytes: int = 0,
        look_every_us: int = 0,
    ) -> None:
        """Start it; nobody is connected yet.

        Args:
            program: From ``compile_native("delivery_client", ...)``.
            port: Of the node, on 127.0.0.1.
            preambles: From ``write_preambles``; one connection for each entry, in this order.
            log: See ``read_log``.
            receive_buffer_bytes: SO_RCVBUF; 0: the kernel's own.
            look_every_us: It sleeps so long between two looks; 0: the kernel wakes it for each frame.
        """
        command = [str(program), str(port), str(preambles), "--receive-buffer", str(receive_buffer_bytes)]
        command += ["--look-every-us", str(look_every_us)] if look_every_us else []
        super().__init__([*command, *(["--log", str(log)] if log is not None else [])])

    def command(self, line: str, *, timeout_s: float = 0.0) -> dict[str, Any]:
        """Give a command that takes at most ``timeout_s``; return its answer.

        Raises:
            ReceiverFailedError: Somebody got what no client may get, or the command was not done in time.
        """
        answer = self.ask(line, timeout_s=timeout_s + GRACE_S)
        if not answer["done"] or answer["violations"]:
            raise ReceiverFailedError(f"after {line!r} clients say: {answer}")
        return answer

    def report(self) -> list[EndState]:
        """Return how each connection stands."""
        return [EndState(**one) for one in self.ask("report", timeout_s=GRACE_S)["connections"]]


@attrs.frozen
class Receipt:
    """One frame as it came: which connection, which of its topics, and when in Unix nanoseconds."""

    connection: int
    topic: int
    seq: int
    received_ns: int


def read_log(file: Path) -> Iterator[Receipt]:
    """Yield what a client has logged."""
    for entry in _ENTRY.iter_unpack(file.read_bytes()):
        yield Receipt(*entry)


def committed_ns(rig: Rig, topic: str) -> dict[int, int]:
    """Return when each frame of a topic was committed, Unix nanoseconds."""
    rows = rig.system.query(
        # A name made by the server.
        f"SELECT seq, (extract(epoch FROM committed_at) * 1e9)::bigint FROM runtime.journal WHERE topic = '{topic}'"  # noqa: S608
    )
    return {int(seq): int(at) for seq, at in rows}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` (0..1) of ``values`` are; there is at least one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
