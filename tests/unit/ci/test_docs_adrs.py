import pytest

from tests.ci import docs_adrs
from tests.unit.ci.conftest import Plant

RECORD = """# ADR-0001 One

## Status

Accepted

## Date

2026-11-21

## Context

c

## Decision

d

## Rationale

r

## Consequences

q
"""
TREE = {
    "runbooks/adr/README.md": "[ADR-0001](ADR-0001-one.md)",
    "runbooks/adr/template.md": RECORD,
    "runbooks/adr/ADR-0001-one.md": RECORD,
}


def test_complete_record_has_no_problem(plant: Plant) -> None:
    """A record with every section, a status, a date and a line in the index passes."""
    assert docs_adrs.find_adr_problems(plant(TREE)) == []


@pytest.mark.parametrize("title", docs_adrs.SECTIONS)
def test_missing_section_is_named(plant: Plant, title: str) -> None:
    """Each section is required."""
    context = plant({**TREE, "runbooks/adr/ADR-0001-one.md": RECORD.replace(f"## {title}\n", "")})
    assert f"runbooks/adr/ADR-0001-one.md:1: section {title} is missing" in docs_adrs.find_adr_problems(
        context
    )


def test_empty_section_is_named(plant: Plant) -> None:
    """A heading alone is no section."""
    context = plant({**TREE, "runbooks/adr/ADR-0001-one.md": RECORD.replace("\nr\n", "\n")})
    assert docs_adrs.find_adr_problems(context) == [
        "runbooks/adr/ADR-0001-one.md:19: section Rationale is empty"
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Accepted", "Superseded by something", "status is none of"),
        ("2026-11-21", "21 November", "date is not"),
    ],
)
def test_status_and_date_have_a_form(plant: Plant, old: str, new: str, words: str) -> None:
    """A superseded record links its successor; a date is ISO."""
    context = plant({**TREE, "runbooks/adr/ADR-0001-one.md": RECORD.replace(old, new)})
    [problem] = docs_adrs.find_adr_problems(context)
    assert words in problem


def test_superseded_record_with_link_passes(plant: Plant) -> None:
    """The form of a successor is a link to its file."""
    old = RECORD.replace("Accepted", "Superseded by [ADR-0002](ADR-0002-two.md)")
    context = plant(
        {
            **TREE,
            "runbooks/adr/README.md": "[1](ADR-0001-one.md) [2](ADR-0002-two.md)",
            "runbooks/adr/ADR-0001-one.md": old,
            "runbooks/adr/ADR-0002-two.md": RECORD,
        }
    )
    assert docs_adrs.find_adr_problems(context) == []


def test_numbers_are_dense_and_unique(plant: Plant) -> None:
    """A hole and a repeated number are both refused; an unlisted record too."""
    hole = docs_adrs.find_adr_problems(plant({**TREE, "runbooks/adr/ADR-0003-three.md": RECORD}))
    assert hole == [
        "runbooks/adr:1: numbers are not 1..2: [1, 3]",
        "runbooks/adr/README.md:1: does not list runbooks/adr/ADR-0003-three.md",
    ]
    twice = docs_adrs.find_adr_problems(plant({"runbooks/adr/ADR-0001-again.md": RECORD}))
    assert "runbooks/adr:1: numbers are not 1..3: [1, 1, 3]" in twice


def test_harvest_needs_every_cell(plant: Plant) -> None:
    """A pattern without a way back is refused, and so are too few patterns."""
    row = "| p | r | f | b |\n"
    head = "| pattern | rationale | flag | rollback |\n|---|---|---|---|\n"
    good = f"## Adopted\n\n{head}{row * 4}\n## Rejected\n\n{head}{row * 3}"
    assert docs_adrs.find_harvest_problems(plant({"runbooks/adr/ADR-0004-x.md": good})) == []
    bad = good.replace("| p | r | f | b |\n\n##", "| p | r | f | |\n\n##")
    [problem] = docs_adrs.find_harvest_problems(plant({"runbooks/adr/ADR-0004-x.md": bad}))
    assert (
        problem == "runbooks/adr/ADR-0004-x.md:1: Adopted: p lacks one of pattern, rationale, flag, rollback"
    )


def test_replay_record_names_the_discard_rule(plant: Plant) -> None:
    """ADR-0003 must state `seq <= last_applied` and carry the generated reasons."""
    problems = docs_adrs.find_replay_problems(plant({"runbooks/adr/ADR-0003-x.md": "words"}))
    assert problems[0] == "runbooks/adr/ADR-0003-x.md:1: does not contain `seq <= last_applied`"
    assert len(problems) == 2
