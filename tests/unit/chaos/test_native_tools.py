"""Compiling the C programs of the benchmarks, or saying why not."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import pytest

from chaos.load.native_tools import CompilerMissingError, compile_native

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_compiler_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is written then."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompilerMissingError, match="no C compiler"):
        compile_native("receiver", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_sources_travel_with_the_package() -> None:
    """Both programs are found from an installation."""
    sources = resources.files("chaos.load.native")
    assert {"receiver.c", "send_loop.c"} <= {entry.name for entry in sources.iterdir()}
