import pytest

from tests.ci.docs_sign_in import PAGE, REQUIRED, find_authority_problems
from tests.postgres_cluster import ROOT
from tests.unit.ci.conftest import Plant

TEXT = (ROOT / PAGE).read_text(encoding="utf-8")


def test_the_page_says_it(plant: Plant) -> None:
    """CT-21: both sections, as they are."""
    assert find_authority_problems(plant({PAGE: TEXT})) == []


@pytest.mark.parametrize("title", REQUIRED)
def test_a_missing_section_is_found(plant: Plant, title: str) -> None:
    """By its title."""
    [problem] = find_authority_problems(plant({PAGE: TEXT.replace(f"## {title}", "## Other words")}))
    assert f"has no section {title}" in problem


@pytest.mark.parametrize(
    ("words", "others"),
    [("WorkOS is the authority", "Our table is the authority"), ("is derivative", "is the truth")],
)
def test_a_section_that_says_something_else_is_found(plant: Plant, words: str, others: str) -> None:
    """Not only that the section is there."""
    [problem] = find_authority_problems(plant({PAGE: TEXT.replace(words, others)}))
    assert "no longer says" in problem
