from tests.ci import compile_checks
from tests.unit.ci.conftest import Plant


def test_syntax_error_names_file_and_line(plant: Plant) -> None:
    """A file that does not parse is named."""
    context = plant({"khala/a.py": "x = 1\ny = = 2\n"})
    assert compile_checks.find_syntax_errors(context) == ["khala/a.py:2: invalid syntax"]


def test_unresolved_import_fails_in_every_target(plant: Plant) -> None:
    """Product, chaos and tests alike; the rest is still imported and good modules are not blamed."""
    context = plant(
        {
            "khala/a.py": "\nimport no_such_module\n",
            "khala/good.py": "import khala_contracts.topics\n",
            "proto/khala_contracts/topics.py": "",
            "tests/unit/test_a.py": "from khala.good import nothing\n",
            "khala/__main__.py": "raise SystemExit(3)\n",
            # Regular packages, or those of an installation would come first.
            "khala/__init__.py": "",
            "proto/khala_contracts/__init__.py": "",
            "tests/__init__.py": "",
        }
    )
    assert compile_checks.find_import_errors(context) == [
        "khala/a.py:2: ModuleNotFoundError: No module named 'no_such_module'",
        "tests/unit/test_a.py:1: ImportError: cannot import name 'nothing' from 'khala.good' "
        f"({context.root / 'khala/good.py'})",
    ]


def test_type_checker_runs_on_the_tree(plant: Plant) -> None:
    """An import inside a function is not seen by importing; the type checker sees it."""
    config = '[tool.mypy]\npackages = ["khala"]\nstrict = true\n'
    files = {
        "pyproject.toml": config,
        "khala/__init__.py": "",
        "khala/a.py": "def f() -> None:\n    import no_such_module\n",
    }
    [problem, *_] = compile_checks.find_type_errors(plant(files))
    assert problem.startswith("khala/a.py:2: error: ")
    assert "no_such_module" in problem
