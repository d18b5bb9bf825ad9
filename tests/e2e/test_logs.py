"""OBS-08: every line that any process of the system writes says when, how bad, who, where and for whom.

One process and separate ones alike. The session before the look does something useful and something
wrong over each door, so that lines of each kind are there.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest
import trio

from khala_service.logs import LEVELS
from tests.e2e.system import System, running_system, wait_until
from tests.e2e.wire import (
    events_path,
    hello,
    open_api,
    open_wire,
    read_through,
    refusal,
    subscribe,
    thought,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

Line = dict[str, Any]
REQUEST_ID: Final = "a-request-of-the-log-test"
REFUSED_ID: Final = "a-refused-request"
# Written by programs that are not ours.
FOREIGN_LOGS: Final = frozenset({"postgres.log", "nats.log"})
ANSWER_S: Final = 20.0


@attrs.frozen
class Session:
    """What was done, and by which names it must be found."""

    system: System
    node_id: str
    connection_id: str
    user_id: str
    event_request_ids: tuple[str, ...]

    def lines(self) -> list[Line]:
        """Return every whole line of every log, parsed; fails on one that is not JSON."""
        found = []
        for path in sorted((self.system.data_dir / "logs").iterdir()):
            if path.name in FOREIGN_LOGS or path.suffix != ".log":
                continue
            text = path.read_text(encoding="utf-8")
            found += [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return found


@pytest.fixture(scope="module", params=["one process", "separate processes"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A system on which the session has been held."""
    folder = tmp_path_factory.mktemp("logs")
    is_split = request.param == "separate processes"
    with running_system(folder, split=is_split, KHALA_UP_LOG_LEVEL="debug") as system:
        yield hold_session(system)


def hold_session(system: System) -> Session:
    """Import and follow a run; be refused over HTTP and over the stream; name a request."""
    recording = system.folder / "run.jsonl"
    recording.write_text('{"kind": "thought", "data": {"text": "x"}}\n')
    run_id = system.run("import", str(recording)).stdout.split()[-1]
    assert system.tail("tail", run_id, "--until-finished").finish() == 0

    async def use() -> Session:
        async with open_api(system) as api:
            ann = await api.sign_in("ann")
            topic = await api.create_run(ann)
            refused = await api.get("/v1/runs", "not-a-credential", X_Request_Id=REFUSED_ID)
            assert refusal(refused) == (401, "unauthenticated")
            body = {"events": [thought("x")]}
            sent = await api.post(events_path(topic), body, ann.access_token, X_Request_Id=REQUEST_ID)
            assert sent.headers["X-Request-Id"] == REQUEST_ID
            events = (await api.get(events_path(topic), ann.access_token)).json()["events"]
            async with open_wire(system) as wire:
                await wire.send(hello("not a token"))
                assert (await wire.ending()).close_code == 4502
            async with open_wire(system) as wire:
                welcome = await wire.greet(await api.mint(ann, topic))
                await read_through(wire, await subscribe(wire, topic), 2)
            return Session(
                system,
                welcome.node_id,
                welcome.connection_id,
                ann.user_id,
                tuple(event["request_id"] for event in events),
            )

    return trio.run(use)


def test_every_line_says_who_and_when(session: Session) -> None:
    """JSON with ts, level, service, node, source and event; nothing else is in these files."""
    lines = session.lines()
    assert len(lines) > 20
    for line in lines:
        assert datetime.fromisoformat(line["ts"]).utcoffset() is not None, line
        assert line["level"] in LEVELS, line
        assert line["service"] in {"khala", "control", "runtime", "node"}, line
        assert line["node"], line
        assert line["source"], line
        assert line["event"], line
    assert {"control", "runtime", "node"} <= {line["service"] for line in lines}
    assert {line["node"] for line in lines if line["service"] == "node"} >= {session.node_id}


def test_lines_of_a_node_name_it(session: Session) -> None:
    """The node's id, which clients learn in welcome, is on its lines and on nobody else's."""
    lines = session.lines()
    own = [line for line in lines if line["source"].startswith("khala.") and line["service"] == "node"]
    assert {line["node"] for line in own} == {session.node_id}
    assert {line["service"] for line in lines if line["node"] == session.node_id} == {"node"}


def test_a_request_is_found_by_its_id(session: Session) -> None:
    """Given by the client, it is on the runtime's lines, and with the event that the request wrote."""
    lines = [line for line in session.lines() if line.get("request_id") == REQUEST_ID]
    [request] = [line for line in lines if line["event"] == "request"]
    assert (request["service"], request["method"], request["status"]) == ("runtime", "POST", 200)
    assert request["route"] == "/v1/runs/<run_id>/events"
    assert session.event_request_ids[-1] == REQUEST_ID
    for line in session.lines():
        if line["event"] == "request":
            assert line["request_id"], line


def test_a_refused_request_is_found_too(session: Session) -> None:
    """A failed authentication, by the id that the client was told, in each service that it went through."""
    lines = [line for line in session.lines() if line.get("request_id") == REFUSED_ID]
    refused = [line for line in lines if line["event"] == "request"]
    assert {(line["service"], line["status"]) for line in refused} == {("runtime", 401), ("control", 401)}


def test_a_connection_is_found_by_its_id(session: Session) -> None:
    """Each line of a connection carries its id; its end says who it was and why it ended."""

    def ends() -> list[Line]:
        return [line for line in session.lines() if line["event"] == "connection_closed"]

    # The tail, the refused hello and the good one.
    wait_until(lambda: len(ends()) >= 3, timeout_s=ANSWER_S, what="three connections closed")
    assert all(line["connection_id"].startswith("con_") for line in ends())
    [own] = [line for line in ends() if line["connection_id"] == session.connection_id]
    assert own["user_id"] == session.user_id
    assert own["app_version"] == "wire-tests"
    assert own["duration_s"] > 0
    assert own["node"] == session.node_id
    [refused] = [line for line in ends() if line["reason"] == "token_invalid"]
    assert "user_id" not in refused
    opened = {line["connection_id"] for line in session.lines() if line["event"] == "connection_opened"}
    assert {line["connection_id"] for line in ends()} <= opened
