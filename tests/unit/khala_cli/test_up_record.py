"""Unit tests of khala.cli.up_record."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import attrs
import pytest

from khala.cli.up_record import living_record, own_record, remove_record, write_record

if TYPE_CHECKING:
    from pathlib import Path


def test_a_record_is_found_while_its_writer_lives(tmp_path: Path) -> None:
    """What is written is read again, by its owner alone."""
    record = attrs.evolve(own_record(version="1", now_s=1_000.0), is_ready=True, control_url="http://x")
    write_record(tmp_path, record)
    assert living_record(tmp_path) == record
    assert stat.S_IMODE((tmp_path / "up.json").stat().st_mode) == 0o600
    remove_record(tmp_path)
    assert living_record(tmp_path) is None
    remove_record(tmp_path)


def test_another_process_with_the_same_pid_is_not_taken_for_it(tmp_path: Path) -> None:
    """After a kill -9 the number may belong to a stranger, who must not get our signals."""
    write_record(tmp_path, attrs.evolve(own_record(version="1", now_s=1_000.0), identity="somebody:else"))
    assert living_record(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"pid": 1}', "null"])
def test_a_damaged_record_counts_as_none(tmp_path: Path, text: str) -> None:
    """A half written or foreign file stops no command."""
    (tmp_path / "up.json").write_text(text)
    assert living_record(tmp_path) is None


def test_a_newer_version_may_say_more(tmp_path: Path) -> None:
    """Unknown members are passed over."""
    record = own_record(version="9", now_s=1_000.0)
    (tmp_path / "up.json").write_text(json.dumps({**attrs.asdict(record), "brand_new": 1}))
    assert living_record(tmp_path) == record


def test_the_ready_file_has_exactly_the_promised_members() -> None:
    """Outsiders read them by name."""
    assert set(own_record(version="1", now_s=0.0).urls) == {
        "origin", "control_url", "runtime_url", "sync_url", "admin_url", "admin_token_file", "profile", "nodes",
    }  # fmt: skip
