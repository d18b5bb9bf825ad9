"""Drill ``database-silent``: PostgreSQL answers nothing for half a minute, under 200 events/s (DB-08, KH-34).

Every process of the database is stopped (SIGSTOP): connections stay open, new ones are taken by the kernel
and never answered, which is what a frozen host or a cut network looks like. Sockets stay, commands answer
``unavailable``, nobody is told that a cursor is stale; when it goes on, so does everybody, within 5 s.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import httpx
import trio

from chaos.drills.drill import Claim, Outcome, claims_of, delivery_facts
from chaos.drills.plots import latency_plot
from chaos.drills.stage import StageSetup
from chaos.drills.system_setup import SystemSetup
from chaos.drills.waiting import DrillFailed, pause
from khala_client.errors import Unavailable
from khala_client.outgoing import OutgoingEvent
from khala_client.profiles import ProfileDirectory
from khala_client.trio import Khala
from khala_contracts.topics import parse_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.drills.drill import DrillOptions
    from chaos.drills.stage import Stage

__all__ = ["SILENT_SYSTEM", "run_database_silent_drill"]

SILENT_SYSTEM: Final = SystemSetup(nodes=2)

EVENTS_PER_S: Final = 200.0
# A command may wait 22 s of it: for a connection, a statement and a commit. So the short form is no shorter.
SILENT_S: Final = 30.0
BESIDE_S: Final = 5.0
# The bar: streams go on within this after the database does.
RESUMED_S: Final = 5.0
# So that what takes longer is measured and not only missed.
RESUMED_TIMEOUT_S: Final = 60.0
_KEY: Final = "drill-asked-while-silent"
_PROC: Final = Path("/proc")
_PS_TIMEOUT_S: Final = 10.0


@attrs.define
class _Asked:
    """What became of one command that is sent again and again while the database is silent."""

    unavailable: int = 0
    longest_s: float = 0.0
    others: list[str] = attrs.field(factory=list)


def run_database_silent_drill(options: DrillOptions) -> Outcome:
    """Run the drill; see ``chaos.drills.drill.RunDrill``."""
    with options.open_stage(StageSetup(events_per_s=EVENTS_PER_S), SILENT_SYSTEM) as stage:
        pause(BESIDE_S if options.has_faults else 0.0)
        began_at_s = time.time()
        postmaster = stage.system.pid("postgres")
        harm = _stopped_database(postmaster) if options.has_faults else nullcontext(list[int]())
        with harm as pids:
            stopped = len(pids)
            options.prove("PostgreSQL is stopped", lambda: _is_stopped(postmaster))
            options.progress(f"{stopped} processes of PostgreSQL are stopped for {SILENT_S:g} s")
            asked = trio.run(_ask_until, stage, time.monotonic() + SILENT_S)
            stage.check_clients()
        ended_at_s = time.time()
        resumed_s = stage.wait_delivered(
            timeout_s=RESUMED_TIMEOUT_S, what="what was committed until now is delivered"
        )
        seqs = trio.run(_ask_twice, stage)
        pause(BESIDE_S)
        verdict = stage.finish()
    disconnects = sum(client["disconnects"] for client in verdict.clients)
    claims = [
        Claim(
            f"PostgreSQL was silent for {SILENT_S:g} s",
            f"{stopped} processes stopped, {ended_at_s - began_at_s:.1f} s",
            stopped > 0 and ended_at_s - began_at_s >= SILENT_S,
        ),
        *claims_of(verdict, offered_per_s=EVENTS_PER_S),
        Claim("Sockets stay", f"{disconnects} disconnects", disconnects == 0),
        Claim(
            "Commands answer unavailable, and nothing else",
            f"{asked.unavailable} times unavailable, after at most {asked.longest_s:.1f} s, "
            f"{len(asked.others)} times anything else",
            asked.unavailable > 0 and not asked.others,
        ),
        Claim(
            "The command whose outcome was unknown is resolved by its key",
            f"asked twice more: seq {seqs[0]} and {seqs[1]}",
            seqs[0] == seqs[1],
        ),
        Claim(
            f"Streams go on within {RESUMED_S:g} s",
            f"every client was at the head of then after {resumed_s:.2f} s",
            resumed_s <= RESUMED_S,
        ),
    ]
    latencies = verdict.deliveries
    tables = {
        "Deliveries": [
            delivery_facts("before", latencies.between(stage.began_at_s + 1.0, began_at_s)),
            delivery_facts("committed while it was silent", latencies.between(began_at_s, ended_at_s)),
            delivery_facts("after", latencies.between(ended_at_s + RESUMED_S, float("inf"))),
        ],
        "Clients": verdict.clients,
    }
    spans = [("PostgreSQL is silent", began_at_s, ended_at_s)]
    plot = latency_plot(latencies, began_at_s=stage.began_at_s, spans=spans)
    return Outcome(claims, tables, verdict.violations + asked.others, (plot,))


@contextmanager
def _stopped_database(postmaster: int) -> Iterator[list[int]]:
    """Stop the postmaster, so that it makes no more children, then these; let all go on with the block.

    Raises:
        DrillFailed: There is nothing to stop.
    """
    stopped: list[int] = []
    try:
        for pid in (postmaster, *_children_of(postmaster)):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        # Those that it made before it stopped and after the look.
        for pid in set(_children_of(postmaster)) - set(stopped):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        yield stopped
    except ProcessLookupError:
        raise DrillFailed(f"PostgreSQL ({postmaster}) is not there") from None
    finally:
        for pid in reversed(stopped):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _children_of(parent: int) -> list[int]:
    if _PROC.joinpath("self", "stat").exists():
        return [int(entry.name) for entry in _PROC.glob("[0-9]*") if _parent_of(entry) == parent]
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True, timeout=_PS_TIMEOUT_S
    )
    pairs = (line.split() for line in listed.stdout.splitlines())
    return [int(pid) for pid, ppid in pairs if int(ppid) == parent]


def _is_stopped(pid: int) -> bool:
    """Whether the system says so of a process."""
    listed = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PS_TIMEOUT_S,
    )
    return listed.stdout.strip().startswith("T")


def _parent_of(entry: Path) -> int:
    """Return the parent of a process, 0 if it has gone; its name, in brackets, may hold anything."""
    try:
        fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[1])


async def _ask_until(stage: Stage, deadline: float) -> _Asked:
    """Append one event under one key, again and again until the deadline; no client in between retries."""
    asked = _Asked()
    profile = ProfileDirectory(stage.system.under_test.profile).load()
    url = f"{stage.system.record['runtime_url']}/v1/runs/{_run_id(stage)}/events"
    headers = {"Authorization": f"Bearer {profile.access_token}", "Idempotency-Key": _KEY}
    body = {"events": [{"kind": "output", "data": {"text": _KEY}}]}
    async with httpx.AsyncClient(trust_env=False, timeout=60.0) as http:
        while time.monotonic() < deadline:
            with trio.move_on_after(deadline - time.monotonic()):
                began = time.monotonic()
                answer = await http.post(url, json=body, headers=headers)
                waited_s = time.monotonic() - began
                if answer.json().get("code") == "unavailable":
                    asked.unavailable += 1
                    asked.longest_s = max(asked.longest_s, waited_s)
                else:
                    asked.others.append(f"{answer.status_code} after {waited_s:.1f} s")
                await trio.sleep(0.2)
    return asked


async def _ask_twice(stage: Stage) -> list[int]:
    """Append the same event under the same key twice more; return the two positions."""
    seqs: list[int] = []
    async with Khala.from_env({"KHALA_PROFILE": str(stage.system.under_test.profile)}) as khala:
        with trio.fail_after(RESUMED_TIMEOUT_S):
            while len(seqs) < 2:
                try:
                    seqs.append(await _append(khala, stage))
                except Unavailable:
                    await trio.sleep(0.2)
    return seqs


async def _append(khala: Khala, stage: Stage) -> int:
    event = OutgoingEvent.of("output", {"text": _KEY})
    (ack,) = await khala.runtime.append(_run_id(stage), [event], idempotency_key=_KEY)
    return ack.seq


def _run_id(stage: Stage) -> str:
    return parse_topic(stage.topics[-1]).ids["run_id"]
