"""The stadium's Centrifugo side, against a stand-in that speaks the documented protocol."""

from __future__ import annotations

import shutil
import stat
import sys
from typing import TYPE_CHECKING, Final

import pytest

from chaos.load.centrifugo_side import centrifugo_side, find_centrifugo
from chaos.load.committed_records import CommittedRecord
from chaos.load.native_tools import compile_native
from chaos.load.stadium_sides import Programs
from chaos.load.system_under_test import SystemFailedError
from tests.integration import fake_centrifugo

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler"),
]

PAYLOAD_BYTES: Final = 40


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put the stand-in on PATH; return what is found there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "centrifugo"
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake_centrifugo.__file__}" "$@"\n')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    found = find_centrifugo()
    assert found == str(file)
    return found


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """Compile the receiver; the others are not used here."""
    return Programs(tmp_path, compile_native("stream_client", tmp_path), tmp_path, tmp_path)


def records(first: int, *, count: int, frames: int) -> list[CommittedRecord]:
    """Return records whose frames follow each other; only their seqs are looked at."""
    firsts = range(first, first + count * frames, frames)
    return [CommittedRecord(seq, seq + frames - 1, b"", b"", b"") for seq in firsts]


def test_every_frame_of_every_round_is_received_and_verified(program: str, programs: Programs) -> None:
    """Frames that travel several to a message, pings, and a second round that goes on where the first ended."""
    with centrifugo_side(
        program, "memory", programs, head_seq=6, subscribers=4, payload_bytes=PAYLOAD_BYTES
    ) as side:
        first = side.run(records(7, count=5, frames=3))
        second = side.run(records(22, count=2, frames=1))
    assert (first.deliveries, second.deliveries) == (60, 8)
    assert side.head_seq == 23
    assert first.seconds > 0


def test_a_version_that_does_not_start_says_why(program: str, programs: Programs) -> None:
    """The report names the peer that is missing."""
    with (
        pytest.raises(SystemFailedError, match="centrifugo_postgres did not start: unknown broker"),
        centrifugo_side(
            program,
            "postgres",
            programs,
            head_seq=0,
            subscribers=2,
            payload_bytes=PAYLOAD_BYTES,
            dsn="postgres://",
        ),
    ):
        pytest.fail("it started")
