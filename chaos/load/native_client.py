"""Programs in C that take a command a line and answer a line of JSON: started, asked, ended.

``NativeClient`` is ``native/stream_client.c``: many subscribers of one node (or of a peer that sends the
same frames), which verify what they get. What it finds wrong ends the measurement with an exception.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

__all__ = ["NativeClient", "NativeProgram", "Received", "ReceiverFailedError"]

# Above what a command is given itself.
GRACE_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 5.0


class ReceiverFailedError(Exception):
    """A client got what no client may get, was ended, or did not get everything in time."""


class NativeProgram:
    """One process; ``with`` ends it."""

    def __init__(self, command: Sequence[str], *, secrets: Mapping[str, str] | None = None) -> None:
        """Start it. Its standard error is ours.

        Args:
            command: Program and arguments, which everybody on the machine can see.
            secrets: Variables for its environment.
        """
        self._process = subprocess.Popen(
            command,
            env=None if secrets is None else {**os.environ, **secrets},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._name = command[0]

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process; its input ends, and after a while it is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if kind is not None:
            self._process.kill()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def say(self, line: str) -> None:
        """Give a command; ``read`` its answer later."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ReceiverFailedError(f"{self._name} has ended with {self._process.wait()}") from None

    def read_line(self, *, timeout_s: float) -> str:
        """Return the next line of its output.

        Raises:
            ReceiverFailedError: It ended, or said nothing in time.
        """
        output = self._process.stdout
        assert output is not None
        deadline = time.monotonic() + timeout_s
        # One line for each command, so nothing is ever left in the text buffer when this waits.
        while not select.select([output], [], [], 0.5)[0]:
            if time.monotonic() > deadline:
                raise ReceiverFailedError(f"{self._name} said nothing in {timeout_s:.0f} s")
        line = output.readline()
        if not line:
            raise ReceiverFailedError(f"{self._name} has ended with {self._process.wait()}")
        return line.strip()

    def read(self, *, timeout_s: float) -> dict[str, Any]:
        """Return the next answer; raises as ``read_line``."""
        answer: dict[str, Any] = json.loads(self.read_line(timeout_s=timeout_s))
        return answer

    def ask(self, line: str, *, timeout_s: float) -> dict[str, Any]:
        """Give a command and return its answer."""
        self.say(line)
        return self.read(timeout_s=timeout_s)


@attrs.frozen
class Received:
    """What came during one command.

    Attributes:
        seconds: From the first frame to the last.
        cpu_s: Of the client.
        first_ns: When the first frame came, Unix nanoseconds; 0 if none did.
        last_ns: When the last came.
    """

    frames: int
    bytes: int
    seconds: float
    cpu_s: float
    first_ns: int
    last_ns: int


class NativeClient(NativeProgram):
    """Subscribers in one process that does not measure itself."""

    def __init__(
        self,
        program: Path,
        port: int,
        preambles: Path,
        *,
        opens_per_s: float = 200.0,
        opening_max: int = 32,
        receive_buffer_bytes: int = 0,
        verify_payload: bool = True,
        log: Path | None = None,
        centrifugo_after_seq: int | None = None,
        look_every_us: int = 0,
    ) -> None:
        """Start it; nobody is connected yet.

        Args:
            program: From ``compile_native("stream_client", ...)``.
            port: Of the node, on 127.0.0.1.
            preambles: From ``write_preambles``; one connection for each entry, in this order.
            opens_per_s: The node admits 250 a second by default; 0: no pace.
            opening_max: Connections between connect and subscribed at once.
            receive_buffer_bytes: SO_RCVBUF; 0: the kernel's own.
            verify_payload: Whether payloads must be those of ``known_payloads``.
            log: Gets 24 bytes for each frame: u32 connection, u32 topic, i64 seq, i64 Unix ns.
            centrifugo_after_seq: The server is a Centrifugo, whose frames begin after this seq.
            look_every_us: Whoever has read everything sleeps so long in ``begin_run``; 0: the kernel wakes it
                for each frame.
        """
        command = [str(program), str(port), str(preambles)]
        command += ["--opens-per-s", str(opens_per_s), "--opening", str(opening_max)]
        command += ["--receive-buffer", str(receive_buffer_bytes)]
        command += [] if verify_payload else ["--no-payload"]
        command += ["--log", str(log)] if log is not None else []
        command += ["--look-every-us", str(look_every_us)] if look_every_us else []
        if centrifugo_after_seq is not None:
            command += ["--centrifugo", str(centrifugo_after_seq)]
        super().__init__(command)

    def open(self, *, timeout_s: float) -> dict[str, Any]:
        """Connect everybody; return when all are subscribed."""
        return self._judge(self.ask("open", timeout_s=timeout_s))

    def begin_run(self, last_seq: int, *, timeout_s: float) -> None:
        """Expect frames up to ``last_seq`` of every topic; ``end_run`` waits for them."""
        self.say(f"run {last_seq} {timeout_s}")

    def end_run(self, *, timeout_s: float) -> Received:
        """Return what came since ``begin_run``.

        Raises:
            ReceiverFailedError: Something is missing, was repeated, or is not what was written.
        """
        answer = self._judge(self.read(timeout_s=timeout_s + GRACE_S))
        return Received(**{field.name: answer[field.name] for field in attrs.fields(Received)})

    def tell(self, message: Path, *, through_seq: int, timeout_s: float) -> Received:
        """Send masked messages to each connection; return when each has been told that its replay is complete.

        Args:
            message: Their bytes: a subscribe of one topic.
            through_seq: Where the replay ends; ``seconds`` is from the first byte sent to the last end.
            timeout_s: For all of it.

        Raises:
            ReceiverFailedError: As ``end_run``.
        """
        self.say(f"tell {message} {through_seq} {timeout_s}")
        return self.end_run(timeout_s=timeout_s)

    def _judge(self, answer: dict[str, Any]) -> dict[str, Any]:
        if not answer["done"] or answer["violations"] or answer["ended"]:
            raise ReceiverFailedError(f"clients say: {json.dumps(answer)}")
        return answer
