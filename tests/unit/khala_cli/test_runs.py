"""Unit tests of khala.cli.runs."""

from __future__ import annotations

import io

import attrs
import pytest
from rich.console import Console

from khala.cli.runs import run_record, runs_table
from khala_client.core.cursor import Cursor
from khala_client.resources import RunInfo
from khala_contracts.topics import Lineage, Seq, TopicName

TOPIC = TopicName("run:run_01fwhe4yddfk4scvajq9ww84cz:events")
RUN = RunInfo(
    run_id="run_01fwhe4yddfk4scvajq9ww84cz",
    name="fix-1867",
    state="succeeded",
    owner_user_id="usr_1",
    org_id="",
    agent="swe-agent",
    source="",
    attributes={"a": "b"},
    created_at_s=1_000.0,
    finished_at_s=1_090.0,
    topic=TOPIC,
    watermark=Cursor(TOPIC, Seq(12_345), Lineage("lin_1"), None),
)


def test_a_script_gets_every_attribute() -> None:
    """Positions are strings, as everywhere in our JSON."""
    record = run_record(RUN)
    assert record["type"] == "run"
    assert (record["head_seq"], record["attributes"]) == ("12345", {"a": "b"})
    assert attrs.asdict(RUN).keys() - {"watermark"} <= record.keys()
    assert run_record(attrs.evolve(RUN, watermark=None))["head_seq"] is None


@pytest.mark.parametrize(
    ("run", "row"),
    [
        (RUN, "run_01fwhe4yddfk4scvajq9ww84cz  succeeded  12,345  16 min ago  2 min  fix-1867  swe-agent"),
        (
            attrs.evolve(RUN, state="running", finished_at_s=None, name="\x1b[2J", watermark=None),
            "run_01fwhe4yddfk4scvajq9ww84cz  running          16 min ago  16 min  \\x1b[2J  swe-agent",
        ),
    ],
)
def test_a_person_gets_times_in_words(run: RunInfo, row: str) -> None:
    """A run that goes on has taken the time until now; a name steers nothing."""
    console = Console(file=io.StringIO(), width=200)
    console.print(runs_table([run], now_s=1_960.0, is_decorated=False))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[1].rstrip() == row


def test_symbols_are_for_terminals() -> None:
    """Where nobody looks there are none."""
    for is_decorated in (False, True):
        console = Console(file=io.StringIO(), width=200)
        console.print(runs_table([RUN], now_s=2_000.0, is_decorated=is_decorated))
        assert isinstance(console.file, io.StringIO)
        assert ("✓" in console.file.getvalue()) is is_decorated
