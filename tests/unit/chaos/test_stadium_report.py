"""The stadium's report: ratios round by round, and each demand of it judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chaos.load.report import check_document
from chaos.load.stadium_report import stadium_report
from chaos.load.stadium_setup import Measured, StadiumSetup
from chaos.load.stadium_sides import Run

if TYPE_CHECKING:
    from chaos.load.report import Report

SETUP = StadiumSetup()


def runs(*seconds: float, cpu_s: float = 1.0, sender_s: float | None = None) -> list[Run]:
    """Return runs of a million deliveries that took so long."""
    return [Run(1_000_000, taken, cpu_s, 0.5, sender_s) for taken in seconds]


def result_of(report: Report) -> list[dict[str, Any]]:
    """Return the results of its JSON."""
    results: Any = report.as_json()["results"]
    return list(results)


def found(*rows: Measured) -> dict[str, tuple[float, bool]]:
    """Return value and verdict of each target."""
    report = stadium_report(SETUP, rows, {}, {}, absent={})
    check_document(report.as_json())
    return {target.name: (round(target.value, 6), target.is_met) for target in report.targets}


def test_ratios_are_taken_round_by_round() -> None:
    """The median of the ratios, which is not the ratio of the medians."""
    row = Measured(500, 1, 300, {"websockets": runs(1, 2, 8), "send_loop": runs(1, 1, 6)})
    (target,) = found(row).values()
    assert target == (0.75, True)


def test_500_and_5000_subscribers_have_targets_of_their_own() -> None:
    """0.75 and 0.65; the other crowds are only shown."""
    slow = {"websockets": runs(1.0), "send_loop": runs(0.7)}
    rows = [Measured(crowd, 4, 40, slow) for crowd in (100, 500, 1_000, 5_000)]
    assert found(*rows) == {
        "ratio to send(2), 500 subscribers, 4 frames per write": (0.7, False),
        "ratio to send(2), 5000 subscribers, 4 frames per write": (0.7, True),
    }


def test_peer_and_second_adapter_are_judged_where_they_ran() -> None:
    """1.2 of the broadcast server; the adapters within 10 %, in either direction."""
    sides = {"websockets": runs(1.0), "send_loop": runs(1.0), "broadcast": runs(1.19)}
    row = Measured(500, 1, 300, {**sides, "trio_websocket": runs(1.0 / 1.11)})
    assert found(row) == {
        "ratio to send(2), 500 subscribers, 1 frames per write": (1.0, True),
        "ratio to broadcast, 500 subscribers, 1 frames per write": (1.19, False),
        "difference of the adapters, 500 subscribers, 1 frames per write": (0.11, False),
    }


def test_results_keep_every_run_and_the_other_ways_to_compare() -> None:
    """By the loop's own clock, and by CPU time."""
    row = Measured(
        500, 1, 300, {"websockets": runs(1.0, cpu_s=2.0), "send_loop": runs(0.8, cpu_s=1.0, sender_s=0.5)}
    )
    report = stadium_report(SETUP, [row], {}, {}, absent={})
    (result,) = result_of(report)
    ratios = result["ratios"]
    assert ratios["websockets_to_send_loop"]["median"] == 0.8
    assert ratios["websockets_to_send_loop_by_its_clock"]["median"] == 0.5
    assert ratios["websockets_to_send_loop_by_cpu"]["median"] == 0.5
    assert result["sides"]["send_loop"]["runs"] == [
        {"deliveries": 1_000_000, "seconds": 0.8, "cpu_s": 1.0, "client_cpu_s": 0.5, "sender_s": 0.5}
    ]
    page = report.as_markdown(date="2026-11-21")
    assert "| 500 x 1 | 0.8 (0.8 to 0.8) | 0.5 (0.5 to 0.5) | 0.5 (0.5 to 0.5) |" in page


def test_the_command_says_what_was_not_the_default() -> None:
    """So that it can be run again."""
    row = Measured(500, 1, 300, {"websockets": runs(1.0), "send_loop": runs(1.0)})
    assert stadium_report(SETUP, [row], {}, {}, absent={}).command == "khala bench stadium"
    other = StadiumSetup(subscribers=(5, 50), rounds=3)
    report = stadium_report(other, [row], {}, {}, absent={})
    assert report.command == "khala bench stadium --subscribers 5 --subscribers 50 --rounds 3"


def test_a_measurement_sends_about_as_much_for_every_crowd() -> None:
    """But never fewer writes than can be told apart."""
    assert [SETUP.writes(crowd) for crowd in (100, 500, 1_000, 5_000)] == [1_500, 300, 150, 40]


def test_a_peer_is_compared_where_it_ran_and_named_where_it_did_not() -> None:
    """No target: the ratio is shown whatever it is."""
    ran = {"websockets": runs(1.0), "send_loop": runs(1.0), "centrifugo_memory": runs(2.0)}
    row = Measured(500, 1, 300, ran)
    report = stadium_report(SETUP, [row], {}, {}, absent={"centrifugo_postgres": "it did not start"})
    assert [target.name for target in report.targets] == [
        "ratio to send(2), 500 subscribers, 1 frames per write"
    ]
    page = report.as_markdown(date="2026-11-21")
    assert "to centrifugo_memory |" in page
    assert "- `centrifugo_postgres`: it did not start." in page
    (result,) = result_of(report)
    assert result["ratios"]["websockets_to_centrifugo_memory"]["median"] == 2.0
