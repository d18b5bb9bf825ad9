"""Lists of runs, live: the topic of a user's runs and of an org's, over the same wire as everything else."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from chaos.checker import check_positions
from khala_client.profiles import ProfileDirectory
from khala_client.trio import Khala
from khala_contracts.topics import format_org_runs, format_user_runs
from tests.e2e.stage import OTHER_DEVICE
from tests.e2e.system import Tail, wait_until
from tests.e2e.wire import open_api

if TYPE_CHECKING:
    from tests.e2e.system import System

pytestmark = pytest.mark.slow

THOUGHTS = 30
APPEARS_S = 10.0


@pytest.fixture(scope="module")
def system(own_system: System) -> System:
    """Nobody else's runs are in its lists."""
    return own_system


def user_of(system: System) -> str:
    """Return the id of the development user."""
    return ProfileDirectory(system.data_dir / "profile").load().user_id


def write_recording(path: Path) -> Path:
    """Write a recorded run, one JSON event a line."""
    lines: list[dict[str, Any]] = [{"kind": "step.started", "data": {"step": 1}}]
    lines += [{"kind": "thought", "data": {"text": f"thought {number}"}} for number in range(THOUGHTS)]
    lines.insert(10, {"kind": "custom", "data": {"name": "run.title", "data": "Find the missing colon"}})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def latest(tail: Tail) -> dict[str, dict[str, Any]]:
    """Return the newest summary of each run that a tail has applied."""
    return {event["data"]["run_id"]: event["data"] for event in tail.events()}


def test_a_user_sees_the_list_of_runs_live(system: System, tmp_path: Path) -> None:
    """KH-26: from before the first run: started, titled, finished; the latest per key is what `runs` says."""
    topic = format_user_runs(user_of(system))
    tail = system.tail("my-runs", topic)
    run_id = system.run(
        "import", "--name", "first", str(write_recording(tmp_path / "a.jsonl"))
    ).stdout.strip()
    other = system.run("record", "--name", "second", "--", "python3", "-c", "print(1)")
    assert other.returncode == 0

    def is_finished() -> bool:
        found = latest(tail)
        return len(found) == 2 and all(row["state"] == "RUN_STATE_SUCCEEDED" for row in found.values())

    wait_until(is_finished, timeout_s=APPEARS_S, what="both runs finished in the list")
    events = tail.events()
    assert check_positions(topic, [int(event["seq"]) for event in events], source="tail") == []
    assert {event["kind"] for event in events} == {"run.summarised"}
    states = [event["data"]["state"] for event in events if event["data"]["run_id"] == run_id]
    assert states[-1] == "RUN_STATE_SUCCEEDED"
    heads = [int(event["data"]["head_seq"]) for event in events if event["data"]["run_id"] == run_id]
    assert heads == sorted(set(heads))
    runs = {row["run_id"]: row for row in map(json.loads, system.run("runs", "--json").stdout.splitlines())}
    for listed_id, row in latest(tail).items():
        assert (row["name"], row["state"]) == (
            runs[listed_id]["name"], f"RUN_STATE_{runs[listed_id]['state'].upper()}",
        )  # fmt: skip
        assert row["head_seq"] == runs[listed_id]["head_seq"]
    assert latest(tail)[run_id]["title"] == "Find the missing colon"


def test_the_list_can_be_verified_and_read_again(system: System) -> None:
    """A second reader from the beginning gets the same frames, and the chain of the list holds."""
    topic = format_user_runs(user_of(system))
    first = system.tail("again", topic)
    first.wait_for(2)
    again = system.tail("verified", topic, "--verify")
    again.wait_for(len(first.events()))
    count = len(first.events())
    assert [event["chain"] for event in again.events()[:count]] == [
        event["chain"] for event in first.events()
    ]


def test_an_org_sees_its_runs(system: System) -> None:
    """A run of an org is told to followers of the org's list and of its owner's, from start to end."""

    async def find_org() -> str:
        async with open_khala(system) as khala:
            return (await khala.control.get_session()).orgs[0].org_id

    async def make_run(org_id: str) -> str:
        async with open_khala(system) as khala, khala.run(name="shared", org_id=org_id) as run:
            await run.emit("thought", text="for all of us")
            return run.id

    org_id = trio.run(find_org)
    tails = [
        system.tail("org-runs", format_org_runs(org_id)),
        system.tail("my-runs-again", format_user_runs(user_of(system))),
    ]
    run_id = trio.run(make_run, org_id)
    for tail in tails:
        wait_until(
            partial(is_in_state, tail, run_id, "RUN_STATE_SUCCEEDED"), timeout_s=APPEARS_S, what="its end"
        )
    (org_tail, _) = tails
    assert [event["data"]["run_id"] for event in org_tail.events()] == [run_id] * len(org_tail.events())
    assert org_tail.events()[0]["data"]["state"] == "RUN_STATE_RUNNING"


def test_nobody_else_gets_a_token_for_the_lists(system: System) -> None:
    """The lists are judged by the ids in their names: a stranger is refused, written to or not."""

    async def scenario() -> None:
        async with open_api(system) as api:
            ann, bob = await api.sign_in("ann"), await api.sign_in("bob", OTHER_DEVICE)
            for topic in (format_org_runs(ann.org_id), format_user_runs(ann.user_id)):
                await api.mint(ann, topic)
                asked = {"topics": [topic], "ttl_s": 300}
                refused = await api.post("/api/sync/token", asked, bob.access_token)
                assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")

    trio.run(scenario)


def is_in_state(tail: Tail, run_id: str, state: str) -> bool:
    """Return whether a follower has seen a run in this state."""
    return latest(tail).get(run_id, {}).get("state") == state


def open_khala(system: System) -> Khala:
    """Return a client that is signed in as the development user."""
    return Khala.from_env({}, profile=system.data_dir / "profile")


def test_operators_find_no_drift(system: System) -> None:
    """After all of this: every row is the fold of its events."""
    admin = Path(system.ready["admin_token_file"]).read_text(encoding="utf-8").strip()
    answer = httpx.get(
        f"{system.ready['runtime_url']}/internal/v1/projections/drift",
        headers={"Authorization": f"Bearer {admin}"}, trust_env=False, timeout=30,
    )  # fmt: skip
    report = answer.json()
    assert (answer.status_code, report["difference_count"]) == (200, "0")
    assert int(report["checked"]) >= 3
    assert report["stored_hash"] == report["folded_hash"]
