"""Makes a failing plan small: the fewest steps and clients that still show something.

Leaves out halves, quarters, ... single steps, then single clients, for as long as anything is found. What
remains may show another finding than the whole: both are wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.sim.verdict import run_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.sim.plan import Plan
    from chaos.sim.verdict import Verdict

__all__ = ["shrink"]


def shrink(
    plan: Plan, *, tell: Callable[[str], None], run: Callable[[Plan], Verdict] = run_plan
) -> tuple[Plan, Verdict]:
    """Return the smallest plan that was found, and its verdict.

    Args:
        plan: One that fails; a plan that does not is returned as it is.
        tell: Is told how far it has come.
        run: Lives a plan.
    """
    verdict = run(plan)
    if verdict.is_good:
        return plan, verdict
    plan, verdict = _without_steps(plan, verdict, tell, run)
    for client in plan.clients:
        if len(plan.clients) == 1:
            break
        smaller = plan.without(clients=frozenset({client.name}))
        tried = run(smaller)
        if not tried.is_good:
            plan, verdict = smaller, tried
            tell(f"without {client.name}: {len(plan.steps)} steps, {len(plan.clients)} clients")
    return _without_steps(plan, verdict, tell, run)


def _without_steps(
    plan: Plan, verdict: Verdict, tell: Callable[[str], None], run: Callable[[Plan], Verdict]
) -> tuple[Plan, Verdict]:
    size = max(1, len(plan.steps) // 2)
    while plan.steps:
        at = 0
        while at < len(plan.steps):
            left_out = frozenset(step.number for step in plan.steps[at : at + size])
            smaller = plan.without(steps=left_out)
            tried = run(smaller)
            if tried.is_good:
                at += size
            else:
                plan, verdict = smaller, tried
                tell(f"{len(plan.steps)} steps are left")
        if size == 1:
            break
        size //= 2
    return plan, verdict
