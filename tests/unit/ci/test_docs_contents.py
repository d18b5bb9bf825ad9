import pytest

from tests.ci import docs_contents
from tests.unit.ci.conftest import Plant

ARCHITECTURE = "canonical: architecture\n\n## Current state and target\n\nx\n"
PROJECT = """[build-system]
requires = ["hatchling>=1"]
[project]
version = "0.2.0"
dependencies = ["trio>=0.3", "pyjwt[crypto]>=2"]
[project.optional-dependencies]
test = ["pytest>=9"]
"""


def test_one_canonical_architecture(plant: Plant) -> None:
    """The architecture claims it, and nobody else may."""
    assert docs_contents.find_architecture_problems(plant({"runbooks/architecture.md": ARCHITECTURE})) == []
    second = plant({"runbooks/other.md": "canonical: architecture"})
    [problem] = docs_contents.find_architecture_problems(second)
    assert "found ['runbooks/architecture.md:1', 'runbooks/other.md:1']" in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ARCHITECTURE + "## Backlog\n", "section Backlog belongs to a roadmap"),
        (
            ARCHITECTURE.replace("Current state and target", "State"),
            "has no section Current state and target",
        ),
    ],
)
def test_architecture_is_no_roadmap_and_is_honest(plant: Plant, text: str, words: str) -> None:
    """A backlog in it, and the missing statement of what runs today, are refused."""
    [problem] = docs_contents.find_architecture_problems(plant({"runbooks/architecture.md": text}))
    assert words in problem


def test_glossary_terms_have_sentence_and_number(plant: Plant) -> None:
    """20 terms, each once, each with a sentence and a number."""
    good = "| term | meaning |\n|---|---|\n" + "".join(f"| t{n} | Is {n}. |\n" for n in range(20))
    assert docs_contents.find_glossary_problems(plant({"runbooks/glossary.md": good})) == []
    bad = good.replace("| t3 | Is 3. |", "| t2 | words |")
    assert docs_contents.find_glossary_problems(plant({"runbooks/glossary.md": bad})) == [
        "runbooks/glossary.md:6: t2 is explained twice",
        "runbooks/glossary.md:6: t2 has no number",
        "runbooks/glossary.md:6: t2 has no sentence",
        "runbooks/glossary.md:1: 19 terms, at least 20 are expected",
    ]


def test_dependencies_match_the_project(plant: Plant) -> None:
    """Every dependency has a line; a line without dependency or reason is refused."""
    rows = "| package | for |\n|---|---|\n| `trio` | loops |\n| `pyjwt` | tokens |\n| `pytest` | tests |\n"
    good = {"pyproject.toml": PROJECT, "runbooks/dependencies.md": rows + "| `hatchling` | builds |\n"}
    assert docs_contents.find_dependency_problems(plant(good)) == []
    bad = {
        "pyproject.toml": PROJECT,
        "runbooks/dependencies.md": rows.replace("loops", "") + "| `six` | old |\n",
    }
    assert docs_contents.find_dependency_problems(plant(bad)) == [
        "runbooks/dependencies.md:1: hatchling has no line",
        "runbooks/dependencies.md:6: six is no dependency",
        "runbooks/dependencies.md:3: trio does not say what it is for",
    ]


def test_versions_and_needs_of_both_distributions_agree(plant: Plant) -> None:
    """Changelog, server and client have one version; a package that both need is needed alike."""
    client = '[project]\nversion = "0.2.0"\ndependencies = ["trio>=0.3"]\n'
    good = {
        "pyproject.toml": PROJECT,
        "runbooks/changelog.md": "# Changes\n\n## 0.2.0 (2026-11-21)\n",
        "khala/client/pyproject.toml": client,
    }
    assert docs_contents.find_version_problems(plant(good)) == []
    bad = {
        "runbooks/changelog.md": "# Changes\n\n## 0.1.0\n",
        "khala/client/pyproject.toml": client.replace("0.2.0", "0.1.9").replace("0.3", "0.4"),
    }
    assert docs_contents.find_version_problems(plant(bad)) == [
        "runbooks/changelog.md:3: newest entry is not 0.2.0",
        "khala/client/pyproject.toml:1: version 0.1.9 is not 0.2.0",
        "khala/client/pyproject.toml:1: trio>=0.4 is not what pyproject.toml needs",
    ]


def test_figure_names_files_that_exist(plant: Plant) -> None:
    """README's first figure is the way of one event; a file in it that is gone is named with its line."""
    text = (
        "# K\n```sh\nx\n```\n\n```\nPOST /v1/runs/{id}/events   runtime/a.py\n  decide   runtime/b.py\n```\n"
    )
    context = plant({"README.md": text, "runtime/a.py": ""})
    assert docs_contents.find_figure_problems(context) == ["README.md:8: no such file runtime/b.py"]
    other = plant({"README.md": "```\nhello\n```"})
    assert docs_contents.find_figure_problems(other) == [
        "README.md:1: the first figure is not the way of one event"
    ]
