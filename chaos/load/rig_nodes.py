"""One ``khala node`` of a rig: where it is, what it says of itself, and how a further one is started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs

from chaos.load.rig_metrics import is_ready, read_metrics
from chaos.load.system_under_test import SystemFailedError
from khala.adapters.embedded_postgres_directory import write_private
from khala.adapters.free_ports import HOST, draw_port, is_free
from khala.cli.toml_text import toml_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["NodeUnderTest", "running_node"]

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.02


@attrs.frozen
class NodeUnderTest:
    """One ``khala node`` process.

    Attributes:
        name: As ``Rig.pids`` calls it.
        url: Of its WebSocket.
        admin_url: Of health and metrics.
        pid: Its process.
    """

    name: str
    url: str
    admin_url: str
    pid: int

    @property
    def port(self) -> int:
        """Port of the WebSocket listener, on 127.0.0.1."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    @property
    def path(self) -> str:
        """Path of the WebSocket."""
        return urlsplit(self.url).path

    def metrics(self) -> dict[str, float]:
        """Return what ``/metrics`` says now, by ``name`` or ``name{label="value"}``."""
        return read_metrics(self.admin_url)


@contextmanager
def running_node(
    name: str,
    document: Mapping[str, Mapping[str, object]],
    config: Mapping[str, object],
    *,
    folder: Path,
    path: str,
) -> Iterator[NodeUnderTest]:
    """Run a node of its own until the block is left.

    Args:
        name: Its node id.
        document: Configuration of another node of the same system, by section.
        config: Over its section ``node``; tables are merged. Ports are free ones.
        folder: For its files.
        path: Of its WebSocket.

    Raises:
        SystemFailedError: It was not ready in time.
    """
    ports = _free_ports(2)
    own = {"node_id": name, "port": ports[0], "admin_port": ports[1]}
    node_section = _merge(_merge(document["node"], config), own)
    file, log = folder / f"{name}.toml", folder / f"{name}.log"
    write_private(file, toml_document({**document, "node": node_section}))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "khala.cli", "node", "--config", str(file), "--until-stdin-closes"],
            env={name: value for name, value in os.environ.items() if not name.startswith("KHALA_")},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        )
    try:
        node = NodeUnderTest(name, f"ws://{HOST}:{ports[0]}{path}", f"http://{HOST}:{ports[1]}", process.pid)
        _wait_ready(node, process, log)
        yield node
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _free_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        port = draw_port()
        if is_free(port):
            ports.add(port)
    return sorted(ports)


def _merge(table: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(table)
    for key, value in over.items():
        inner = merged.get(key)
        is_nested = isinstance(value, dict) and isinstance(inner, dict)
        merged[key] = _merge(inner, value) if is_nested else value  # type: ignore[arg-type]
    return merged


def _wait_ready(node: NodeUnderTest, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if is_ready(node.admin_url):
            return
        time.sleep(_POLL_S)  # noqa: TID251 - waits for a process, outside of any event loop
    process.kill()
    process.wait()
    raise SystemFailedError(f"{node.name} did not start: {log.read_text(errors='replace').strip()}")
