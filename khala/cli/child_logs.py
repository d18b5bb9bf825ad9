"""What children say: each line whole into ``logs/<name>.log``, and what is news to whoever watches.

Nobody who looks away may hold up a child: lines for the screen wait in a bounded queue of their own, and
what does not fit there is not shown.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from khala.cli.log_lines import LogLine, parse_log_line
from khala.cli.terminal import json_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from khala.cli.log_file import BoundedLog

__all__ = ["ChildLog", "follow_file"]

# A line longer than this is cut: a stack trace has 10 KiB.
LINE_MAX_BYTES: Final = 256 * 1024
LAST_WORDS_MAX: Final = 20
FOLLOW_POLL_S: Final = 0.3
FOLLOW_MAX_BYTES: Final = 64 * 1024


class ChildLog:
    """Takes the standard error of one child, life after life."""

    def __init__(self, file: BoundedLog, show: Callable[[LogLine], None], now: Callable[[], str]) -> None:
        """Write to ``file``; ``show`` is called for each line and must not block."""
        self._file = file
        self._show = show
        self._now = now
        self._plain: deque[str] = deque(maxlen=LAST_WORDS_MAX)
        self._crash = ""

    async def read(self, stream: trio.abc.ReceiveStream) -> None:
        """Take every line until the stream ends."""
        self._plain.clear()
        self._crash = ""
        rest = b""
        try:
            async for part in stream:
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    self._take(line)
                if len(rest) > LINE_MAX_BYTES:
                    self._take(rest)
                    rest = b""
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if rest:
            self._take(rest)

    def last_words(self) -> str:
        """Return why the last process could not go on: its lines that were no log lines, else its crash."""
        return "\n".join(self._plain) or self._crash

    def _take(self, line: bytes) -> None:
        text = line[:LINE_MAX_BYTES].decode("utf-8", errors="replace").rstrip()
        if not text:
            return
        parsed = parse_log_line(text)
        if parsed.is_plain:
            self._plain.append(text)
            text = json_line({"ts": self._now(), "level": "error", "event": "said", "text": text}).rstrip()
        elif parsed.level == "critical":
            self._crash = str(parsed.fields.get("exception", parsed.event))
        with suppress(OSError):
            self._file.write(text + "\n")
        self._show(parsed)


async def follow_file(path: Path, parse: Callable[[str], LogLine], show: Callable[[LogLine], None]) -> None:
    """Show every line that is added to a file from now on; runs until cancelled."""
    position, rest = _size_of(path), b""
    while True:
        await trio.sleep(FOLLOW_POLL_S)
        if _size_of(path) < position:
            position, rest = 0, b""
        part = _read_from(path, position)
        position += len(part)
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", errors="replace").rstrip()
            if text:
                show(parse(text))


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read_from(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(FOLLOW_MAX_BYTES)
    except OSError:
        return b""
