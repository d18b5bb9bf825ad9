"""`khala runs drift` and `khala runs rebuild`: a damaged row is named and repaired, by command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from tests.e2e.ledger import Ledger
from tests.e2e.system import wait_until
from tests.e2e.wire import open_api, run_of, thought

if TYPE_CHECKING:
    from tests.e2e.system import System

pytestmark = pytest.mark.slow

BEHIND = "SELECT 1 FROM runtime.topic_heads AS h LEFT JOIN runtime.projector_checkpoints AS c ON c.topic = h.topic WHERE h.topic LIKE 'run:%' AND coalesce(c.applied_seq, 0) < h.head_seq"


def test_a_damaged_row_is_named_and_repaired(system: System) -> None:
    """Agreement exits 0, a difference 1 with the run's id; after the rebuild they agree again."""

    async def set_up() -> list[str]:
        async with open_api(system) as api:
            ann = await api.sign_in("ann")
            topics = [await api.create_run(ann) for _ in range(3)]
            for topic in topics:
                await api.append(ann, topic, thought("hi"))
            return [run_of(topic) for topic in topics]

    runs = trio.run(set_up)
    with Ledger.open(system) as ledger:
        wait_until(lambda: not ledger.rows(BEHIND), timeout_s=30, what="the read model")
        where = ("--data-dir", str(system.data_dir))
        agreed = system.run("runs", "drift", *where)
        assert "agree" in agreed.stdout
        ledger.rows("UPDATE runtime.run_summaries SET title = 'wrong' WHERE run_id = $1 RETURNING 1", runs[1])
        drift = system.run("runs", "drift", *where, "--json", check=False)
        assert drift.returncode == 1
        named, total = [json.loads(line) for line in drift.stdout.splitlines()]
        assert (named["run_id"], "title" in named["problem"]) == (runs[1], True)
        assert (total["type"], total["differing"]) == ("drift", 1)
        rebuilt = json.loads(system.run("runs", "rebuild", *where, "--json").stdout)
        assert (rebuilt["changed"], rebuilt["failed"], rebuilt["runs"] >= 3) == (1, 0, True)
        assert system.run("runs", "drift", *where).returncode == 0


def test_one_half_of_a_deployment_is_refused(system: System) -> None:
    """Whom to ask is never a guess, and a wrong token is said to be one."""
    half = system.run("runs", "drift", "--runtime-url", system.ready["runtime_url"], check=False)
    assert half.returncode == 2
    wrong = system.folder / "wrong_token"
    wrong.write_text("x" * 40)
    wrong.chmod(0o600)
    refused = system.run(
        "runs", "rebuild", "--runtime-url", system.ready["runtime_url"], "--admin-token-file", str(wrong), check=False
    )  # fmt: skip
    assert refused.returncode == 1
