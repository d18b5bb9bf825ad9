"""Unit tests of khala.cli.gate and gate_checks: what fails a rollout, when the gate waits, and whom it asks."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click
import httpx
import pytest
import trio
from rich.console import Console

from khala.cli import gate
from khala.cli.failures import CommandFailed
from khala.cli.gate import GateSource, find_gate_source, watch_gate
from khala.cli.gate_checks import FAIRNESS_MIN, RISE_MIN, RISE_RATIO, judge_fanout
from khala.cli.terminal import Terminal
from khala.cli.up_record import own_record, write_record
from khala_contracts import codec
from khala_contracts import http_messages as m
from runtime.core.fanout_trend import KEPT_S
from runtime.core.node_registry import FORGOTTEN_AFTER_S, SILENT_AFTER_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

RUNBOOK: Final = Path(__file__).resolve().parents[3] / "runbooks" / "gate.md"
SOURCE: Final = GateSource("http://runtime", "an-admin-token-of-a-test")


def metrics(*, fairness: float = 1.0, covered_s: int = 600, **trend: Any) -> m.FanoutMetricsResponse:
    """Return an answer of a runtime with one healthy node."""
    return m.FanoutMetricsResponse(
        nodes=[m.NodeStanding(node_id="node-1", ready=True)],
        totals=m.FanoutTotals(nodes=1, nodes_ready=1),
        trend=m.FanoutTrend(window_s=600, covered_s=covered_s, fairness=1.0, fairness_min=fairness, **trend),
    )


def failed(answer: m.FanoutMetricsResponse) -> list[str]:
    """Return the names of the checks that fail."""
    return [check.name for check in judge_fanout(answer) if not check.passed]


def test_a_healthy_system_passes() -> None:
    """Every check is named, and none fails."""
    checks = judge_fanout(metrics())
    assert [check.name for check in checks] == ["nodes", "fairness", "release", "disconnect", "evictions"]
    assert failed(metrics()) == []


def test_fairness_at_its_bound() -> None:
    """0.8 passes, and whatever is below it does not."""
    assert failed(metrics(fairness=FAIRNESS_MIN)) == []
    assert failed(metrics(fairness=FAIRNESS_MIN - 0.001)) == ["fairness"]


@pytest.mark.parametrize("name", ["release", "disconnect", "evictions"])
@pytest.mark.parametrize(
    ("before", "after", "fails"),
    [
        (0, RISE_MIN - 1, False),
        (0, RISE_MIN, True),
        (100, 150, False),
        (100, 151, True),
        (18, 27, False),
        (150, 100, False),
    ],
)
def test_a_rise(name: str, before: int, after: int, fails: bool) -> None:
    """More than half as much again, and at least ten more: both, or it is chance."""
    answer = metrics(before=m.FanoutChanges(**{name: before}), after=m.FanoutChanges(**{name: after}))
    assert failed(answer) == ([name] if fails else [])


def test_nodes() -> None:
    """Nobody ready, or one that has fallen silent, who is named; one that drains in order is no fault."""
    nobody = metrics()
    nobody.totals.nodes_ready = 0
    assert failed(nobody) == ["nodes"]
    silent = metrics()
    silent.nodes.append(m.NodeStanding(node_id="node-7", silent=True))
    assert failed(silent) == ["nodes"]
    assert "node-7" in judge_fanout(silent)[0].text
    draining = metrics()
    draining.nodes.append(m.NodeStanding(node_id="node-8", draining=True))
    assert failed(draining) == []


def test_the_runbook_names_the_thresholds() -> None:
    """The page from which operators act says what the code does."""
    page = RUNBOOK.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", page.partition("## The figures")[0], re.MULTILINE))
    assert list(rows)[:5] == [check.name for check in judge_fanout(metrics())]
    assert f"no report for {SILENT_AFTER_S:g} s" in rows["nodes"]
    assert f"below {FAIRNESS_MIN} " in rows["fairness"]
    assert f"above {RISE_RATIO} times the older half, and at least {RISE_MIN} above it" in page
    assert f"`window_s` ({gate.WINDOW_MIN_S} to {gate.WINDOW_MAX_S}, default 600)" in page
    assert f"{FORGOTTEN_AFTER_S / 60:g} min later it is forgotten" in page
    assert gate.WINDOW_MAX_S == KEPT_S


@attrs.define
class FakeRuntime:
    """Answers what it was given, the last of it again and again; remembers when it was asked."""

    answers: Sequence[m.FanoutMetricsResponse | int]
    asked_at: list[float] = attrs.field(factory=list)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Handle a request."""
        assert request.url.path == "/internal/v1/khala/fanout/metrics"
        assert request.headers["Authorization"] == "Bearer an-admin-token-of-a-test"
        answer = self.answers[min(len(self.asked_at), len(self.answers) - 1)]
        self.asked_at.append(trio.current_time())
        if isinstance(answer, int):
            return httpx.Response(answer)
        return httpx.Response(200, content=codec.encode_message(answer))


@pytest.fixture
def terminal() -> Terminal:
    """A terminal that nobody sees."""
    return Terminal(Console(file=io.StringIO()), Console(file=io.StringIO()), is_json=False)


def use(monkeypatch: pytest.MonkeyPatch, *answers: m.FanoutMetricsResponse | int) -> FakeRuntime:
    """Let the gate ask a fake runtime."""
    fake = FakeRuntime(answers)
    real = httpx.AsyncClient

    def open_client(**options: Any) -> httpx.AsyncClient:
        return real(transport=httpx.MockTransport(fake.answer), **options)

    monkeypatch.setattr(httpx, "AsyncClient", open_client)
    return fake


async def test_it_waits_for_the_window(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    """A runtime that has just started is asked until it has seen all of it, and then at once."""
    fake = use(monkeypatch, metrics(covered_s=592), metrics(covered_s=597), metrics(covered_s=600))
    checks = await watch_gate(terminal, SOURCE, 600, is_waiting=True)
    assert all(check.passed for check in checks)
    assert fake.asked_at == [0.0, 5.0, 8.0]


async def test_it_does_not_wait_to_fail(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    """The first failing check ends it, whatever is left of the window."""
    fake = use(monkeypatch, metrics(covered_s=10), metrics(covered_s=15, fairness=0.5))
    checks = await watch_gate(terminal, SOURCE, 600, is_waiting=True)
    assert [check.name for check in checks if not check.passed] == ["fairness"]
    assert fake.asked_at == [0.0, 5.0]


async def test_no_wait(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    """What has been seen is judged, once."""
    fake = use(monkeypatch, metrics(covered_s=10))
    assert all(check.passed for check in await watch_gate(terminal, SOURCE, 600, is_waiting=False))
    assert fake.asked_at == [0.0]


@pytest.mark.parametrize("status", [401, 404, 503])
async def test_a_runtime_that_cannot_be_asked_is_no_pass(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal, status: int
) -> None:
    """Whatever the reason: nothing is known, so the rollout does not go on."""
    use(monkeypatch, status)
    with pytest.raises(CommandFailed, match=str(status)):
        await watch_gate(terminal, SOURCE, 600, is_waiting=True)


def test_whom_it_asks(tmp_path: Path) -> None:
    """What was named, with the token of a file or the variable; else the khala up of the data directory."""
    nobody: dict[str, Any] = {"runtime_url": None, "admin_token_file": None, "environ": {}}
    with pytest.raises(CommandFailed, match="nothing runs"):
        find_gate_source(tmp_path, **nobody)
    token = tmp_path / "admin_token"
    token.write_text("token-of-a-file-of-secrets\n")
    record = attrs.evolve(
        own_record(version="1", now_s=0.0),
        is_ready=True,
        runtime_url="http://own/",
        admin_token_file=str(token),
    )
    write_record(tmp_path, record)
    environ = {"RUNTIME_ADMIN_TOKEN": "token-of-the-environment"}
    own = find_gate_source(tmp_path, **(nobody | {"environ": environ}))
    assert own == GateSource("http://own", "token-of-a-file-of-secrets")
    named = nobody | {"runtime_url": "http://r"}
    with pytest.raises(click.UsageError, match="admin token"):
        find_gate_source(tmp_path, **named)
    found = find_gate_source(tmp_path, **(named | {"environ": environ}))
    assert found == GateSource("http://r", "token-of-the-environment")
    found = find_gate_source(tmp_path, **(named | {"admin_token_file": token}))
    assert found.admin_token == "token-of-a-file-of-secrets"


@pytest.mark.parametrize("window", ["9s", "3601", "2h"])
def test_windows(window: str) -> None:
    """10 s to an hour; the runtime remembers no more."""
    with pytest.raises(click.UsageError, match="--window"):
        gate.gate_command.main(["--window", window], standalone_mode=False)
