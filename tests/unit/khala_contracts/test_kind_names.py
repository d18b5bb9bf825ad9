"""What other tools call our kinds."""

import pytest

from khala_contracts import kind_names
from khala_contracts.kinds import kinds_of

TABLES = {
    "SWE-agent steps": list(kind_names.SWE_AGENT_STEP_KINDS.values()),
    "SWE-agent history": list(kind_names.SWE_AGENT_HISTORY_KINDS.values()),
    "Codex events": list(kind_names.CODEX_EVENT_KINDS.values()),
    "Codex items": [
        kind for pair in kind_names.CODEX_ITEM_KINDS.values() for kind in pair if kind is not None
    ],
    "Claude Code hooks": list(kind_names.CLAUDE_CODE_HOOK_KINDS.values()),
    "AG-UI": list(kind_names.AG_UI_KINDS.values()),
}


@pytest.mark.parametrize("table", TABLES)
def test_every_name_leads_to_a_kind_of_runs(table: str) -> None:
    """What is mapped can be appended."""
    assert set(TABLES[table]) <= set(kinds_of("run_events"))


def test_a_step_happens_in_the_order_of_its_table() -> None:
    """Thought, then action, then observation."""
    assert list(kind_names.SWE_AGENT_STEP_KINDS) == ["thought", "action", "observation"]


def test_what_has_no_counterpart_is_custom() -> None:
    """Nothing of a recording is lost."""
    assert kind_names.CUSTOM_KIND in kinds_of("run_events")
