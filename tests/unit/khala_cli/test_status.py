"""Unit tests of khala.cli.status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs
import httpx
import pytest
import trio

from khala.cli.main import main
from khala.cli.status import check_services, failed_checks
from khala.cli.up_record import own_record, write_record

if TYPE_CHECKING:
    from pathlib import Path


def test_what_does_not_answer_is_not_ready() -> None:
    """A service without a URL is starting; one that nobody listens for gives no answer."""
    record = attrs.evolve(own_record(version="1", now_s=0.0), control_url="http://127.0.0.1:1")
    origin, control, runtime, node = trio.run(check_services, record)
    assert (control.is_ready, control.detail) == (False, "no answer (ConnectError)")
    assert (origin.detail, runtime.detail, node.detail) == ("starting",) * 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"ready": false, "checks": {"database": "timeout", "keys": "ok"}}', "database: timeout"),
        ('{"ready": false, "checks": {}}', "not ready (HTTP 503)"),
        ("<html>", "not ready (HTTP 503)"),
        ("[]", "not ready (HTTP 503)"),
        ('{"checks": 3}', "not ready (HTTP 503)"),
    ],
)
def test_the_checks_that_fail_are_named(body: str, said: str) -> None:
    """An answer of somebody else's is reported by its status."""
    assert failed_checks(httpx.Response(503, text=body)) == said


def test_nothing_running_is_said_and_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts: running is false."""
    with pytest.raises(SystemExit) as ended:
        main(["status", "--json", "--data-dir", str(tmp_path)])
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out) == {
        "type": "status",
        "running": False,
        "data_dir": str(tmp_path),
    }


def test_a_system_that_starts_runs_but_is_not_ready(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1 until every service is ready."""
    write_record(tmp_path, own_record(version="1", now_s=0.0))
    with pytest.raises(SystemExit) as ended:
        main(["status", "--json", "--data-dir", str(tmp_path)])
    status = json.loads(capsys.readouterr().out)
    assert (ended.value.code, status["running"], status["ready"]) == (1, True, False)
    with pytest.raises(SystemExit):
        main(["status", "--data-dir", str(tmp_path)])
    assert "Khala is not ready" in capsys.readouterr().out


SPLIT = attrs.evolve(
    own_record(version="1", now_s=0.0),
    is_ready=True,
    nodes=[{"name": "node-1", "url": "ws://x", "admin_url": "http://127.0.0.1:1", "pid": 12}],
    processes={"postgres": 10, "runtime": 11, "node-1": 12},
    children={
        "postgres": {"state": "waiting", "restarts": 2},
        "runtime": {"state": "running", "restarts": 1},
        "node-1": {"state": "running", "restarts": 0},
    },
)


def test_child_processes_are_named_with_state_pid_and_restarts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Services are asked themselves; of the database the supervisor knows whether it runs."""
    write_record(tmp_path, SPLIT)
    with pytest.raises(SystemExit) as ended:
        main(["status", "--json", "--data-dir", str(tmp_path)])
    status = json.loads(capsys.readouterr().out)
    assert (ended.value.code, status["ready"]) == (1, False)
    assert set(status["services"]) == {"origin", "control", "runtime", "node-1"}
    assert status["processes"]["postgres"] == {
        "pid": 10, "state": "waiting", "restarts": 2, "ready": False, "detail": "",
    }  # fmt: skip
    assert status["processes"]["node-1"]["detail"] == "no answer (ConnectError)"
    assert status["nodes"] == SPLIT.nodes
    with pytest.raises(SystemExit):
        main(["status", "--data-dir", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "pid 10, waiting, 2 restarts" in shown
    assert "pid 11, running, 1 restart " in shown
    assert "pid 12, running " in shown


def test_one_pid_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For `kill`: a number and nothing else; khala is the process that was started."""
    write_record(tmp_path, SPLIT)
    for name, pid in (("runtime", 11), ("khala", SPLIT.pid)):
        with pytest.raises(SystemExit) as ended:
            main(["status", "--pid", name, "--data-dir", str(tmp_path)])
        assert (ended.value.code, capsys.readouterr().out) == (0, f"{pid}\n")
    with pytest.raises(SystemExit) as ended:
        main(["status", "--pid", "node-9", "--data-dir", str(tmp_path)])
    assert ended.value.code == 1
    assert "there are khala, postgres, runtime, node-1" in capsys.readouterr().err
