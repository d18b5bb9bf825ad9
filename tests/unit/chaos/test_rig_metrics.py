"""Samples of ``/metrics`` by name and labels."""

import pytest

from chaos.load.rig_metrics import AdminPortError, is_ready, parse_metrics, read_metrics

# Nothing listens at the port of tcpmux.
NOBODY = "http://127.0.0.1:1"
TEXT = """\
# HELP khala_node_heals_total Journal reads that closed a gap.
# TYPE khala_node_heals_total counter
khala_node_heals_total 2.0
# HELP khala_node_records_total Driver records, by decision.
# TYPE khala_node_records_total counter
khala_node_records_total{decision="apply"} 40.0
khala_node_records_total{decision="hint"} 0.0
# HELP khala_node_actions_total Two labels.
# TYPE khala_node_actions_total counter
khala_node_actions_total{tier="hot",action="release"} 1.0
"""


def test_samples_are_found_by_name_and_sorted_labels() -> None:
    """However they were written."""
    assert parse_metrics(TEXT) == {
        "khala_node_heals_total": 2.0,
        'khala_node_records_total{decision="apply"}': 40.0,
        'khala_node_records_total{decision="hint"}': 0.0,
        'khala_node_actions_total{action="release",tier="hot"}': 1.0,
    }


def test_a_process_that_does_not_answer_is_not_ready() -> None:
    """And has no figures."""
    assert not is_ready(NOBODY)
    with pytest.raises(AdminPortError, match="metrics"):
        read_metrics(NOBODY)
