from tests.ci import lint_checks
from tests.unit.ci.conftest import Plant


def test_badly_formatted_file_fails(plant: Plant) -> None:
    """The formatter's opinion is a gate."""
    problems = lint_checks.find_format_errors(plant({"a.py": "x=1\n"}))
    assert any("a.py" in problem for problem in problems)


def test_lint_error_names_file_and_line(plant: Plant) -> None:
    """The linter's problems have file and line."""
    assert any(
        "a.py:1:" in problem for problem in lint_checks.find_lint_errors(plant({"a.py": "import os\n"}))
    )


def test_unshielded_cleanup_fails(plant: Plant) -> None:
    """An await in `finally` without a shield is what flake8-async is here for."""
    text = "import trio\nasync def f():\n    try:\n        pass\n    finally:\n        await trio.sleep(1)\n"
    problems = lint_checks.find_async_errors(plant({"a.py": text}))
    assert any("a.py:6" in problem and "ASYNC102" in problem for problem in problems)


def test_package_without_contract_fails(plant: Plant) -> None:
    """A package that import-linter does not look at is named."""
    context = plant({"pyproject.toml": '[tool.importlinter]\nroot_packages = ["khala"]\n'})
    [problem] = lint_checks.find_import_violations(context)
    assert problem.startswith("pyproject.toml:1: import-linter does not look at khala_contracts, ")


def test_upward_import_fails(plant: Plant) -> None:
    """A forbidden direction is refused by the real tool."""
    packages = [
        "khala_contracts",
        "khala_client",
        "khala_service",
        "fanout_drivers",
        "runtime",
        "control",
        "khala",
        "chaos",
    ]
    folders = {
        "khala_contracts": "proto/",
        "khala_client": "khala/client/",
        "khala_service": "khala/service/",
    }
    context = plant({f"{folders.get(name, '')}{name}/__init__.py": "" for name in packages})
    plant(
        {
            "pyproject.toml": f"[tool.importlinter]\nroot_packages = {packages}\n"
            "[[tool.importlinter.contracts]]\nname = 'up'\ntype = 'forbidden'\n"
            "source_modules = ['control']\nforbidden_modules = ['runtime']\n",
            "control/app.py": "import runtime\n",
        }
    )
    assert any("control.app -> runtime" in problem for problem in lint_checks.find_import_violations(context))
