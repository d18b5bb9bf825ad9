"""``khala bench revoke``: from the revocation of a session to the end of its socket, pushed and with every push lost.

A real ``khala up --split`` with two nodes, a session for each socket, and a run to which events are appended all the
time. In each round people leave who are members of its org: each ends all of their sessions but the one that asks, by
one request, one transaction. The time is taken from the row of the revocation, made just before its commit, to the
arrival of the close frame: both by this machine's clock.
The benchmark judges what it measures: who was revoked is closed with 4501 reauth_required, gets nothing that was
committed later, and comes in again by nothing that it still holds; all others stream on without a gap.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import httpx
import trio

from chaos.load.statistics_of_pairs import describe_environment
from chaos.load.stream_sockets import StreamBrokenError, StreamSocket
from chaos.load.system_under_test import SystemFailedError, running_system_under_test
from khala_client.http_calls import open_http
from khala_client.sign_in import sign_in_at_development_issuer
from khala_contracts.sync_claims import Surface
from khala_contracts.topics import format_run_events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from chaos.load.system_under_test import SystemUnderTest

__all__ = ["RevokeSetup", "measure_revoke"]

NODES: Final = 2
# SPEC section 5: p99 of each form, seconds.
TARGETS: Final = {"pushed": 1.0, "dropped": 15.0}
FRAME_AFTER_END_MAX_S: Final = 0.05
_OWNER: Final = "bench"
# Of what prepares the measurement: far below what control answers, and not above its connections.
_AT_ONCE: Final = 8
_TOKEN_TTL_S: Final = 900
_END_TIMEOUT_S: Final = 30.0


@attrs.frozen
class RevokeSetup:
    """What one form does.

    Attributes:
        sockets: Open at the beginning of each round, over all nodes, each of a session of its own.
        revoked: Sessions that are revoked at once in a round.
        people: Whose they are: so many requests and commits, each waiting for those before it.
        events_per_s: Appended to the topic that every socket follows.
        driver: What carries the pushes: postgres or nats. What drops them is put around postgres.
        poll_interval_s: Of the nodes.
    """

    sockets: int = 500
    revoked: int = 50
    people: int = 1
    rounds: int = 5
    events_per_s: float = 10.0
    driver: str = "postgres"
    poll_interval_s: float = 5.0


@attrs.define
class _Session:
    number: int
    login: str
    user_id: str
    session_id: str
    device_id: str
    access_token: str = attrs.field(repr=False)


def measure_revoke(setup: RevokeSetup, *, report: Callable[[str], None]) -> dict[str, object]:
    """Start a system for each form, run the rounds and return the report.

    Raises:
        SystemFailedError: The system did not work, or broke a promise; no figure is given then.
    """
    environment = describe_environment()
    results = []
    for form in TARGETS:
        with tempfile.TemporaryDirectory(prefix="khala-bench-") as name:
            is_dropped = form == "dropped"
            config = _config(setup, is_dropped=is_dropped)
            has_nats = setup.driver == "nats" and not is_dropped
            options = ["--split", "--nodes", str(NODES), *(["--nats"] if has_nats else [])]
            with running_system_under_test(Path(name), config=config, options=options) as system:
                try:
                    result = trio.run(_Bench(setup, system, report).run)
                except* (StreamBrokenError, httpx.HTTPError) as group:
                    raise SystemFailedError(f"{form}: {_first(group)}") from group
            results.append({"form": form, "p99_target_s": TARGETS[form], **result})
            report(f"{form}: p50 {result['p50_s']} s, p99 {result['p99_s']} s, max {result['max_s']} s")
    is_met = all(result["p99_s"] <= result["p99_target_s"] for result in results)
    return {
        "benchmark": "revoke",
        "unit": "seconds from a revocation's row to the close frame of its socket",
        "environment": environment,
        "target": {**{f"{form}_p99_s": seconds for form, seconds in TARGETS.items()}, "is_met": is_met},
        "setup": {**attrs.asdict(setup), "nodes": NODES},
        "results": results,
    }


def _config(setup: RevokeSetup, *, is_dropped: bool) -> str:
    config = f"[node.limits]\nrevocation_poll_interval_s = {setup.poll_interval_s}\n"
    if is_dropped:
        config += '[fanout]\ndriver = "faulty"\noptions = { inner = "postgres", hint_loss = "1" }\n'
    return config


class _Bench:
    """One form on one system."""

    def __init__(self, setup: RevokeSetup, system: SystemUnderTest, report: Callable[[str], None]) -> None:
        self._setup = setup
        self._system = system
        self._report = report
        record = json.loads((system.data_dir / "up.json").read_text(encoding="utf-8"))
        self._control_url, self._nodes = record["control_url"], [node["url"] for node in record["nodes"]]
        self._sessions: dict[str, _Session] = {}
        self._sockets: dict[str, StreamSocket] = {}
        self._evicted: list[StreamSocket] = []
        self._head_seq = 0
        self._devices = itertools.count(1)

    async def run(self) -> dict[str, Any]:
        """Run the rounds; return the figures."""
        setup = self._setup
        async with open_http() as self._http, trio.open_nursery() as streaming:
            owner = await self._sign_in(_OWNER)
            answer = await self._post(self._control_url + "/api/orgs", {"name": "bench"}, owner)
            org_id = answer.json()["org_id"]
            answer = await self._post(self._system.runtime_url + "/v1/runs", {"org_id": org_id}, owner)
            topic = format_run_events(answer.json()["run"]["run_id"])
            writing = trio.CancelScope()
            streaming.start_soon(self._append, topic, owner, writing)
            for number in range(setup.rounds):
                leaving = await self._fill(streaming, topic, owner, org_id, number)
                # Anywhere between two polls.
                await trio.sleep(random.random() * setup.poll_interval_s)
                await self._revoke(leaving)
                self._report(f"round {number + 1}: {setup.revoked} of {setup.sockets} sessions revoked")
            await trio.sleep(1.0)
            writing.cancel()
            await self._judge_others()
            streaming.cancel_scope.cancel()
        return self._figures(topic)

    # -- preparing -----------------------------------------------------------------------------------

    async def _fill(
        self, streaming: trio.Nursery, topic: str, owner: _Session, org_id: str, round_number: int
    ) -> list[tuple[_Session, list[str]]]:
        """Connect until there are as many sockets as there should be; return who leaves, and their sessions."""
        setup = self._setup
        leaving: list[tuple[_Session, list[str]]] = []
        for number in range(setup.people):
            login = f"leaving-{round_number}-{number}"
            asks = await self._sign_in(login)
            body = {"user_id": asks.user_id, "role": "member"}
            await self._post(f"{self._control_url}/api/orgs/{org_id}/members", body, owner)
            leaving.append((asks, []))
        stays: list[str] = []
        adding = []
        for index in range(setup.revoked):
            asks, session_ids = leaving[index % setup.people]
            adding.append(partial(self._connect, streaming, topic, asks.login, session_ids))
        missing = setup.sockets - len(self._sockets) - setup.revoked
        adding += [partial(self._connect, streaming, topic, _OWNER, stays)] * missing
        await _at_once(adding, limit=_AT_ONCE)
        return leaving

    async def _connect(self, streaming: trio.Nursery, topic: str, login: str, added: list[str]) -> None:
        session = await self._sign_in(login)
        body = {"topics": [topic], "ttl_s": _TOKEN_TTL_S}
        answer = await self._post(self._control_url + "/api/sync/token", body, session)
        url = self._nodes[session.number % len(self._nodes)]
        socket = StreamSocket(session.session_id, session.device_id, url, answer.json()["token"])
        self._sessions[session.session_id] = session
        self._sockets[session.session_id] = socket
        added.append(session.session_id)
        streaming.start_soon(socket.run, topic)
        with trio.fail_after(_END_TIMEOUT_S):
            await socket.subscribed.wait()

    async def _sign_in(self, login: str) -> _Session:
        number = next(self._devices)
        device_id = f"dev_{number:016d}"
        tokens = await sign_in_at_development_issuer(
            self._http, self._control_url, login=login, device_id=device_id, surface=Surface.DESKTOP
        )
        session = tokens.session
        return _Session(number, login, session.user_id, session.session_id, device_id, tokens.access_token)

    async def _append(self, topic: str, owner: _Session, writing: trio.CancelScope) -> None:
        url = f"{self._system.runtime_url}/v1/runs/{topic.split(':')[1]}/events"
        body = {"events": [{"kind": "output", "data": {"text": "x" * 200}}]}
        with writing:
            while True:
                answer = await self._post(url, body, owner)
                self._head_seq = int(answer.json()["acks"][-1]["seq"])
                await trio.sleep(1 / self._setup.events_per_s)

    async def _post(self, url: str, body: object, session: _Session) -> httpx.Response:
        answer = await self._try_post(url, body, session)
        if not answer.is_success:
            raise StreamBrokenError(f"{url}: {answer.status_code} {answer.text}")
        return answer

    async def _try_post(self, url: str, body: object, session: _Session) -> httpx.Response:
        headers = {"Authorization": f"Bearer {session.access_token}", "Accept": "application/json"}
        return await self._http.post(url, json=body, headers=headers)

    # -- measuring -----------------------------------------------------------------------------------

    async def _revoke(self, leaving: Sequence[tuple[_Session, list[str]]]) -> None:
        """Revoke sessions at once, wait for their ends, and try to come back with what they still hold."""
        gone = [self._sockets.pop(session_id) for _, session_ids in leaving for session_id in session_ids]

        async def revoke(asks: _Session) -> None:
            body = {"scope": "REVOKE_SCOPE_OTHERS"}
            await self._post(self._control_url + "/api/auth/sessions/revoke", body, asks)

        async with trio.open_nursery() as revoking:
            for asks, _ in leaving:
                revoking.start_soon(revoke, asks)
        for socket in gone:
            with trio.move_on_after(_END_TIMEOUT_S):
                await socket.ended.wait()
            if socket.codes != ("reauth_required", 4501):
                raise StreamBrokenError(f"a revoked session's socket ended with {socket.codes}")
        self._evicted += gone
        await _at_once([partial(self._come_back, socket) for socket in gone], limit=_AT_ONCE)

    async def _come_back(self, socket: StreamSocket) -> None:
        again = StreamSocket(socket.session_id, socket.device_id, socket.url, socket.token)
        with trio.fail_after(_END_TIMEOUT_S):
            await again.run()
        if again.codes != ("reauth_required", 4501):
            raise StreamBrokenError(f"the sync token of a revoked session was answered with {again.codes}")
        session = self._sessions[socket.session_id]
        answer = await self._try_post(self._control_url + "/api/sync/token", {"topics": []}, session)
        if (answer.status_code, answer.json()["code"]) != (401, "reauth_required"):
            raise StreamBrokenError(
                f"the access token of a revoked session: {answer.status_code} {answer.text}"
            )

    # -- judging -------------------------------------------------------------------------------------

    async def _judge_others(self) -> None:
        """Wait until whoever was not revoked has everything; a gap or an end has ended the run already."""
        with trio.move_on_after(_END_TIMEOUT_S):
            for socket in self._sockets.values():
                while (socket.last_seq or 0) < self._head_seq:  # noqa: ASYNC110 - looks now and then
                    await trio.sleep(0.05)
        for socket in self._sockets.values():
            if socket.ended_at is not None or (socket.last_seq or 0) < self._head_seq:
                raise StreamBrokenError(f"a socket that nobody revoked: {socket}, head {self._head_seq}")

    def _figures(self, topic: str) -> dict[str, Any]:
        revoked_at = self._times(
            "SELECT session_id, extract(epoch FROM revoked_at) FROM control.revocations", role="khala_control"
        )
        committed_at = self._times(
            "SELECT topic || seq, extract(epoch FROM committed_at) FROM runtime.journal", role="khala_reader"
        )
        delays, late = [], 0
        for socket in self._evicted:
            assert socket.ended_at is not None
            delays.append(socket.ended_at - revoked_at[socket.session_id])
            last = committed_at.get(f"{topic}{socket.last_seq}")
            late += last is not None and last > socket.ended_at + FRAME_AFTER_END_MAX_S
        if late:
            raise SystemFailedError(f"{late} sockets got a frame that was committed after their end")
        delays.sort()
        return {
            "samples": len(delays),
            "p50_s": round(_percentile(delays, 0.50), 4),
            "p99_s": round(_percentile(delays, 0.99), 4),
            "max_s": round(delays[-1], 4),
            "events": self._head_seq,
            "others_uninterrupted": len(self._sockets),
            "reconnects_refused": 2 * len(delays),
            "delays_s": [round(delay, 4) for delay in delays],
        }

    def _times(self, sql: str, *, role: str) -> dict[str, float]:
        return {name: float(at) for name, at in self._system.query(sql, role=role) if name}


async def _at_once(calls: Sequence[Callable[[], Awaitable[None]]], *, limit: int) -> None:
    """Run them all, at most ``limit`` at a time."""
    slots = trio.CapacityLimiter(limit)

    async def run(call: Callable[[], Awaitable[None]]) -> None:
        async with slots:
            await call()

    async with trio.open_nursery() as running:
        for call in calls:
            running.start_soon(run, call)


def _percentile(ascending: Sequence[float], share: float) -> float:
    """Return the value that at least this share of the sample does not exceed."""
    return ascending[math.ceil(share * len(ascending)) - 1]


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
