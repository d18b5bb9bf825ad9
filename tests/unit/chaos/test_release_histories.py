"""Folders of releases are written once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.release_histories import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_release_that_is_kept_is_not_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything is started, with nothing changed."""
    (tmp_path / "histories").mkdir()
    assert main([str(tmp_path), "recording.jsonl"]) == 1
    assert capsys.readouterr().err.startswith("nothing more was kept: ")
    assert [path.name for path in tmp_path.iterdir()] == ["histories"]
