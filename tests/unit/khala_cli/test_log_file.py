"""Unit tests of khala.cli.log_file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala.cli.log_file import BoundedLog

if TYPE_CHECKING:
    from pathlib import Path


def test_it_never_holds_more_than_two_generations(tmp_path: Path) -> None:
    """Invariant: 2 * max_bytes and one line; the newest lines are there."""
    path = tmp_path / "khala.log"
    line = "x" * 9 + "\n"
    with BoundedLog(path, max_bytes=100) as log:
        for _ in range(1_000):
            assert log.write(line) == len(line)
            assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2 * 100 + len(line)
        log.write("last\n")
    assert path.read_text().endswith("last\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["khala.log", "khala.log.1"]


def test_a_line_is_on_disk_when_it_was_written(tmp_path: Path) -> None:
    """A process that is killed has said its last words."""
    path = tmp_path / "khala.log"
    log = BoundedLog(path)
    log.write("words\n")
    assert path.read_text() == "words\n"
    assert not log.isatty()
    log.flush()
    log.close()


def test_the_next_life_goes_on_in_the_same_file(tmp_path: Path) -> None:
    """Appended, and bounded by what was there before."""
    path = tmp_path / "khala.log"
    path.write_text("before\n")
    with BoundedLog(path) as log:
        log.write("after\n")
    assert path.read_text() == "before\nafter\n"
