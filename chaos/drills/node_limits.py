"""Other limits for a node that runs, as an operator sets them: its configuration file, and SIGHUP."""

from __future__ import annotations

import os
import signal
import tomllib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx

from chaos.drills.waiting import DrillFailed, wait_until
from chaos.load.rig_metrics import parse_metrics
from khala.adapters.embedded_postgres_directory import write_private
from khala.cli.toml_text import toml_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.drills.split_system import SplitSystem

__all__ = ["changed_limits", "node_metrics", "set_limits"]

_RELOAD_TIMEOUT_S: Final = 10.0


@contextmanager
def changed_limits(system: SplitSystem, nodes: Sequence[str], limits: Mapping[str, float]) -> Iterator[None]:
    """Let nodes have these limits for a block; also later processes of their names within it.

    Raises:
        DrillFailed: They do not come into force.
    """
    files = {node: system.under_test.data_dir / "run" / f"{node}.toml" for node in nodes}
    before = {node: file.read_text(encoding="utf-8") for node, file in files.items()}
    try:
        for node in nodes:
            set_limits(system, node, limits)
        yield
    finally:
        for node, file in files.items():
            write_private(file, before[node])
            if system.is_running(node):
                os.kill(system.pid(node), signal.SIGHUP)


def set_limits(system: SplitSystem, node: str, limits: Mapping[str, float]) -> None:
    """Give a node these limits, over those that it has; return when they are in force.

    Raises:
        DrillFailed: They do not come into force.
    """
    file = system.under_test.data_dir / "run" / f"{node}.toml"
    document: dict[str, dict[str, Any]] = tomllib.loads(file.read_text(encoding="utf-8"))
    section = document["node"]
    section["limits"] = {**section.get("limits", {}), **limits}
    write_private(file, toml_document(document))
    os.kill(system.pid(node), signal.SIGHUP)

    def are_in_force() -> bool:
        metrics = node_metrics(system, node)
        return all(
            metrics.get(f'khala_node_limit{{limit="{name}"}}') == value for name, value in limits.items()
        )

    wait_until(are_in_force, timeout_s=_RELOAD_TIMEOUT_S, what=f"{node} takes over {dict(limits)}")


def node_metrics(system: SplitSystem, node: str) -> dict[str, float]:
    """Return what ``/metrics`` of a node says now; see ``chaos.load.rig_metrics.parse_metrics``.

    Raises:
        DrillFailed: It says nothing.
    """
    try:
        return parse_metrics(system.admin_get(node, "/metrics").raise_for_status().text)
    except httpx.HTTPError as exc:
        raise DrillFailed(f"{node} does not tell its metrics: {exc!r}") from exc
