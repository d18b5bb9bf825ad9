"""Drill ``rolling-deploy``: another release under load, and back (OPS-02).

The release is a copy of this one with another version and one more migration in each plane. Without the
migration job its first service says ``migration_required``, and the deployment aborts with everything else
untouched. With it, control, runtime and nodes are restarted in this order under 200 events/s, first into
the new release, then back into the old one, which works on the newer schema. No acknowledged event is lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import attrs
import httpx

from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.plots import latency_plot
from chaos.drills.releases import NEXT, PRESENT, Releases
from chaos.drills.stage import StageSetup
from chaos.drills.system_setup import SystemSetup
from chaos.drills.waiting import DrillFailed, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.drills.drill import DrillOptions
    from chaos.drills.releases import Release
    from chaos.drills.stage import Stage

__all__ = ["LEAVE", "MIGRATE", "run_rolling_deploy_drill"]

# What is typed; the page of the drill says the same.
MIGRATE: Final = "khala migrate"
LEAVE: Final = 'kill -TERM "$(khala status --data-dir "$DATA" --pid {name})"'

EVENTS_PER_S: Final = 200.0
NODES: Final = 2
QUICK_NODES: Final = 1
# Of one service, from SIGTERM to its end, and then to the readiness of its successor.
LEAVE_TIMEOUT_S: Final = 30.0
READY_TIMEOUT_S: Final = 60.0
DELIVERED_S: Final = 60.0
_COMMAND_TIMEOUT_S: Final = 60.0
_REQUIRED: Final = "migration_required"
_NOBODY: Final = "nobody answers"
_BUILD: Final = 'khala_build_info{{service="{service}",version="{version}"}} 1.0'


@attrs.frozen
class _Step:
    """One service that was restarted.

    Attributes:
        leg: deploy or rollback.
        status: Exit status of the process that left.
        version: Of the one that came.
    """

    leg: str
    name: str
    status: int
    away_s: float
    version: str
    began_at_s: float
    ended_at_s: float


def run_rolling_deploy_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    releases = Releases.make(options.folder / "releases")
    system = SystemSetup(nodes=QUICK_NODES if options.is_quick else NODES, environ=releases.environ)
    with options.open_stage(StageSetup(events_per_s=EVENTS_PER_S), system) as stage:
        deployment = _Deployment(stage, releases, options)
        pids = deployment.pids()
        aborted = deployment.try_without_migrating()
        untouched = [name for name, pid in deployment.pids().items() if pid == pids[name]]
        applied = deployment.migrate()
        ready = deployment.ready_services()
        for leg, release in (("deploy", NEXT), ("rollback", PRESENT)):
            deployment.roll(leg, release)
        verdict = stage.finish()
    steps, services = deployment.steps, stage.system.service_names
    versions = {leg: {step.version for step in steps if step.leg == leg} for leg in ("deploy", "rollback")}
    wanted = {"deploy": {releases.versions[NEXT]}, "rollback": {releases.versions[PRESENT]}}
    claims = [
        Claim(
            "Without the migration job the deployment aborts, with everything else untouched",
            f"{aborted.service} said {aborted.reason} for {aborted.seconds:.1f} s and was put back; "
            f"{', '.join(untouched)} untouched",
            aborted.reason == _REQUIRED and untouched == [n for n in services if n != aborted.service],
        ),
        Claim(
            "The migration job runs first, under load, and the old processes stay ready",
            f"applied {', '.join(applied)}; ready afterwards: {', '.join(ready)}",
            applied == [releases.revisions[plane] for plane in ("control", "runtime")] and ready == services,
        ),
        Claim(
            f"Services are restarted in order into the new release and back: {', '.join(services)}",
            f"{', '.join(f'{step.leg} {step.name} {step.version}' for step in steps)}; "
            f"exit statuses {sorted({step.status for step in steps})}",
            versions == wanted
            and [step.name for step in steps] == [*services, *services]
            and all(step.status == 0 for step in steps),
        ),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S),
    ]
    tables: dict[str, list[Mapping[str, Any]]] = {
        "Steps": [
            {
                "leg": step.leg,
                "service": step.name,
                "exit status": step.status,
                "version now": step.version,
                "seconds from SIGTERM to ready": round(step.away_s, 2),
            }
            for step in steps
        ],
        "Deliveries": [delivery_facts("all, restarts included", verdict.deliveries.latencies_s)],
        "Clients": verdict.clients,
    }
    spans = [(f"{step.leg} {step.name}", step.began_at_s, step.ended_at_s) for step in steps]
    plot = latency_plot(verdict.deliveries, began_at_s=stage.began_at_s, spans=spans)
    return Outcome(claims, tables, verdict.violations, (plot,))


@attrs.frozen
class _Aborted:
    """A deployment that did not go on: which service was not ready, why, and for how long."""

    service: str
    reason: str
    seconds: float


class _Deployment:
    """Restarts services into releases, by the commands of the page."""

    def __init__(self, stage: Stage, releases: Releases, options: DrillOptions) -> None:
        self._stage = stage
        self._system = stage.system
        self._releases = releases
        self._options = options
        self.steps: list[_Step] = []

    def pids(self) -> dict[str, int]:
        """Return the present process of each service."""
        return {name: self._system.pid(name) for name in self._system.service_names}

    def ready_services(self) -> list[str]:
        """Return the services that say that they are ready."""
        return [name for name in self._system.service_names if self._readiness(name) == (True, "")]

    def try_without_migrating(self) -> _Aborted:
        """Restart the first service into the next release, see that it does not get ready, and go back."""
        service = self._system.service_names[0]
        self._options.progress(f"{service} into the next release, without its migration")
        pid = self._system.pid(service)
        began = time.monotonic()
        if self._options.has_faults:
            self._releases.make_current(NEXT)
            self._leave(service)
            wait_until(
                lambda: self._system.pid(service) != pid and self._readiness(service)[1] != _NOBODY,
                timeout_s=READY_TIMEOUT_S,
                what=f"another {service} answers",
            )
        self._options.prove(
            "a release whose migration was not run",
            lambda: self._system.pid(service) != pid and self._readiness(service)[1] == _REQUIRED,
        )
        reason, waiting = self._readiness(service)[1], self._system.pid(service)
        seconds = time.monotonic() - began
        self._releases.make_current(PRESENT)
        self._leave(service)
        self._wait_replaced(service, waiting)
        self._stage.wait_delivered(timeout_s=DELIVERED_S, what="what was committed meanwhile is delivered")
        return _Aborted(service, reason, seconds)

    def migrate(self) -> list[str]:
        """Run the migration job of the next release; return what it applied."""
        self._options.progress(f"the migration job: {MIGRATE}")
        variables = {
            f"KHALA_MIGRATE_{plane.upper()}_OWNER_DSN": self._owner_dsn(plane)
            for plane in ("control", "runtime")
        }
        variables["PYTHONPATH"] = str(self._releases.folder / NEXT)
        output = self._run(f"{MIGRATE} --json", variables)
        reports = [json.loads(line) for line in output.splitlines()]
        return [name for report in reports for name in report["applied"]]

    def roll(self, leg: str, release: Release) -> None:
        """Restart every service into a release, in order, each once the one before it is ready."""
        self._releases.make_current(release)
        for name in self._system.service_names:
            self._options.progress(f"{leg}: {name}")
            began_at_s, began, pid = time.time(), time.monotonic(), self._system.pid(name)
            self._leave(name)
            status = self._wait_replaced(name, pid)
            away_s = time.monotonic() - began
            step = _Step(leg, name, status, away_s, self._version(name), began_at_s, time.time())
            self.steps.append(step)
        self._stage.wait_delivered(
            timeout_s=DELIVERED_S, what=f"what was committed in the {leg} is delivered"
        )

    def _leave(self, name: str) -> None:
        self._run(LEAVE.format(name=name), {"DATA": str(self._system.under_test.data_dir)})

    def _wait_replaced(self, name: str, pid: int) -> int:
        def has_ended() -> bool:
            self._system.look()
            return pid in self._system.ends

        wait_until(has_ended, timeout_s=LEAVE_TIMEOUT_S, what=f"{name} ({pid}) ends")
        self._system.wait_ready(name, besides=pid)
        return self._system.ends[pid].status

    def _readiness(self, name: str) -> tuple[bool, str]:
        """Return whether a service is ready, and if not whether its schema is the reason."""
        try:
            answer = self._system.admin_get(name, "/readyz")
        except httpx.TransportError:
            return False, _NOBODY
        return answer.is_success, _REQUIRED if _REQUIRED in answer.text else ""

    def _version(self, name: str) -> str:
        metrics = self._system.admin_get(name, "/metrics").raise_for_status().text
        service = "node" if name in self._system.node_names else name
        for version in self._releases.versions.values():
            if _BUILD.format(service=service, version=version) in metrics:
                return version
        raise DrillFailed(f"{name} is of neither release")

    def _owner_dsn(self, plane: str) -> str:
        role = f"khala_{plane}_owner"
        under_test = self._system.under_test
        secret = (under_test.data_dir / "secrets" / f"postgres_{role}").read_text(encoding="ascii").strip()
        return f"postgresql://{role}:{secret}@127.0.0.1:{under_test.postgres_port}/khala"

    def _run(self, command: str, variables: Mapping[str, str]) -> str:
        """Run a line as it is typed; return what it printed.

        Raises:
            DrillFailed: It failed.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KHALA_")}
        path = os.pathsep.join([os.path.dirname(sys.executable), kept.get("PATH", "")])
        done = subprocess.run(
            ["/bin/sh", "-ec", command],
            env={**kept, "PATH": path, "PYTHONSAFEPATH": "1", **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise DrillFailed(f"{command}: {done.returncode}: {done.stderr.strip()}")
        return done.stdout
