"""The deployable services as real processes, each with a configuration file of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs
import httpx

from khala.cli.toml_text import toml_document
from khala_service.identifiers import SystemRng
from khala_service.service_auth import new_service_credential
from tests.e2e.system import KHALA, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Service: TypeAlias = Literal["control", "runtime", "node"]
SERVICES: tuple[Service, ...] = ("control", "runtime", "node")


@attrs.define
class Deployment:
    """What one deployment's services are told: ports, credentials, where the database is.

    Attributes:
        folder: Configuration files and logs.
        dsns: Connection URL by database role.
        ports: By service; ``admin`` is the node's second one.
    """

    folder: Path
    dsns: Mapping[str, str]
    ports: Mapping[str, int]
    credentials: dict[str, str] = attrs.field(factory=dict)
    processes: list[subprocess.Popen[bytes]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Make credentials that this deployment alone knows."""
        rng = SystemRng()
        for name in SERVICES:
            self.credentials[name] = new_service_credential(rng.token_bytes).reveal()
        self.credentials["fanout"] = rng.token_bytes(32).hex()

    def sections(self) -> dict[str, dict[str, object]]:
        """Return the one file that all services may share: each reads its own sections."""
        urls = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        return {
            "control": {
                "mode": "dev",
                "database_dsn": self.dsns["khala_control"],
                "runtime_url": urls["runtime"],
                "service_credential": self.credentials["control"],
                "runtime_credential": self.credentials["runtime"],
                "node_credential": self.credentials["node"],
                "signing_keys_file": str(self.folder / "keys.json"),
                "port": self.ports["control"],
            },
            "runtime": {
                "database_dsn": self.dsns["khala_runtime"],
                "control_url": urls["control"],
                "service_credential": self.credentials["runtime"],
                "control_credential": self.credentials["control"],
                "fanout_key": self.credentials["fanout"],
                "port": self.ports["runtime"],
            },
            "node": {
                "database_dsn": self.dsns["khala_reader"],
                "control_url": urls["control"],
                "service_credential": self.credentials["node"],
                "fanout_keys": {"1": self.credentials["fanout"]},
                "port": self.ports["node"],
                "admin_port": self.ports["admin"],
            },
            "fanout": {"driver": "postgres"},
        }

    def write_config(self, **changes: Mapping[str, object]) -> Path:
        """Write the file; ``changes`` replace keys by section."""
        sections = self.sections()
        for section, values in changes.items():
            sections.setdefault(section, {}).update(values)
        file = self.folder / "khala.toml"
        file.write_text(toml_document(sections))
        return file

    def start(self, service: Service, *, program: tuple[str, ...] | None = None) -> subprocess.Popen[bytes]:
        """Start one service on the written configuration."""
        command = program or (*KHALA, service)
        with (self.folder / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--config", str(self.folder / "khala.toml")],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def probe(self, service: Service) -> tuple[int, dict[str, Any]]:
        """Return what /readyz says: 0 if nobody answers."""
        port = self.ports["admin" if service == "node" else service]
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=3)
        except httpx.HTTPError:
            return 0, {}
        return answer.status_code, answer.json()["checks"]

    def wait_ready(self, service: Service, *, timeout_s: float = 20.0) -> None:
        """Wait until a service says that it is ready."""
        wait_until(lambda: self.probe(service)[0] == 200, timeout_s=timeout_s, what=f"{service} ready")

    def wait_answers(self, service: Service) -> None:
        """Wait until a service answers, ready or not."""
        wait_until(lambda: self.probe(service)[0] != 0, timeout_s=20, what=f"{service} answers")

    def log_of(self, service: Service) -> str:
        """Return what a service wrote."""
        return (self.folder / f"{service}.log").read_text()

    def stop(self) -> None:
        """End what is still running, by pid."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait(timeout=10)


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this environment without Khala's own variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KHALA_")}
    return {**kept, **variables}


@contextmanager
def deployment(folder: Path, dsns: Mapping[str, str], ports: Mapping[str, int]) -> Iterator[Deployment]:
    """A deployment of which nothing runs yet; everything is ended with the block."""
    made = Deployment(folder, dsns, ports)
    made.write_config()
    try:
        yield made
    finally:
        made.stop()


def run_service(
    service: str, config: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a service that refuses to start to its end."""
    arguments = [] if config is None else ["--config", str(config)]
    return subprocess.run(
        [*KHALA, service, *arguments],
        env=clean_environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def json_lines(text: str) -> list[dict[str, Any]]:
    """Return the log lines in a text; lines that are no JSON are left out."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def wait_exit(process: subprocess.Popen[bytes], *, within_s: float) -> tuple[int, float]:
    """Return the exit status and how long it took."""
    began = time.monotonic()
    status = process.wait(timeout=within_s)
    return status, time.monotonic() - began


PYTHON_MODULES: Mapping[Service, tuple[str, ...]] = {
    "control": (sys.executable, "-m", "control", "serve"),
    "runtime": (sys.executable, "-m", "runtime", "serve"),
    "node": (sys.executable, "-m", "khala", "serve"),
}
