from tests.ci import release
from tests.unit.ci.conftest import Plant

LICENCES = ["x-1.dist-info/licenses/LICENSE", "x-1.dist-info/licenses/NOTICE"]


def test_wheel_has_exactly_its_packages() -> None:
    """A missing package, a stranger and a missing licence are each named."""
    good = ["a/__init__.py", "b/c.py", *LICENCES]
    assert release.judge_wheel(".", good, frozenset({"a", "b"})) == []
    assert release.judge_wheel(".", ["a/x.py", "tests/t.py", LICENCES[1]], frozenset({"a", "b"})) == [
        ".: the wheel lacks b",
        ".: the wheel contains tests",
        ".: the wheel lacks LICENSE",
    ]


def test_wheel_has_the_live_page(plant: Plant) -> None:
    """A built file that is left out is named, and so is a tree without any."""
    names = ["a/__init__.py", "control/web_shell/dist/index.html", *LICENCES]
    packages = frozenset({"a", "control"})
    files = ["control/web_shell/dist/index.html", "control/web_shell/dist/sw.js"]
    assert release.judge_wheel(".", names, packages, files=files) == [
        ".: the wheel lacks control/web_shell/dist/sw.js"
    ]
    assert release.find_wheel_problems(plant({"a/__init__.py": ""})) == [
        "control/web_shell/dist/:1: the live page is not built"
    ]


def test_history_of_the_minor_version_is_kept(plant: Plant) -> None:
    """A version without its fixtures cannot be released."""
    context = plant({"pyproject.toml": '[project]\nversion = "0.2.3"\n', "proto/fixtures/0.1/a.json": ""})
    assert release.find_missing_history(context) == [
        "proto/fixtures/0.2/:1: no fixtures of version 0.2.3 are kept"
    ]
    assert release.find_missing_history(plant({"proto/fixtures/0.2/a.json": ""})) == []


def test_project_without_a_build_file(plant: Plant) -> None:
    """A distribution that cannot be built is named before pip is asked."""
    assert release.find_client_wheel_problems(plant({})) == ["khala/client/pyproject.toml:1: missing"]
