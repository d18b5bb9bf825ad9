from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.ci.checks import CheckContext

Plant = Callable[[Mapping[str, str]], CheckContext]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Return a function that writes files into a tree of its own and gives the context to judge it."""

    def write(files: Mapping[str, str]) -> CheckContext:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return CheckContext(tmp_path)

    return write
