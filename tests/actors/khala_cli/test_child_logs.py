"""What children say: into a file, and to whoever watches."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from khala.cli.child_logs import LINE_MAX_BYTES, ChildLog, follow_file
from khala.cli.log_file import BoundedLog
from khala.cli.log_lines import LogLine, parse_postgres_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Kept:
    """A log of which everything is kept."""

    def __init__(self, file: BoundedLog) -> None:
        self.shown: list[LogLine] = []
        self.log = ChildLog(file, self.shown.append, lambda: "2026-11-21T12:00:00.000+00:00")

    async def say(self, *parts: bytes) -> None:
        """Let one process say something and end."""
        sending, receiving = trio.testing.memory_stream_one_way_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.log.read, receiving)
            for part in parts:
                await sending.send_all(part)
                await trio.testing.wait_all_tasks_blocked()
            await sending.aclose()


def lines_of(path: Path) -> list[str]:
    """Return what the file holds."""
    return path.read_text().splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "runtime.log"


@pytest.fixture
def kept(path: Path) -> Iterator[Kept]:
    """A log of a child."""
    with BoundedLog(path) as file:
        yield Kept(file)


async def test_lines_arrive_whole_however_they_are_cut(kept: Kept, path: Path) -> None:
    """Pipes know no lines; the last one needs no newline, blank ones are none."""
    await kept.say(b'{"event": "a"}\n{"ev', b'ent": "b"}\n\n', b'{"event": "c"}')
    assert [line.event for line in kept.shown] == ["a", "b", "c"]
    assert lines_of(path) == ['{"event": "a"}', '{"event": "b"}', '{"event": "c"}']
    assert kept.log.last_words() == ""


async def test_what_is_no_log_line_becomes_one_and_is_the_last_word(kept: Kept, path: Path) -> None:
    """The file stays JSON; why a child refused to start is remembered until it is started again."""
    await kept.say(b"control.port: expected an integer\ncontrol.x: unknown key\n")
    assert kept.log.last_words() == "control.port: expected an integer\ncontrol.x: unknown key"
    first = json.loads(lines_of(path)[0])
    assert first == {
        "ts": "2026-11-21T12:00:00.000+00:00", "level": "error", "event": "said",
        "text": "control.port: expected an integer",
    }  # fmt: skip
    await kept.say(b'{"event": "started"}\n')
    assert kept.log.last_words() == ""


async def test_a_crash_is_the_last_word_of_a_child_that_said_nothing_else(kept: Kept) -> None:
    """The services log their own crashes."""
    await kept.say(b'{"event": "crashed", "level": "critical", "exception": "Traceback\\nValueError: x"}\n')
    assert kept.log.last_words() == "Traceback\nValueError: x"


async def test_a_line_without_end_is_cut(kept: Kept, path: Path) -> None:
    """Whatever a child writes, the supervisor holds one line of bounded length."""
    part = b"x" * (LINE_MAX_BYTES // 2 + 1)
    await kept.say(part, part, b"rest\n")
    assert [len(line.event) for line in kept.shown] == [LINE_MAX_BYTES, 4]
    assert len(lines_of(path)) == 2


async def test_a_file_is_followed_from_its_end(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """PostgreSQL writes its log itself: old lines are not shown, a new file is read from its beginning."""
    path, shown = tmp_path / "postgres.log", list[LogLine]()
    prefix = "2026-11-21 12:11:21.123 UTC [42] LOG:  "
    path.write_text(f"{prefix}old\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(follow_file, path, parse_postgres_line, shown.append))
        await trio.testing.wait_all_tasks_blocked()
        with path.open("a") as file:
            file.write(f"{prefix}new\n{prefix}half")
        await trio.sleep(1)
        assert [line.event for line in shown] == ["new"]
        path.unlink()
        await trio.sleep(1)
        path.write_text(" a line\n")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [line.event for line in shown] == ["new", " a line"]
