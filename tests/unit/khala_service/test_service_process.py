"""Unit tests of khala_service.service_process; whole processes: tests/e2e/test_services.py."""

from __future__ import annotations

import io
import json
import signal
import sys
from typing import TYPE_CHECKING

from khala_service.config import ConfigRefused
from khala_service.errors import Unavailable
from khala_service.logs import configure_logging
from khala_service.service_process import (
    ENDING_SIGNALS,
    EXIT_FAILED,
    EXIT_REFUSED,
    report_failure,
    service_environ,
)

if TYPE_CHECKING:
    import pytest


def test_a_shell_that_is_set_up_for_clients_can_start_services() -> None:
    """Where clients connect is no key of the services; what is meant for them stays."""
    environ = {"KHALA_CONTROL_URL": "u", "KHALA_RUNTIME_URL": "u", "KHALA_CONTROL_PORT": "1", "PATH": "/bin"}
    assert service_environ(environ) == {"KHALA_CONTROL_PORT": "1", "PATH": "/bin"}


def test_every_refused_key_is_a_line_and_status_78(capsys: pytest.CaptureFixture[str]) -> None:
    """Also if the refusal comes out of nurseries."""
    refused = ConfigRefused(("control.port: expected an integer", "control.x: unknown key"))
    assert report_failure(refused) == EXIT_REFUSED
    assert report_failure(ExceptionGroup("", [ExceptionGroup("", [refused])])) == EXIT_REFUSED
    assert capsys.readouterr().err == "control.port: expected an integer\ncontrol.x: unknown key\n" * 2


def test_an_operating_failure_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    """No stack trace for a port in use or a database that is away."""
    trouble = ExceptionGroup("", [Unavailable("database_unreachable"), OSError(98, "Address already in use")])
    assert report_failure(trouble) == EXIT_FAILED
    assert capsys.readouterr().err.splitlines() == [
        "Unavailable: database_unreachable",
        "OSError: [Errno 98] Address already in use",
    ]


def test_a_mistake_of_ours_is_logged_with_its_trace() -> None:
    """As a JSON line, like everything else; mixed with a refusal it is still a mistake."""
    log = io.StringIO()
    configure_logging("control", stream=log, human=False)
    mixed = ExceptionGroup("", [ConfigRefused(("a: b",)), ZeroDivisionError("x")])
    assert [report_failure(error) for error in (ZeroDivisionError("x"), mixed)] == [EXIT_FAILED] * 2
    for line in log.getvalue().splitlines():
        said = json.loads(line)
        assert (said["event"], said["level"]) == ("crashed", "critical")
        assert "ZeroDivisionError: x" in said["exception"]
    assert len(log.getvalue().splitlines()) == 2


def test_the_requests_to_end_are_the_usual_ones() -> None:
    """Ctrl-C, a supervisor's request, a closed terminal."""
    assert {signal.SIGINT, signal.SIGTERM} <= set(ENDING_SIGNALS)
    assert sys.platform == "win32" or signal.SIGHUP in ENDING_SIGNALS
