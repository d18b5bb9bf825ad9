"""Runs the traffic of a city on a rig, and finds out what became of every event.

Two programs in C do all of it, so that nothing measures itself: ``city_feed`` appends, and listens at the
broker to when the runtime saw each commit return; ``city_watch`` is all watchers. Times are of the one clock
of this machine. *Added after commit* is from the commit's return (as the record says, which the runtime makes
then) to the read that brought the frame to a watcher who follows live; a frame that somebody missed while away
is replayed and not counted there.

The checker is the database: what each watcher has, from the first frame on, must be what the journal has,
byte for byte (a CRC-32 over all entries on both sides), and the journal must have every event that was acknowledged.
"""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import trio

from chaos.load.native_tools import compile_native
from chaos.load.process_figures import kernel_socket_bytes
from chaos.load.rig import open_access
from chaos.load.system_under_test import SystemFailedError
from khala_contracts.topics import format_run_events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chaos.load.city_plan import CityLoad, CityPlan
    from chaos.load.rig import Rig, Viewer

__all__ = ["Added", "Traffic", "percentile", "run_traffic"]

_SENDERS: Final = 32
# Of no frame at all, after the plan. Shorter: a system that is behind, and stands still for a moment, is left too early.
_QUIET_S: Final = 5.0
_LEAD_S: Final = 1.0
_MEMORY_EVERY_S: Final = 2.0
# For what is still on its way when the plan is over.
_GRACE_S: Final = 60.0
_LONG_AGO_S: Final = -1e6


@attrs.frozen
class Added:
    """Seconds from the return of a commit to a watcher, over all frames that were delivered live."""

    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float
    deliveries: int

    @classmethod
    def of(cls, delays_s: Sequence[float]) -> Added:
        """Summarise at least one delay."""
        ascending = sorted(delays_s)
        p50, p90, p99 = (percentile(ascending, share) for share in (0.50, 0.90, 0.99))
        return cls(p50, p90, p99, ascending[-1], len(ascending))


@attrs.frozen
class Traffic:
    """What happened.

    Attributes:
        added: The time added after commit.
        append_p50_s: From the moment that an append was sent to its answer.
        append_p99_s: The same.
        late_p99_s: How much later than planned appends were sent: above milliseconds, the system did not keep up.
        requests_per_s: Answered, over the measured time and what it took to answer the last.
        events: Acknowledged.
        resumes: Connections that went on behind a cursor.
        lost: Watchers whose frames are not exactly the journal's, and events that the journal lacks.
        cores: CPU seconds per second, by process, while it was measured.
        node_bytes: Proportional memory of the node: when all were connected, and each two seconds after that.
        kernel_bytes: What the kernel held for all TCP sockets of the machine at the end.
        client_cores: The same of the two programs.
    """

    added: Added
    append_p50_s: float
    append_p99_s: float
    late_p99_s: float
    requests_per_s: float
    events: int
    resumes: int
    lost: int
    cores: Mapping[str, float]
    node_bytes: Sequence[int]
    kernel_bytes: int
    client_cores: float


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the value that at least this share of the sample does not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def run_traffic(load: CityLoad, plan: CityPlan, rig: Rig, progress: Callable[[str], None]) -> Traffic:
    """Make runs and tokens, connect the watchers, run the plan, and judge what came of it.

    Raises:
        SystemFailedError: An append was refused, a watcher was ended or saw a gap, or the rig has no NATS.
        CompilerMissingError: No C compiler here.
    """
    return _TrafficRun(load, plan, rig, progress).run()


class _TrafficRun:
    def __init__(self, load: CityLoad, plan: CityPlan, rig: Rig, progress: Callable[[str], None]) -> None:
        if rig.setup.driver != "nats":
            raise SystemFailedError("the return of commits is heard at NATS; this system has none")
        self._load, self._plan, self._rig, self._progress = load, plan, rig, progress
        self._folder = rig.folder / f"city-{time.monotonic_ns()}"
        self._folder.mkdir(mode=0o700)
        self._watch = compile_native("city_watch", self._folder)
        self._feed = compile_native("city_feed", self._folder)
        self._node = rig.nodes[0]
        self._topics: list[str] = []

    def run(self) -> Traffic:
        load = self._load
        run_ids, viewers = trio.run(self._prepare)
        self._topics = [str(format_run_events(run_id)) for run_id in run_ids]
        # Runs and tokens were made just now: what the node and the runtime still do about it is over.
        start = math.ceil(time.time() + _LEAD_S + load.connecting_s + _LEAD_S)
        self._write_feed(run_ids)
        self._write_sessions(viewers)
        self._progress(f"connecting {load.watchers} watchers, then {load.seconds:.0f} s of traffic")
        with self._start_watch(start) as watch:
            _sleep_until(start - _LEAD_S / 2)
            with self._start_feed(start) as feed:
                _sleep_until(start)
                before, started = self._rig.cpu_s(), time.time()
                node_bytes = self._watch_memory(start + load.seconds)
                after, ended = self._rig.cpu_s(), time.time()
                fed = self._end(feed, "city_feed")
            watched = self._end(watch, "city_watch")
        seconds = ended - started
        cores = {name: (after[name] - before[name]) / seconds for name in before}
        clients = (fed["cpu_s"] + watched["cpu_s"]) / (seconds + load.connecting_s)
        return self._judge(
            cores=cores, node_bytes=node_bytes, resumes=watched["resumed"], client_cores=clients
        )

    # -- before ------------------------------------------------------------------------------------

    async def _prepare(self) -> tuple[list[str], list[Viewer]]:
        load, plan = self._load, self._plan
        async with open_access(self._rig) as access:
            self._progress(f"making {load.runs} runs")
            run_ids = await access.create_runs(load.runs)
            topics = [str(format_run_events(run_id)) for run_id in run_ids]
            sessions = [*range(load.watchers), *(resume.watcher for resume in plan.resumes)]
            self._progress(f"minting {len(sessions)} tokens")
            return run_ids, await access.mint([[topics[w // load.watchers_per_run]] for w in sessions])

    def _write_feed(self, run_ids: Sequence[str]) -> None:
        host = urlsplit(self._rig.runtime_url).netloc
        head = (
            f"Host: {host}\r\nAuthorization: Bearer {self._rig.key}\r\n"
            "Content-Type: application/x-protobuf\r\nAccept: application/x-protobuf\r\n"
        )
        plan = self._plan
        self._write("head", head)
        self._write("runs", "".join(f"{run_id}\n" for run_id in run_ids))
        self._write("topics", "".join(f"{topic}\n" for topic in self._topics))
        self._write("plan", "".join(f"{r.due_s:.6f} {r.run} {r.body}\n" for r in plan.requests))
        sized = b"".join(struct.pack("<I", len(body)) + body for body in plan.bodies)
        (self._folder / "bodies").write_bytes(sized)

    def _write_sessions(self, viewers: Sequence[Viewer]) -> None:
        load = self._load
        lines = []
        for watcher in range(load.watchers):
            open_s = -_LEAD_S - load.connecting_s + watcher / load.connects_per_s
            lines.append((watcher, _LONG_AGO_S, open_s))
        resumes = self._plan.resumes
        lines += [(resume.watcher, resume.due_s - load.away_s, resume.due_s) for resume in resumes]
        self._write(
            "sessions",
            "".join(
                f"{watcher} {watcher // load.watchers_per_run} {close_s:.4f} {open_s:.4f} "
                f"{viewer.token} {viewer.device_id}\n"
                for (watcher, close_s, open_s), viewer in zip(lines, viewers, strict=True)
            ),
        )

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text, encoding="ascii")

    # -- meanwhile ---------------------------------------------------------------------------------

    def _start_watch(self, start: float) -> subprocess.Popen[bytes]:
        lineage = self._rig.system.query("SELECT id FROM runtime.lineage WHERE is_current")[0][0]
        folder = self._folder
        words = (self._node.port, folder / "sessions", folder / "topics", lineage, folder / "watch.log")
        times = (start, self._load.seconds, _QUIET_S)
        return subprocess.Popen([str(w) for w in (self._watch, *words, *times)], stdout=subprocess.PIPE)

    def _start_feed(self, start: float) -> subprocess.Popen[bytes]:
        fanout = self._rig.fanout_config()
        servers = fanout["nats_servers"]
        assert isinstance(servers, list)
        subject = f"{fanout.get('subject_prefix', 'khala')}.v1.>"
        login = json.dumps({"user": "khala-node", "pass": self._rig.secret("nats_node")})[1:-1]
        names = ("head", "runs", "bodies", "plan", "feed.log")
        words = (
            urlsplit(self._rig.runtime_url).port,
            *(self._folder / name for name in names),
            *(start, _SENDERS, urlsplit(servers[0]).port, subject),
        )
        return subprocess.Popen(
            [str(word) for word in (self._feed, *words)],
            env={**os.environ, "NATS_LOGIN": login},
            stdout=subprocess.PIPE,
        )

    def _watch_memory(self, end: float) -> list[int]:
        found = [self._rig.memory(self._node.name).pss_bytes]
        while time.time() < end:
            _sleep_until(min(end, time.time() + _MEMORY_EVERY_S))
            found.append(self._rig.memory(self._node.name).pss_bytes)
        return found

    def _end(self, program: subprocess.Popen[bytes], name: str) -> dict[str, Any]:
        try:
            output, _ = program.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            program.kill()
            raise SystemFailedError(f"{name} was not done {_GRACE_S:.0f} s after the plan") from None
        if program.returncode:
            raise SystemFailedError(f"{name}: {output.decode(errors='replace').strip()}")
        done: dict[str, Any] = json.loads(output)
        return done

    # -- afterwards --------------------------------------------------------------------------------

    def _judge(
        self, *, cores: Mapping[str, float], node_bytes: Sequence[int], resumes: int, client_cores: float
    ) -> Traffic:
        kernel_bytes = kernel_socket_bytes()
        committed, answers = self._read_feed()
        delays, watched = self._read_watch(committed)
        appends = sorted(acked - sent for _, sent, acked in answers)
        late = sorted(sent - due for due, sent, _ in answers)
        seconds = max(acked for _, _, acked in answers) - min(due for due, _, _ in answers)
        events = len(answers) * self._load.events_per_request
        return Traffic(
            added=Added.of(delays),
            append_p50_s=percentile(appends, 0.50),
            append_p99_s=percentile(appends, 0.99),
            late_p99_s=percentile(late, 0.99),
            requests_per_s=len(answers) / seconds,
            events=events,
            resumes=resumes,
            lost=self._count_lost(watched, events),
            cores=cores,
            node_bytes=node_bytes,
            kernel_bytes=kernel_bytes,
            client_cores=client_cores,
        )

    def _read_feed(self) -> tuple[dict[tuple[str, int], float], list[tuple[float, float, float]]]:
        """Return when the commit of each (topic, seq) returned, and of each append due, sent and acked."""
        committed: dict[tuple[str, int], float] = {}
        answers: list[tuple[float, float, float]] = []
        for line in (self._folder / "feed.log").read_text(encoding="ascii").splitlines():
            what, *fields = line.split()
            if what == "c":
                topic, first, last, committed_us, _ = fields
                at = int(committed_us) / 1e6
                committed.update(((topic, seq), at) for seq in range(int(first), int(last) + 1))
            else:
                due, sent, acked = (int(field) / 1e9 for field in fields[1:4])
                answers.append((due, sent, acked))
        return committed, answers

    def _read_watch(
        self, committed: Mapping[tuple[str, int], float]
    ) -> tuple[list[float], list[tuple[str, int, int]]]:
        """Return the delays of live frames, and of each watcher topic, last seq and CRC.

        Raises:
            SystemFailedError: The commit of some was not heard. Frames that the broker lost come late: to leave them
                out would be to measure the others only.
        """
        delays: list[float] = []
        unheard = 0
        watched: list[tuple[str, int, int]] = []
        for line in (self._folder / "watch.log").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[0] == "=":
                watched.append((self._topics[int(fields[2])], int(fields[3]), int(fields[4])))
                continue
            watcher, first, last, at_ns, is_live = map(int, fields)
            if is_live:
                topic, at = self._topics[watcher // self._load.watchers_per_run], at_ns / 1e9
                times = [committed.get((topic, seq)) for seq in range(first, last + 1)]
                unheard += times.count(None)
                delays += [at - time_s for time_s in times if time_s is not None]
        if unheard:
            raise SystemFailedError(f"{unheard} frames came live whose commit was not heard at the broker")
        return delays, watched

    def _count_lost(self, watched: Sequence[tuple[str, int, int]], events: int) -> int:
        """Count watchers that differ from the journal, and acknowledged events that it lacks."""
        rows = self._rig.system.query(
            "SELECT topic, max(seq), count(*), crc32(string_agg(entry, ''::bytea ORDER BY seq)) "
            "FROM runtime.journal WHERE topic LIKE 'run:%' GROUP BY topic",
            timeout_s=_GRACE_S,
        )
        ours = set(self._topics)
        rows = [row for row in rows if row[0] in ours]
        journal = {topic: (int(seq), int(crc)) for topic, seq, _, crc in rows}
        different = sum(journal[topic] != (last_seq, crc) for topic, last_seq, crc in watched)
        # Each run begins with run.started, which its creation wrote.
        missing = events - sum(int(count) - 1 for _, _, count, _ in rows)
        return different + max(0, missing)


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.time()))  # noqa: TID251 - outside of any event loop
