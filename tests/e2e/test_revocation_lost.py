"""Revocations without pushes, and nodes without control: the poll reads what was lost, or doors are closed.

The driver drops every push (``hint_loss``). Polls are at their default; the times after which a node that is cut
off acts are short here, and are judged by their own figures in tests/actors/khala/test_evictions.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest
import trio

from khala.core.limits import NodeLimits
from khala_contracts.codec import Welcome
from tests.e2e.service_processes import clean_environment
from tests.e2e.stage import OTHER_DEVICE
from tests.e2e.system import System, running_system
from tests.e2e.wire import hello, open_api, open_welcomed, open_wire, read_through, subscribe, thought

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.wire import Wire

pytestmark = pytest.mark.slow

RUNBOOKS: Final = Path(__file__).resolve().parents[2] / "runbooks"
RUNBOOK: Final = RUNBOOKS / "revocations.md"
ALERTS: Final = RUNBOOKS / "alerts.yml"
POLL_S = 5.0
STALE_S, CLOSE_S, SPREAD_S = 8.0, 14.0, 5.0
CONFIG = f"""
[fanout]
driver = "faulty"
options = {{ inner = "postgres", hint_loss = "1" }}
[node.limits]
revocation_stale_after_s = {STALE_S}
revocation_close_after_s = {CLOSE_S}
revocation_close_spread_s = {SPREAD_S}
"""
# SPEC section 5.
DROPPED_S = 15.0
# For a machine that is busy with other things.
ROOM_S = 5.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system of processes whose nodes hear no push."""
    folder = tmp_path_factory.mktemp("system")
    config = folder / "khala.toml"
    config.write_text(CONFIG)
    with running_system(folder, split=True, KHALA_CONFIG=str(config)) as started:
        yield started


def node_metric(system: System, name: str, *, url: str = "admin_url") -> float:
    """Return a figure of the node, or of the service with this URL."""
    text = httpx.get(f"{system.ready[url]}/metrics", trust_env=False, timeout=5).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def test_a_session_whose_push_was_lost_ends_by_the_poll(system: System) -> None:
    """SEC-05: the push was given and dropped; the socket ends all the same, within 15 s."""
    async with open_api(system) as api:
        here, there = await api.sign_in("lea"), await api.sign_in("lea", OTHER_DEVICE)
        topic = await api.create_run(here)
        async with open_welcomed(system, api, here, topic) as ends:
            await read_through(ends, await subscribe(ends, topic), 1)
            began = trio.current_time()
            body = {"scope": "REVOKE_SCOPE_OTHERS"}
            assert (await api.post("/api/auth/sessions/revoke", body, there.access_token)).status_code == 200
            ending = await ends.ending(timeout_s=DROPPED_S)
            assert ending.codes == (["reauth_required"], 4501)
            assert trio.current_time() - began <= DROPPED_S
        given = 'khala_control_revocation_hints_total{outcome="published"}'
        assert node_metric(system, given, url="control_url") >= 1
        assert node_metric(system, 'khala_driver_injected_total{fault="hint_loss"}') >= 1
        assert node_metric(system, "khala_node_revocation_hints_total") == 0


def test_the_commands_of_the_runbook(system: System) -> None:
    """What on-call is told to run works as it stands, and shows what the page says that it shows."""
    (block,) = re.findall(
        r"^```sh\n(.*?)^```$", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    variables = {
        "NODE_ADMIN_URL": system.ready["admin_url"],
        "CONTROL_URL": system.ready["control_url"],
        "NODE_CREDENTIAL_FILE": str(system.data_dir / "secrets" / "service_node"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for shown in (
        "khala_node_revocation_staleness_seconds ",
        "khala_node_revocation_hints_total ",
        '"head_seq":"',
    ):
        assert shown in done.stdout
    assert done.stdout.count('"revocations"') == 2, "a check of the node, and rows of control"


def test_the_alarm_comes_between_two_polls_and_the_first_closed_door() -> None:
    """Not for one poll that failed, and long before hellos are refused."""
    rules = json.loads(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    (rule,) = [rule for rule in rules if rule["alert"] == "KhalaRevocationsStale"]
    metric, threshold_s = rule["expr"].split(" > ")
    assert metric == "khala_node_revocation_staleness_seconds"
    limits = NodeLimits()
    assert 2 * limits.revocation_poll_interval_s < float(threshold_s)
    assert float(threshold_s) + float(rule["for"].rstrip("s")) < limits.revocation_stale_after_s - 15


async def test_a_node_that_is_cut_off_closes_its_doors(system: System) -> None:
    """SEC-05: hellos are unavailable, then sockets end one by one; when control is back, a spared token opens."""
    async with open_api(system) as api:
        person = await api.sign_in("nora")
        topic = await api.create_run(person)
        spared = await api.mint(person, topic)
        wires: list[Wire] = []
        ends: list[float] = []
        async with trio.open_nursery() as nursery:

            async def stream(*, task_status: trio.TaskStatus[None]) -> None:
                async with open_welcomed(system, api, person, topic) as wire:
                    await read_through(wire, await subscribe(wire, topic), 1)
                    wires.append(wire)
                    task_status.started()
                    ending = await wire.ending(timeout_s=CLOSE_S + SPREAD_S + POLL_S + ROOM_S)
                    ends.append(time.monotonic())
                    assert ending.codes == (["unavailable"], 4004)
                    assert ending.errors[0].retryable

            for _ in range(8):
                await nursery.start(stream)
            control = system.pids()["control"]
            os.kill(control, signal.SIGSTOP)
            cut_at = time.monotonic()
            try:
                # Until then the view may have been confirmed just before.
                await trio.sleep(STALE_S + 0.2)
                async with open_wire(system) as wire:
                    await wire.send(hello(spared))
                    refused = await wire.ending()
                    assert refused.codes == (["unavailable"], 4004)
                    assert refused.errors[0].retry_after_ms > 0
                # What the alarm looks at.
                assert node_metric(system, "khala_node_revocation_staleness_seconds") > STALE_S
                assert not ends, "sockets stay while their node may still know enough"
                with trio.fail_after(CLOSE_S + SPREAD_S + ROOM_S):
                    while len(ends) < len(wires):
                        await trio.sleep(0.05)
            finally:
                os.kill(control, signal.SIGCONT)
        assert min(ends) - cut_at > CLOSE_S - POLL_S - 1
        assert max(ends) - cut_at < CLOSE_S + SPREAD_S + ROOM_S
        assert max(ends) - min(ends) > 0.5, "all at once"
        with trio.fail_after(POLL_S + 30):
            while True:
                async with open_wire(system) as wire:
                    await wire.send(hello(spared))
                    answer = await wire.receive()
                    if isinstance(answer, Welcome):
                        follower = await subscribe(wire, topic)
                        await api.append(person, topic, thought("again"))
                        await read_through(wire, follower, 2)
                        return
                await trio.sleep(0.2)
