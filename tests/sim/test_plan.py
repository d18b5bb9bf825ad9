"""A seed is a plan, a plan can be made smaller, and the smallest one that fails is found."""

from __future__ import annotations

from collections import Counter

import attrs

from chaos.sim.plan import Plan, make_plan
from chaos.sim.shrink import shrink
from chaos.sim.steps import ACTIONS, FAULTS
from chaos.sim.verdict import Verdict
from khala.core.limits import NodeLimits
from runtime.core.limits import RuntimeLimits


def _judged(plan: Plan, findings: tuple[str, ...]) -> Verdict:
    return Verdict(plan.seed, "", findings, (), {}, 0, 0, 0.0)


def test_a_seed_is_a_plan() -> None:
    """Equal seeds are equal plans; plans are within what a configuration may say."""
    for seed in range(200):
        plan = make_plan(seed)
        assert plan == make_plan(seed)
        NodeLimits(**plan.node_limits)  # type: ignore[arg-type]
        RuntimeLimits(**plan.runtime_limits)
        assert list(plan.steps) == sorted(plan.steps, key=lambda step: (step.at_s, step.number))
        assert all(step.at_s + step.lasts_s <= plan.faults_end_s + 1e-9 for step in plan.steps)


def test_every_kind_is_drawn() -> None:
    """No action and no fault is only a name."""
    drawn = Counter(step.kind for seed in range(600) for step in make_plan(seed).steps)
    assert set(drawn) == {each.kind for each in (*ACTIONS, *FAULTS)}


def test_a_failing_plan_is_made_small() -> None:
    """Two steps that fail together, and one client, are all that is left."""
    plan = next(plan for plan in map(make_plan, range(100)) if len(plan.steps) > 25 and len(plan.clients) > 2)
    guilty = {plan.steps[3].number, plan.steps[-2].number}
    client = plan.clients[1].name
    tried = 0

    def run(smaller: Plan) -> Verdict:
        nonlocal tried
        tried += 1
        fails = guilty <= {step.number for step in smaller.steps} and client in {
            each.name for each in smaller.clients
        }
        return _judged(smaller, ("it fails",) if fails else ())

    # Steps of clients that are left out go with them; these two are the producers'.
    plan = attrs.evolve(plan, steps=tuple(attrs.evolve(step, who="run-1") for step in plan.steps))
    smallest, verdict = shrink(plan, tell=lambda _: None, run=run)
    assert {step.number for step in smallest.steps} == guilty
    assert [each.name for each in smallest.clients] == [client]
    assert not verdict.is_good
    assert tried < 120


def test_a_good_plan_stays_as_it_is() -> None:
    """Nothing is tried."""
    plan = make_plan(1)
    assert shrink(plan, tell=lambda _: None, run=lambda each: _judged(each, ()))[0] is plan
