import sys
from pathlib import Path

import pytest

from tests.ci import tools


def test_success_says_nothing(tmp_path: Path) -> None:
    """Whatever a tool prints, exit status 0 is no problem."""
    assert tools.run_tool(tmp_path, [sys.executable, "-c", "print('words')"]) == []


def test_failure_shows_the_last_lines(tmp_path: Path) -> None:
    """Both outputs are shown, without empty lines, at most sixty."""
    program = "import sys\nfor n in range(70): print(n, '\\n')\nsys.exit('bad')"
    problems = tools.run_tool(tmp_path, [sys.executable, "-u", "-c", program])
    assert len(problems) == 60
    assert problems[-1] == "bad"


def test_silent_failure_names_its_status(tmp_path: Path) -> None:
    """A tool that fails without a word still fails."""
    [problem] = tools.run_tool(tmp_path, [sys.executable, "-c", "raise SystemExit(3)"])
    assert problem.endswith("exit status 3 without a word")


def test_missing_tool_is_a_problem(tmp_path: Path) -> None:
    """A tool that is not installed does not pass."""
    [problem] = tools.run_script(tmp_path, "no-such-tool")
    assert problem.startswith("no-such-tool: cannot be started")


def test_hanging_tool_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool has a limit."""
    monkeypatch.setattr(tools, "TOOL_TIMEOUT_S", 0.2)
    [problem] = tools.run_tool(tmp_path, [sys.executable, "-c", "import signal; signal.pause()"])
    assert "no answer in 0 s" in problem
