"""Unit tests of khala.cli.topics."""

from __future__ import annotations

import json

import attrs
import pytest

from khala.cli.main import main
from khala.cli.topics import class_record, parse_topic_argument
from khala_contracts.topics import TOPIC_CLASSES, TopicClass, TopicInvalid

UUID = "01fwhe4yddfk4scvajq9ww84cz"


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        (f"run_{UUID}", f"run:run_{UUID}:events"),
        (f"wrk_{UUID}", f"worker:wrk_{UUID}:events"),
        (f"run:run_{UUID}:events", f"run:run_{UUID}:events"),
        (f"app:org_{UUID}:news", f"app:org_{UUID}:news"),
    ],
)
def test_a_topic_may_be_named_by_its_run_or_worker(text: str, topic: str) -> None:
    """What other commands print can be given to this one."""
    assert parse_topic_argument(text) == topic


@pytest.mark.parametrize("text", ["", "run", f"usr_{UUID}", f"run_{UUID}x", f"run:run_{UUID}:events:x"])
def test_anything_else_is_refused_by_the_grammar(text: str) -> None:
    """No prefix of a name and no other id stands for a topic."""
    with pytest.raises(TopicInvalid):
        parse_topic_argument(text)


@pytest.mark.parametrize("row", TOPIC_CLASSES.values(), ids=lambda row: row.name)
def test_every_attribute_of_a_class_is_in_its_record(row: TopicClass) -> None:
    """A new attribute of the registry cannot be forgotten here."""
    record = class_record(row)
    assert {field.name for field in attrs.fields(TopicClass)} == record.keys() - {"type"}
    assert json.loads(json.dumps(record)) == record


def test_the_registry_is_listed_for_people_and_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    """Both show every class; no system has to run for it."""
    with pytest.raises(SystemExit):
        main(["topics", "--json"])
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == [*TOPIC_CLASSES]
    with pytest.raises(SystemExit):
        main(["topics"])
    shown = capsys.readouterr().out
    for row in TOPIC_CLASSES.values():
        assert row.pattern in shown
        assert row.readers in shown
