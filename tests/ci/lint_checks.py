"""Format, lint, cancellation safety and import direction: one outside tool each."""

import tomllib
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.ci.checks import CheckContext, Problems
from tests.ci.tools import run_module, run_script
from tests.ci.tree import PACKAGES, python_files

# What ruff does not know: cancellation and lifetimes. Left out: matters of taste (112, 124), lists of names to keep
# (114, 128), and exceptions whose context a cancellation would hide (120, 123), which here is always intended.
ASYNC_RULES: Final = tuple(
    f"ASYNC{number}" for number in (101, 102, 103, 104, 106, 111, 113, 118, 119, 121, 122)
)
# The parser of flake8-async takes 60 ms a file.
PROCESSES: Final = 2


def find_format_errors(context: CheckContext) -> Problems:
    """Run ruff's formatter without writing."""
    return run_module(context.root, "ruff", "format", "--check", "--quiet", ".")


def find_lint_errors(context: CheckContext) -> Problems:
    """Run ruff's linter with the families of pyproject.toml."""
    return run_module(context.root, "ruff", "check", "--quiet", "--output-format", "concise", ".")


def find_async_errors(context: CheckContext) -> Problems:
    """Run flake8-async on every file of the product that is async at all, half of them in each of two processes.

    Tests are left to ruff: what they cancel is the test.
    """
    names = [
        name
        for name in python_files(context.root)
        if not name.startswith("tests/") and "async " in (context.root / name).read_text(encoding="utf-8")
    ]
    enabled = ("--enable", ",".join(ASYNC_RULES))
    with ThreadPoolExecutor(PROCESSES) as pool:
        runs = [
            pool.submit(run_script, context.root, "flake8-async", *enabled, *names[part::PROCESSES])
            for part in range(PROCESSES)
            if names[part::PROCESSES]
        ]
    return [problem for run in runs for problem in run.result()]


def find_import_violations(context: CheckContext) -> Problems:
    """Run import-linter with the contracts of pyproject.toml, and see that they name every package."""
    table = tomllib.loads((context.root / "pyproject.toml").read_text(encoding="utf-8"))
    named = set(table["tool"]["importlinter"]["root_packages"])
    missing = [name for path in PACKAGES if (name := path.rpartition("/")[2]) not in named | {"tests"}]
    if missing:
        return [f"pyproject.toml:1: import-linter does not look at {', '.join(missing)}"]
    return run_script(context.root, "lint-imports", "--no-cache")
