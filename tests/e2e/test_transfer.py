"""A run changes hands while its former owner follows it: over real processes, sockets and commands."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import trio

from khala_contracts.codec import ErrorMessage, FramesMessage, Unsubscribed, UnsubscribedReason
from khala_contracts.topics import format_org_runs, format_user_runs
from tests.e2e.stage import OTHER_DEVICE
from tests.e2e.wire import (
    DEVICE,
    follow,
    open_api,
    open_welcomed,
    read_through,
    refusal,
    run_of,
    subscribe,
    thought,
)

if TYPE_CHECKING:
    from tests.e2e.system import System
    from tests.e2e.wire import Api, Person

pytestmark = pytest.mark.slow

# SEC-12, from the answer of the transfer.
FORBIDDEN_S = 5.0
# The user of the profile that `khala up` signs in.
DEVELOPMENT_LOGIN = "dev"
THIRD_DEVICE = "dev_0000000000000003"


async def make_org(api: Api, owner: Person, *members: Person) -> str:
    """Make an org with these members."""
    answer = await api.post("/api/orgs", {"name": "acme"}, owner.access_token)
    org_id: str = answer.json()["org_id"]
    for member in members:
        body = {"user_id": member.user_id, "role": "member"}
        added = await api.post(f"/api/orgs/{org_id}/members", body, owner.access_token)
        assert added.status_code == 200, added.text
    return org_id


async def give(api: Api, sender: Person, topic: str, to: Person) -> None:
    """Transfer a run."""
    path = f"/v1/runs/{run_of(topic)}/transfer"
    answer = await api.post(path, {"owner_user_id": to.user_id}, sender.access_token)
    assert answer.status_code == 200, answer.text


async def test_the_former_owner_is_left_out_and_the_new_one_has_everything(system: System) -> None:
    """SEC-12: forbidden within 5 s on the socket, not_found over HTTP; the new owner reads from the beginning."""
    async with open_api(system) as api:
        olga = await api.sign_in("olga")
        fred, heidi = await api.sign_in("fred", OTHER_DEVICE), await api.sign_in("heidi", THIRD_DEVICE)
        org_id = await make_org(api, olga, fred, heidi)
        topic = await api.create_run(fred, org_id=org_id)
        await api.append(fred, topic, *(thought(number) for number in range(5)))
        # He leaves the org, and keeps what he owns: only the transfer takes it from him.
        gone = await api.http.delete(
            f"{api.control_url}/api/orgs/{org_id}/members/{fred.user_id}",
            headers={"Authorization": f"Bearer {olga.access_token}"},
        )
        assert gone.status_code == 200, gone.text
        async with (
            open_welcomed(system, api, fred, topic, format_user_runs(fred.user_id)) as his,
            open_welcomed(system, api, heidi, topic, format_user_runs(heidi.user_id)) as hers,
        ):
            follower = await subscribe(his, topic)
            await read_through(his, follower, 6)
            new = await subscribe(hers, topic)
            await read_through(hers, new, 6)
            await give(api, olga, topic, heidi)
            began = trio.current_time()
            with trio.fail_after(FORBIDDEN_S):
                while not isinstance(ended := await his.receive(), Unsubscribed):
                    assert not isinstance(ended, FramesMessage) or ended.frames[-1].seq <= 7
            assert (ended.topic, ended.reason) == (topic, UnsubscribedReason.FORBIDDEN)
            assert trio.current_time() - began < FORBIDDEN_S
            denied = await his.ask(follow(topic), ErrorMessage)
            assert (denied.code, denied.topic) == ("forbidden", topic)
            # Her subscription, granted by membership, goes on without a gap.
            await api.append(heidi, topic, thought("mine now"))
            await read_through(hers, new, 8)
        refused = await api.post("/api/sync/token", {"topics": [topic]}, fred.access_token)
        assert refusal(refused) == (403, "forbidden")
        # His membership may be remembered for a second by the runtime.
        with trio.fail_after(FORBIDDEN_S):
            while (answer := await api.get(f"/v1/runs/{run_of(topic)}", fred.access_token)).is_success:
                await trio.sleep(0.05)
        assert refusal(answer) == (404, "not_found")
        history = await api.get(f"/v1/runs/{run_of(topic)}/events", fred.access_token)
        assert refusal(history) == (404, "not_found")
        append = await api.post(
            f"/v1/runs/{run_of(topic)}/events", {"events": [thought("still here?")]}, fred.access_token
        )
        assert refusal(append) == (404, "not_found")
        page = (await api.get(f"/v1/runs/{run_of(topic)}/events", heidi.access_token)).json()
        assert [event["seq"] for event in page["events"]] == [str(seq) for seq in range(1, 9)]
        assert page["events"][6]["kind"] == "run.transferred"
        # A fresh token is granted by ownership.
        async with open_welcomed(system, api, heidi, topic) as wire:
            own = await subscribe(wire, topic)
            await read_through(wire, own, 8)


async def test_lists_follow_the_run(system: System) -> None:
    """The former owner's list is told that the run is gone, the new owner's and the org's that it is there."""
    async with open_api(system) as api:
        fred, heidi = await api.sign_in("ferdinand", OTHER_DEVICE), await api.sign_in("hanna", THIRD_DEVICE)
        org_id = await make_org(api, fred, heidi)
        topic = await api.create_run(fred, org_id=org_id)
        org_list = format_org_runs(org_id)
        async with (
            open_welcomed(system, api, fred, format_user_runs(fred.user_id)) as his,
            open_welcomed(system, api, heidi, format_user_runs(heidi.user_id), org_list) as hers,
        ):
            list_of_his = await subscribe(his, format_user_runs(fred.user_id))
            await read_through(his, list_of_his, 1)
            list_of_hers = await subscribe(hers, format_user_runs(heidi.user_id))
            await give(api, fred, topic, heidi)
            await read_through(his, list_of_his, 2)
            await read_through(hers, list_of_hers, 1)
        mine = (await api.get("/v1/runs", heidi.access_token)).json()["runs"]
        assert [run["run_id"] for run in mine] == [run_of(topic)]


def test_by_command(system: System) -> None:
    """`khala runs transfer`; the giver's `khala tail`, granted by ownership, ends forbidden within 5 s."""

    async def set_up() -> tuple[str, str]:
        async with open_api(system) as api:
            me = await api.sign_in(DEVELOPMENT_LOGIN, DEVICE)
            heir = await api.sign_in("heir", THIRD_DEVICE)
            org_id = await make_org(api, me, heir)
            return run_of(await api.create_run(me, org_id=org_id, name="given")), heir.user_id

    run_id, heir_id = trio.run(set_up)
    tail = system.tail("given", run_id, "--from", "beginning")
    tail.wait_for(1)
    done = system.run("runs", "transfer", run_id, "--to", heir_id, "--json")
    began = time.monotonic()
    assert json.loads(done.stdout)["owner_user_id"] == heir_id
    try:
        assert tail.process.wait(timeout=FORBIDDEN_S) == 1
    except subprocess.TimeoutExpired:
        pytest.fail(f"still following after {time.monotonic() - began:.1f} s")
    assert "forbidden" in (system.folder / "given.err").read_text().lower()
    again = system.run("runs", "transfer", run_id, "--to", heir_id, check=False)
    # Still an owner of the org: it may, and nothing is to be done.
    assert again.returncode == 0, again.stderr
    stranger = system.run("runs", "transfer", run_id, "--to", "usr_nobody", check=False)
    assert stranger.returncode == 1
    assert "member of the run's org" in stranger.stderr
