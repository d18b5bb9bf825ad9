"""Which process is which: postmasters of one cluster, and identities that survive pid reuse.

A pid in a file proves nothing: the process may have died and its number been given to a stranger.
Invariant: no signal is sent to a process unless something that the process itself cannot have
inherited from a stranger says who it is: its executable and working directory for a postmaster,
its start time for one of our own commands. Linux answers from ``/proc``, other systems through
``ps``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import attrs

PROC: Final = Path("/proc")
PS_TIMEOUT_S: Final = 10.0
# SIGINT is PostgreSQL's fast stop: clients are cut, a checkpoint is written. SIGQUIT leaves
# without a checkpoint; the next start recovers from the log.
FAST_STOP_S: Final = 5.0
QUIT_STOP_S: Final = 2.0
POLL_S: Final = 0.02


def read_pid_file(cluster: Path) -> list[str]:
    """Return the lines of ``postmaster.pid``, or none if there is no such file.

    Line 1 is the pid, 4 the port, 5 the socket folder, 8 the status (``ready`` once it serves).
    """
    try:
        text = (cluster / "postmaster.pid").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line.strip() for line in text.splitlines()]


@attrs.frozen
class ClusterProcesses:
    """The live PostgreSQL processes of one cluster; children only count if they outlived it."""

    postmasters: tuple[int, ...] = ()
    children: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing of PostgreSQL works in the cluster."""
        return not self.postmasters and not self.children


def find_processes(cluster: Path) -> ClusterProcesses:
    """Return the live PostgreSQL processes that work in ``cluster``.

    The pid file is not asked: it may be gone or name a stranger, and backends that outlived
    their postmaster must be found too, since a second postmaster beside them would destroy data.
    """
    if not cluster.exists():
        return ClusterProcesses()
    if PROC.joinpath("self", "exe").exists():
        return _processes_from_proc(cluster)
    return _processes_from_ps(cluster)


def stop_processes(
    cluster: Path, *, fast_stop_s: float = FAST_STOP_S, quit_stop_s: float = QUIT_STOP_S
) -> int:
    """End whatever PostgreSQL still runs in ``cluster``; return how many postmasters there were.

    SIGINT first, SIGQUIT after ``fast_stop_s``, SIGKILL after ``quit_stop_s`` more. Removes a pid
    file that nobody alive stands behind, whatever number it holds. The caller holds the data
    directory's lock, so nobody starts one meanwhile.
    """
    found = find_processes(cluster)
    for stop_signal, patience_s in (
        (signal.SIGINT, fast_stop_s),
        (signal.SIGQUIT, quit_stop_s),
        (signal.SIGKILL, quit_stop_s),
    ):
        # Asked again each time: a pid that ended meanwhile may be a stranger's by now.
        living = find_processes(cluster)
        # Children leave by themselves when the postmaster does. SIGINT means something else to
        # each of them (to the checkpointer: write the shutdown record now).
        targets = living.postmasters
        if stop_signal != signal.SIGINT:
            targets += living.children
        for pid in targets:
            send_signal(pid, stop_signal)
        deadline = time.monotonic() + patience_s
        while not find_processes(cluster).is_empty and time.monotonic() < deadline:
            time.sleep(POLL_S)  # noqa: TID251 - runs in a worker thread or without an event loop
    if find_processes(cluster).is_empty:
        (cluster / "postmaster.pid").unlink(missing_ok=True)
    return len(found.postmasters)


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that has just ended is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def process_identity(pid: int) -> str | None:
    """Return a text that no other process has, now or later; None if ``pid`` is not alive.

    On Linux the boot and the start time in clock ticks, elsewhere the start time in seconds.
    """
    try:
        fields = _stat_fields(PROC / str(pid))
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        if PROC.joinpath("self", "stat").exists():
            return None
        state, _, started = _ps("-o", "state=,lstart=", "-p", str(pid)).strip().partition(" ")
        return None if state[:1] in ("", "Z") else f"{pid}:{started.strip()}"
    state, start_ticks = fields[0], fields[19]
    return None if state == "Z" else f"{boot}:{pid}:{start_ticks}"


def _processes_from_proc(cluster: Path) -> ClusterProcesses:
    folder = str(cluster.resolve())
    parents: dict[int, int] = {}
    titled: set[int] = set()
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            program = os.readlink(entry / "exe").removesuffix(" (deleted)")
            if os.path.basename(program) != "postgres" or os.readlink(entry / "cwd") != folder:
                continue
            if (entry / "cmdline").read_bytes().startswith(b"postgres: "):
                titled.add(int(entry.name))
            parents[int(entry.name)] = int(_stat_fields(entry)[1])
        except OSError:
            continue
    # A child that was forked this moment still carries its parent's title; one that outlived
    # its parent has only its title left.
    children = {pid for pid, parent in parents.items() if pid in titled or parent in parents}
    return ClusterProcesses(tuple(parents.keys() - children), tuple(children))


def _stat_fields(entry: Path) -> list[str]:
    """Return what follows the command name in ``/proc/<pid>/stat``: state, parent, ..."""
    # The name, in brackets, may itself hold blanks and brackets.
    text = (entry / "stat").read_text(encoding="ascii", errors="replace")
    return text.rpartition(")")[2].split()


def _processes_from_ps(cluster: Path) -> ClusterProcesses:
    postmasters = []
    for line in _ps("-axww", "-o", "pid=,command=").splitlines():
        pid, _, command = line.strip().partition(" ")
        program, _, arguments = command.partition(" -D ")
        if os.path.basename(program.strip()) == "postgres" and arguments.startswith(f"{cluster} "):
            postmasters.append(int(pid))
    return ClusterProcesses(tuple(postmasters))


def _ps(*arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["ps", *arguments],  # noqa: S607 - where it lies differs between systems
            capture_output=True,
            text=True,
            timeout=PS_TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout
