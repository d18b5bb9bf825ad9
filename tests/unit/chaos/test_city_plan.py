"""What a city does is what was asked for, drawn from recorded runs, and the same each time."""

from __future__ import annotations

from collections import Counter

import pytest

from chaos.load.city_plan import CityLoad, CityPlan, make_plan
from chaos.load.city_traffic import Added, percentile
from khala_contracts import http_messages as m

LOAD = CityLoad(runs=200, requests_per_s=40.0, delta_runs=10, seconds=60.0)


@pytest.fixture(scope="module")
def plan() -> CityPlan:
    """A tenth of the city."""
    return make_plan(LOAD)


def test_the_defaults_are_the_city() -> None:
    """2,000 runs with two watchers each, 4,000 events a second, a tenth of the watchers within a minute."""
    load = CityLoad()
    assert (load.runs, load.watchers, load.delta_runs) == (2_000, 4_000, 100)
    assert load.requests_per_s * load.events_per_request == 4_000
    assert load.resumes == 400


def test_the_same_each_time(plan: CityPlan) -> None:
    """One seed is one plan, another seed another."""
    assert make_plan(LOAD) == plan
    assert make_plan(LOAD, seed=2).requests != plan.requests


def test_requests_come_at_the_rate(plan: CityPlan) -> None:
    """In all within 5 % of what was asked, ascending, and each run has its share."""
    due = [request.due_s for request in plan.requests]
    assert due == sorted(due)
    assert 0 <= due[0] <= due[-1] < LOAD.seconds
    assert len(due) == pytest.approx(LOAD.requests_per_s * LOAD.seconds, rel=0.05)
    counts = Counter(request.run for request in plan.requests)
    assert len(counts) == LOAD.runs
    deltas = sum(counts[run] for run in range(LOAD.delta_runs))
    assert deltas == pytest.approx(len(due) / 4, rel=0.05)


def test_bodies_are_ten_events_of_recorded_sizes(plan: CityPlan) -> None:
    """Kinds as recorded; sizes have the recorded mean; runs of tokens send message.delta only."""
    bodies = [m.AppendEventsRequest.FromString(body).events for body in plan.bodies]
    assert {len(events) for events in bodies} == {LOAD.events_per_request}
    used = {request.body for request in plan.requests if request.run < LOAD.delta_runs}
    assert {event.kind for index in used for event in bodies[index]} == {"message.delta"}
    others = {request.body for request in plan.requests if request.run >= LOAD.delta_runs}
    sizes = [len(event.payload_bytes) for index in others for event in bodies[index]]
    assert sum(sizes) / len(sizes) == pytest.approx(937, rel=0.25)
    assert max(sizes) > 30_000


def test_each_resumes_in_turn(plan: CityPlan) -> None:
    """As many as were asked for, evenly, nobody twice before all others."""
    assert len(plan.resumes) == LOAD.resumes == 40
    assert len({resume.watcher for resume in plan.resumes}) == 40
    assert all(0 < resume.due_s < LOAD.seconds for resume in plan.resumes)


def test_percentiles() -> None:
    """The value that so large a share of the sample does not exceed."""
    ascending = [float(number) for number in range(1, 101)]
    assert [percentile(ascending, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert Added.of([3.0, 1.0, 2.0]) == Added(2.0, 3.0, 3.0, 3.0, 3)
