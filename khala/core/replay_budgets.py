"""Replay budgets: the registry's, unless the configuration of the node says otherwise for a class.

Applied where a subscribe is taken in, so that everything that looks at the class of a subscription
(classification, headroom, metrics) sees one number. The registry itself is never changed: what it
says about a topic beyond this node stays true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from khala.core.limits import NodeLimits
    from khala_contracts.topics import ParsedTopic


def with_budget(parsed: ParsedTopic, limits: NodeLimits) -> ParsedTopic:
    """Return the topic with the replay budget that holds on this node, inclusive as the registry's."""
    row = parsed.topic_class
    events = limits.replay_budget_events.get(row.name, row.replay_budget_events)
    size_bytes = limits.replay_budget_bytes.get(row.name, row.replay_budget_bytes)
    if (events, size_bytes) == (row.replay_budget_events, row.replay_budget_bytes):
        return parsed
    row = attrs.evolve(row, replay_budget_events=events, replay_budget_bytes=size_bytes)
    return attrs.evolve(parsed, topic_class=row)
