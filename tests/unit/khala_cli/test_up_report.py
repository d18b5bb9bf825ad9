"""Unit tests of khala.cli.up_report."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from rich.console import Console

from khala.cli.locations import default_data_dir
from khala.cli.terminal import Terminal
from khala.cli.up_record import own_record
from khala.cli.up_report import UpReport, example_command, program_name

if TYPE_CHECKING:
    import pytest


def report_on(data_dir: Path) -> str:
    """Return what is printed when a system on ``data_dir`` is ready."""
    console = Console(file=io.StringIO(), width=120)
    record = attrs.evolve(
        own_record(version="1", now_s=0.0),
        origin="http://127.0.0.1:8470",
        control_url="http://127.0.0.1:8471",
        profile=f"{data_dir}/profile",
    )
    report = UpReport(Terminal(console, console, is_json=False))
    report.step("Starting PostgreSQL")
    report.ready(data_dir, record)
    report.stopping()
    report.stopped()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_says_what_to_type_next() -> None:
    """The commands can be copied as they are; in the usual place no variable has to be set."""
    said = report_on(default_data_dir().absolute())
    for words in (
        "Starting PostgreSQL",
        "http://127.0.0.1:8470",
        "http://127.0.0.1:8471",
        "record --name hello --",
        "tail RUN",
        "Ctrl-C",
    ):
        assert words in said
    assert "export" not in said


def test_another_place_has_to_be_named() -> None:
    """With blanks in its name, too."""
    assert "export KHALA_PROFILE='/a b/profile'" in report_on(Path("/a b"))


def test_the_program_is_named_as_it_was_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On PATH it is `khala`, elsewhere its path, and under another name it is guessed."""
    program = tmp_path / "bin" / "khala"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert program_name() == "bin/khala"
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    assert program_name() == "khala"
    monkeypatch.setattr(shutil, "which", lambda name: "/another/khala")
    assert program_name() == "bin/khala"
    monkeypatch.setattr(sys, "argv", ["/x/__main__.py"])
    assert program_name() == "khala"


def test_the_example_exists_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no python3 there is ls."""
    assert shutil.which(example_command().split()[0]) is not None
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert example_command() == "ls -l"
