"""Unit tests of khala.cli.importing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from khala.cli.failures import CommandFailed
from khala.cli.importing import read_import

if TYPE_CHECKING:
    from pathlib import Path

LINES = '{"kind": "thought", "data": {"text": "a"}}\n{"kind": "thought", "data": {"text": "b"}}\n'


def test_keys_depend_on_content_name_run_and_index_alone(tmp_path: Path) -> None:
    """The same file elsewhere is the same import; anything else is another one."""
    first, copy, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c.jsonl"
    first.write_text(LINES)
    copy.write_text(LINES)
    other.write_text(LINES.replace("b", "c"))
    one, two, three = (read_import(path, name="n") for path in (first, copy, other))
    assert one.start_key == two.start_key != three.start_key
    assert one.start_key != read_import(first, name="m").start_key
    assert one.event_key("run_1", 0) == two.event_key("run_1", 0)
    keys = {
        one.event_key("run_1", 0),
        one.event_key("run_1", 1),
        one.event_key("run_2", 0),
        three.event_key("run_1", 0),
    }
    assert len(keys) == 4


def test_the_name_comes_from_the_file_and_its_content(tmp_path: Path) -> None:
    """Names are unique per owner, file names are not."""
    path = tmp_path / f"{'x' * 100}.jsonl"
    path.write_text(LINES)
    read = read_import(path, name=None)
    assert read.sha256 == hashlib.sha256(LINES.encode()).hexdigest()
    assert read.name == f"{'x' * 80}-{read.sha256[:8]}"
    assert read_import(path, name="mine").name == "mine"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("", "the file is empty"),
        (LINES + "{", "line 3: not JSON"),
        ('{"trajectory": [\n{"thought": 1}]}', r"line 2, trajectory\[0\].thought: must be text"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_line_and_reason(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    """One sentence says which file, where, and why."""
    path = tmp_path / "broken.traj"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CommandFailed, match=rf"broken\.traj: .*{reason}"):
        read_import(path, name=None)
