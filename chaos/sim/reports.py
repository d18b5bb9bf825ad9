"""What the processes of a world report that should never happen: crashes of tasks, errors in the log.

A world is quiet about what is expected (a database that is away, a client that is slow). A task that has
crashed and was started again, a poisoned record, a line of level error: each is a finding, although nobody
outside may notice it.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Final

import attrs
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from chaos.sim.gates import PortGate

__all__ = ["Findings", "ProjectionReport", "RuntimeReport", "collect_errors"]

# Lines of level error that are no bug of ours: a fault of the world that is said aloud.
_EXPECTED: Final = {"projection_set_aside": "locked", "superseded": None}


@attrs.define
class Findings:
    """What should not have happened, in the order in which it did."""

    lines: list[str] = attrs.field(factory=list)
    # For whoever reads a failing seed: tracebacks of the crashes.
    details: list[str] = attrs.field(factory=list)

    def add(self, who: str, what: str, error: BaseException | None = None) -> None:
        """Remember one finding."""
        self.lines.append(f"{who}: {what}")
        if error is not None:
            self.details.append("".join(traceback.format_exception(error)))


def collect_errors(found: Callable[[str, BaseException | None], None]) -> None:
    """Send lines of level error to ``found`` and drop all others; for the whole interpreter."""

    def take(_logger: object, _method: str, event: MutableMapping[str, object]) -> str:
        name = str(event.get("event"))
        if not (name in _EXPECTED and event.get("reason") == _EXPECTED[name]):
            error = event.get("exc_info")
            facts = " ".join(
                f"{key}={value}" for key, value in event.items() if key not in {"event", "exc_info"}
            )
            found(f"{name} {facts}", error if isinstance(error, BaseException) else None)
        raise structlog.DropEvent

    structlog.configure(
        processors=[take],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        cache_logger_on_first_use=False,
    )
    logging.getLogger().handlers[:] = [logging.NullHandler()]


class RuntimeReport:
    """AppendMetrics and RelayMetrics of one runtime process."""

    def __init__(self, gate: PortGate, findings: Findings) -> None:
        """Report to ``findings`` what is a bug, to the trace what is committed."""
        self._gate = gate
        self._findings = findings

    def committed(self, *, requests: int, events: int, duplicates: int, duration_s: float) -> None:
        """See AppendMetrics."""
        del duration_s
        self._gate.note(self._gate.name, "committed", requests=requests, events=events, duplicates=duplicates)

    def refused(self, reason: str) -> None:
        """See AppendMetrics."""
        self._gate.note(self._gate.name, "refused", reason=reason)

    def retried(self, reason: str) -> None:
        """See AppendMetrics."""
        self._gate.note(self._gate.name, "retried", reason=reason)
        if reason == "internal_error":
            self._findings.add(self._gate.name, "a batch met a bug")

    def task_restarted(self, kind: str) -> None:
        """See AppendMetrics."""
        if not self._gate.is_severed:
            self._findings.add(self._gate.name, f"task {kind} crashed")

    def copies_dropped(self, count: int) -> None:
        """See RelayMetrics."""
        self._gate.note(self._gate.name, "copies_dropped", count=count)

    def published(self, *, is_copy: bool, duration_s: float) -> None:
        """See RelayMetrics."""
        del duration_s
        self._gate.note(self._gate.name, "published", is_copy=is_copy)

    def publish_failed(self, reason: str) -> None:
        """See RelayMetrics."""
        self._gate.note(self._gate.name, "publish_failed", reason=reason)

    def poisoned(self) -> None:
        """See RelayMetrics."""
        self._findings.add(self._gate.name, "the relay was poisoned")


class ProjectionReport:
    """ProjectionMetrics of one runtime process."""

    def __init__(self, gate: PortGate, findings: Findings) -> None:
        """Report to ``findings`` what is a bug."""
        self._gate = gate
        self._findings = findings

    def applied(self, *, events: int, summaries: int, duration_s: float) -> None:
        """See ProjectionMetrics."""
        del duration_s
        self._gate.note(self._gate.name, "projected", events=events, summaries=summaries)

    def failed(self, reason: str) -> None:
        """See ProjectionMetrics."""
        self._gate.note(self._gate.name, "projection_failed", reason=reason)
        if reason in {"poison", "crash"}:
            self._findings.add(self._gate.name, f"a projection failed: {reason}")
