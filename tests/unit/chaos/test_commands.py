"""``khala bench``: what it prints and how it fails, with measurements replaced by known ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from chaos.load import commands
from chaos.load.append import AppendSetup
from chaos.load.append_client import AppendFailedError
from chaos.load.native_tools import CompilerMissingError
from chaos.load.origin import LostFramesError
from chaos.load.system_under_test import SystemFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.load.revoke import RevokeSetup


def answering(name: str, *seen: list[object]) -> Callable[..., dict[str, object]]:
    """Return a benchmark that measures nothing."""

    def measure(setup: object, *, pairs: int, report: Callable[[str], None]) -> dict[str, object]:
        for calls in seen:
            calls.append((setup, pairs))
        report("pair 1")
        return {"benchmark": name}

    return measure


def failing(error: Exception) -> Callable[..., dict[str, object]]:
    """Return a benchmark that fails."""

    def measure(setup: object, **_: object) -> dict[str, object]:
        raise error

    return measure


def test_without_a_benchmark_it_says_which_there_are() -> None:
    """The group's help."""
    result = CliRunner().invoke(commands.bench)
    assert result.exit_code == 0
    assert "append" in result.output
    assert "stadium" in result.output


def test_json_goes_to_the_output_and_progress_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the output can be written to a report."""
    seen: list[object] = []
    monkeypatch.setattr(commands, "measure_append", answering("append", seen))
    result = CliRunner().invoke(commands.bench, ["append", "--seconds", "2", "--pairs", "5"])
    assert json.loads(result.stdout) == {"benchmark": "append"}
    assert result.stderr == "pair 1\n"
    assert seen == [(AppendSetup(200, 200, 4, 8, 2), 5)]


def test_the_smoke_runs_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with a reference as one pair."""
    seen: list[object] = []
    monkeypatch.setattr(commands, "_smoke_on_rig", lambda: [{"benchmark": "stadium"}])
    monkeypatch.setattr(commands, "measure_append", answering("append", seen))

    def measure_revoke(setup: RevokeSetup, *, report: Callable[[str], None]) -> dict[str, object]:
        seen.append(setup)
        report("round 1")
        return {"benchmark": "revoke"}

    monkeypatch.setattr(commands, "measure_revoke", measure_revoke)
    monkeypatch.setattr(commands, "measure_origin", answering("origin", seen))
    result = CliRunner().invoke(commands.bench, ["--smoke"])
    names = [one["benchmark"] for one in json.loads(result.stdout)["results"]]
    assert names == ["append", "revoke", "origin", "stadium"]
    assert seen == [
        (commands.SMOKE_APPEND, 1),
        commands.SMOKE_REVOKE,
        (commands.SMOKE_ORIGIN, 1),
    ]


def test_no_compiler_is_a_reason_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report says why there is no figure."""
    monkeypatch.setattr(commands, "measure_origin", failing(CompilerMissingError("no C compiler")))
    result = CliRunner().invoke(commands.bench, ["origin"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"benchmark": "origin", "skipped": "no C compiler"}


@pytest.mark.parametrize(
    ("benchmark", "error"),
    [
        ("origin", LostFramesError("a frame is missing")),
        ("append", SystemFailedError("it did not start")),
        ("append", AppendFailedError("refused")),
        ("revoke", SystemFailedError("a socket that nobody revoked")),
    ],
)
def test_a_benchmark_that_broke_a_promise_gives_no_figure(
    monkeypatch: pytest.MonkeyPatch, benchmark: str, error: Exception
) -> None:
    """Exit status 1 and the reason; nothing on the output."""
    monkeypatch.setattr(commands, f"measure_{benchmark}", failing(error))
    result = CliRunner().invoke(commands.bench, [benchmark])
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(error) in result.stderr
