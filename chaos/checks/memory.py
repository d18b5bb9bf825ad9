"""What is kept in memory, against its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.checks.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chaos.transcripts import SampleLine

__all__ = ["check_memory"]


def check_memory(samples: Iterable[SampleLine], bounds: Mapping[str, float]) -> list[Violation]:
    """Judge that no sample is above the bound of its name, and that each bound was looked at.

    Rules: ``memory``, and ``unmeasured``, because what nobody measures is not bounded. Of each source and name
    only the highest sample is told. Samples without a bound are no concern.
    """
    highest: dict[tuple[str, str], SampleLine] = {}
    for sample in samples:
        if sample.name not in bounds:
            continue
        known = highest.setdefault((sample.source, sample.name), sample)
        if sample.value > known.value:
            highest[sample.source, sample.name] = sample
    violations = [
        Violation(
            "memory",
            source,
            "",
            0,
            f"{name} was {sample.value:g} at {sample.at_s:.3f}, the bound is {bounds[name]:g}",
        )
        for (source, name), sample in highest.items()
        if sample.value > bounds[name]
    ]
    measured = {name for _, name in highest}
    return violations + [
        Violation("unmeasured", name, "", 0, "no sample of it") for name in bounds if name not in measured
    ]
