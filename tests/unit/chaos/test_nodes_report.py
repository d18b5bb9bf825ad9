"""The report of ``khala bench nodes``: ratios to the memory driver round by round, and its one demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chaos.load.nodes_report import Measured, nodes_report
from chaos.load.nodes_setup import MEMORY, NodesSetup, Part
from chaos.load.nodes_sides import deal
from chaos.load.preambles import Preamble
from chaos.load.report import check_document
from chaos.load.rig import RigSetup

if TYPE_CHECKING:
    from chaos.load.report import Report

SETUP = NodesSetup()
PAIR = "nats, 2 nodes"


def parts(*cpu_s: float, seconds: float = 2.0) -> list[Part]:
    """Return parts of a million deliveries in half as many writes."""
    return [Part(1_000_000, 500_000, seconds, used, {"runtime": 1.5}) for used in cpu_s]


def report_of(memory: list[Part], pair: list[Part]) -> Report:
    """Return the report of these, for both shapes."""
    rows = [Measured(shape, {MEMORY: memory, PAIR: pair}) for shape in SETUP.shapes]
    systems = [RigSetup("memory"), RigSetup("nats", config={"runtime": {"x": 1}})]
    return nodes_report(SETUP, rows, {MEMORY: 0.01, PAIR: 0.02}, {}, systems)


def test_the_ratio_is_taken_round_by_round() -> None:
    """The median of the ratios, which is not the ratio of the medians; 1.2 is met, above is not."""
    (target,) = report_of(parts(4, 2, 1), parts(4.8, 2.4, 4)).targets
    assert (target.value, target.is_met) == (1.2, True)
    (target,) = report_of(parts(1, 1, 1), parts(1.21, 1.21, 1.21)).targets
    assert not target.is_met


def test_figures_of_the_document() -> None:
    """CPU for a million deliveries, wall-clock ratio, frames per write, other processes for a million events."""
    report = report_of(parts(4.0), parts(5.0, seconds=1.0))
    document: Any = report.as_json()
    check_document(document)
    (result,) = document["results"]
    side = result["shapes"]["crowd"]["sides"][PAIR]
    assert side["node_cpu_s_per_million"]["median"] == 5.0
    assert side["node_cpu_ratio_to_memory"]["median"] == 1.25
    assert side["wall_ratio_to_memory"]["median"] == 0.5
    assert side["frames_per_write"]["median"] == 2.0
    # 300 events in the crowd.
    assert side["system_cpu_s_per_million_events"] == {"runtime": 5_000.0}
    assert document["overrides"] == {"up": {"driver": ["memory", "nats"]}, "runtime": {"x": 1}}
    assert "| nats, 2 nodes | 1.25 (1.25 to 1.25) | 0.5 (0.5 to 0.5) |" in report.as_markdown(
        date="2026-11-21"
    )


def test_no_ratio_has_a_zero_below_it() -> None:
    """So little that the clock does not show it is a millisecond."""
    assert Part(100, 100, 1.0, 0.0, {}).cpu_s_per_million == 10.0


def test_slices_make_up_a_measurement() -> None:
    """Sums of everything, so that a slice's error is not weighed more than its length."""
    whole = Part.of([Part(10, 5, 1.0, 0.5, {"nats": 0.1}), Part(10, 10, 2.0, 0.1, {"nats": 0.3})])
    assert whole == Part(20, 15, 3.0, 0.6, {"nats": 0.4})
    assert SETUP.shapes[0].slice(SETUP.slices).deliveries * SETUP.slices == SETUP.shapes[0].deliveries


def test_shapes_count_what_everybody_gets() -> None:
    """500 x 300 of one run, and two followers of each of 50 runs with 200 events."""
    crowd, pairs = SETUP.shapes
    assert (crowd.deliveries, pairs.events, pairs.deliveries) == (150_000, 10_000, 20_000)


def test_followers_of_one_run_are_apart() -> None:
    """Neighbours go to different nodes; with one node everybody is there."""
    dealt = [Preamble(b"", b"", [(str(number), -1)]) for number in range(5)]
    first, second = deal(dealt, 2)
    assert [p.expected[0][0] for p in first] == ["0", "2", "4"]
    assert [p.expected[0][0] for p in second] == ["1", "3"]
    assert deal(dealt, 1) == [dealt]
