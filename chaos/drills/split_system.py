"""A real ``khala up --split`` whose processes a drill may kill, one by one, by pid.

What is believed about processes is what the supervisor wrote: ``logs/supervisor.jsonl`` has a line for
each start and end, with pid and exit status (-9: killed by SIGKILL). Failpoints are armed over HTTP;
one that acted has left a line in the hit file.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import httpx

from chaos.drills.json_lines import JsonLineReader
from chaos.drills.proxied_links import CLIENTS, laid_links
from chaos.drills.waiting import DrillFailed, wait_until
from chaos.faults.shim import FaultShim
from chaos.load.system_under_test import SystemFailedError, running_system_under_test

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chaos.drills.system_setup import SystemSetup
    from chaos.faults.proxy_control import FaultProxy
    from chaos.load.system_under_test import SystemUnderTest

__all__ = ["RESTART_MAX_S", "Ended", "SplitSystem", "running_split_system"]

# A killed process ends at once; its supervisor looks several times a second.
END_TIMEOUT_S: Final = 10.0
# Backoff of the supervisor, start of an interpreter, and the database's recovery.
READY_TIMEOUT_S: Final = 60.0
# The default, 5 s, is for processes that cannot run. Here they are killed again and again, and a drill
# would mostly wait.
RESTART_MAX_S: Final = 0.4
_HTTP_TIMEOUT_S: Final = 5.0
FAILPOINTS_PATH: Final = "/internal/v1/failpoints"
SIGKILLED: Final = -signal.SIGKILL


@attrs.frozen
class Ended:
    """The end of one process, as its supervisor saw it."""

    name: str
    pid: int
    status: int


@attrs.define(eq=False)
class SplitSystem:
    """Made by ``running_split_system``.

    Attributes:
        ends: Every end of a process that the supervisor has seen, by pid.
        hits: Every failpoint that has acted.
    """

    under_test: SystemUnderTest
    record: Mapping[str, Any]
    hit_file: Path
    _admin_token: str = attrs.field(repr=False)
    _proxy: FaultProxy | None = attrs.field(default=None, init=False)
    _shim: FaultShim | None = attrs.field(default=None, init=False)
    _log: JsonLineReader = attrs.field(init=False, repr=False)
    _hit_lines: JsonLineReader = attrs.field(init=False, repr=False)
    # The newest pid by name, and every end by pid.
    _pids: dict[str, int] = attrs.field(factory=dict, init=False)
    ends: dict[int, Ended] = attrs.field(factory=dict, init=False)
    hits: list[Mapping[str, Any]] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin to read what the supervisor writes."""
        self._log = JsonLineReader(self.under_test.data_dir / "logs" / "supervisor.jsonl")
        self._hit_lines = JsonLineReader(self.hit_file)

    @property
    def node_names(self) -> list[str]:
        """Names of the nodes, in the order of their ports."""
        return [node["name"] for node in self.record["nodes"]]

    @property
    def proxy(self) -> FaultProxy:
        """The fault proxy of a system that has links."""
        assert self._proxy is not None, "no links in its setup"
        return self._proxy

    def node_url(self, name: str) -> str:
        """Return the URL at which clients reach a node."""
        return str(self._node(name)["url"])

    @property
    def shim(self) -> FaultShim:
        """What harms PostgreSQL's disk and clock in a system that has it."""
        assert self._shim is not None, "no shim in its setup"
        return self._shim

    def client_url(self, name: str) -> str:
        """Return the URL that followers of a node are given: through the proxy where there is a link."""
        ports = {} if self._proxy is None else self._proxy.ports
        port = ports.get(f"{CLIENTS}.{name}")
        url = urlsplit(self.node_url(name))
        return url._replace(netloc=f"{url.hostname}:{port}").geturl() if port else url.geturl()

    def admin_get(self, name: str, path: str) -> httpx.Response:
        """Return what a service answers to whoever has the admin token.

        Raises:
            httpx.TransportError: It does not answer.
        """
        headers = {"Authorization": f"Bearer {self._admin_token}"}
        url = f"{self._admin_url(name)}{path}"
        return httpx.get(url, headers=headers, timeout=_HTTP_TIMEOUT_S, trust_env=False)

    @property
    def nats_port(self) -> int:
        """Port of the broker: the one after the last node's."""
        last = urlsplit(self._admin_url(self.node_names[-1])).port
        assert last is not None
        return last + 1

    @property
    def service_names(self) -> list[str]:
        """Names of everything of ours that tells whether it is ready."""
        return ["control", "runtime", *self.node_names]

    def _node(self, name: str) -> Mapping[str, Any]:
        (node,) = (node for node in self.record["nodes"] if node["name"] == name)
        return dict(node)

    def _admin_url(self, name: str) -> str:
        if name in self.node_names:
            return str(self._node(name)["admin_url"])
        return str(self.record[f"{name}_url"])

    # -- processes -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Take what the supervisor and the failpoints have written since the last look."""
        for event in self._log.read_new():
            name, pid = event["name"], event["pid"]
            if event["event"] == "started":
                self._pids[name] = pid
            elif event["event"] == "ended":
                self.ends[pid] = Ended(name, pid, event["status"])
        self.hits += self._hit_lines.read_new()

    def pid(self, name: str) -> int:
        """Return the pid of the newest process of this name; it may have ended."""
        self.look()
        try:
            return self._pids[name]
        except KeyError:
            raise DrillFailed(f"the supervisor has started no {name}") from None

    def is_running(self, name: str) -> bool:
        """Whether the newest process of this name has not ended."""
        return self.pid(name) not in self.ends

    def kill(self, name: str) -> int:
        """Kill -9 the running process of this name; return its pid."""
        pid = self.pid(name)
        with suppress(ProcessLookupError):  # it may be between its end and its supervisor's look
            os.kill(pid, signal.SIGKILL)
        return pid

    def wait_killed(self, pid: int, *, timeout_s: float = END_TIMEOUT_S) -> Ended:
        """Return the end of a process that must have been killed.

        Raises:
            DrillFailed: It lives on, or ended in another way.
        """

        def has_ended() -> bool:
            self.look()
            return pid in self.ends

        wait_until(has_ended, timeout_s=timeout_s, what=f"process {pid} is killed")
        ended = self.ends[pid]
        if ended.status != SIGKILLED:
            raise DrillFailed(f"{ended.name} ({pid}) ended with status {ended.status}, not {SIGKILLED}")
        return ended

    def wait_ready(self, name: str, *, besides: int = 0) -> float:
        """Return how long it took until a process of this name, not the one besides, was ready.

        Raises:
            DrillFailed: It did not get ready.
        """
        return wait_until(
            lambda: self.pid(name) != besides and self.is_running(name) and self._is_ready(name),
            timeout_s=READY_TIMEOUT_S,
            what=f"{name} is ready",
        )

    def _is_ready(self, name: str) -> bool:
        if name == "nats":
            return True
        if name == "postgres":
            with suppress(SystemFailedError):
                return self.under_test.query("SELECT 1") == [["1"]]
            return False
        with suppress(httpx.TransportError):
            return self._get(f"{self._admin_url(name)}/readyz").is_success
        return False

    def _get(self, url: str) -> httpx.Response:
        return httpx.get(url, timeout=_HTTP_TIMEOUT_S, trust_env=False)

    # -- failpoints ----------------------------------------------------------------------------------

    def arm(self, name: str, spec: str) -> None:
        """Arm failpoints of a ready process.

        Whether they act is seen by its end: a point that is passed all the time may have killed the
        process before it has answered.

        Raises:
            DrillFailed: It refused.
        """
        try:
            answer = httpx.post(
                f"{self._admin_url(name)}{FAILPOINTS_PATH}",
                json={"arm": spec},
                headers={"Authorization": f"Bearer {self._admin_token}"},
                timeout=_HTTP_TIMEOUT_S,
                trust_env=False,
            )
        except httpx.TransportError:
            return
        if not answer.is_success:
            raise DrillFailed(f"{name} does not arm {spec}: {answer.status_code} {answer.text}")

    def has_hit(self, point: str, pid: int) -> bool:
        """Whether a failpoint has acted in a process."""
        self.look()
        return any(hit["failpoint"] == point and hit["pid"] == pid for hit in self.hits)

    # -- the supervisor ------------------------------------------------------------------------------

    @contextmanager
    def held_supervisor(self) -> Iterator[None]:
        """Stop the supervisor's process for a block: what dies meanwhile stays dead."""
        self.under_test.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.under_test.process.send_signal(signal.SIGCONT)


@contextmanager
def running_split_system(folder: Path, setup: SystemSetup) -> Iterator[SplitSystem]:
    """Start the system in ``folder``; end it with the block.

    Raises:
        SystemFailedError, DrillFailed: It was not ready in time.
        ProxyRefused, ShimMissingError: Its faults cannot be done here.
    """
    hit_file = folder / "failpoint_hits.jsonl"
    config = f'[runtime]\nfailpoint_file = "{hit_file}"\n[node]\nfailpoint_file = "{hit_file}"\n'
    config += f"[up]\nrestart_max_s = {RESTART_MAX_S}\n"
    if setup.driver:
        config += f'[fanout]\ndriver = "{setup.driver}"\n'
    options = ["--split", "--nodes", str(setup.nodes), *(["--nats"] if setup.has_nats else [])]
    shim = FaultShim.make(folder) if setup.has_shim else None
    environ = {**(shim.environment if shim is not None else {}), **dict(setup.environ)}
    with running_system_under_test(folder, config=config, options=options, environ=environ) as under_test:
        record = json.loads((under_test.data_dir / "up.json").read_text(encoding="utf-8"))
        token = (under_test.data_dir / "secrets" / "admin_token").read_text(encoding="ascii").strip()
        system = SplitSystem(under_test, record, hit_file, token)
        system.look()
        with ExitStack() as held:
            system._shim = shim
            if setup.links:
                system._proxy = held.enter_context(laid_links(system, setup.links))
            yield system
