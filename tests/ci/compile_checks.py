"""The whole tree parses, every module of it imports, and types check: product, chaos and tests alike."""

import ast
import json
import subprocess
import sys

from tests.ci.checks import CheckContext, Problems
from tests.ci.tools import run_module
from tests.ci.tree import PACKAGES, child_environment, module_name, python_files

IMPORT_TIMEOUT_S = 120.0
# Programs without a main function: they run when imported, and a test runs them.
PROGRAMS = frozenset({"tests/contract/decode_without_khala.py"})
# Imports in one child: a broken module costs a line, not the rest, and none of it touches our own process.
_IMPORTER = """
import importlib, importlib.util, json, sys, traceback
broken = []
modules, folders = json.load(sys.stdin)
sys.path += folders
for path, name in modules:
    try:
        if name:
            importlib.import_module(name)
        else:
            spec = importlib.util.spec_from_file_location("script", path)
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(path)]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
        broken.append(f"{path}:{frames[-1].lineno if frames else line or 1}: {type(error).__name__}: {error}")
print(json.dumps(broken))
"""


def find_syntax_errors(context: CheckContext) -> Problems:
    """Parse every Python file."""
    problems = []
    for name in python_files(context.root):
        try:
            ast.parse((context.root / name).read_text(encoding="utf-8"), name)
        except SyntaxError as error:
            problems.append(f"{name}:{error.lineno}: {error.msg}")
    return problems


def find_import_errors(context: CheckContext) -> Problems:
    """Import every module; `__main__` modules run when imported and are left to their own tests."""
    scripts = _scripts(context)
    modules = [
        (name, "" if name in scripts else module_name(name))
        for name in python_files(context.root)
        if not name.endswith("__main__.py") and name not in PROGRAMS
    ]
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTER],
        cwd=context.root,
        env=child_environment(context.root, PYTHONDONTWRITEBYTECODE="1"),
        input=json.dumps([modules, _folders(context, scripts)]),
        capture_output=True,
        text=True,
        timeout=IMPORT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        return ["importing all modules ended the interpreter:", *done.stderr.splitlines()[-10:]]
    broken: Problems = json.loads(done.stdout.splitlines()[-1])
    return broken


def find_type_errors(context: CheckContext) -> Problems:
    """Run mypy in its strict mode on every package named in pyproject.toml, then on the scripts beside them."""
    problems = run_module(context.root, "mypy", "--no-error-summary")
    scripts = _scripts(context)
    for folder in _folders(context, scripts):
        names = [name for name in scripts if str((context.root / name).parent) == folder]
        environment = {"MYPYPATH": folder}
        problems += run_module(context.root, "mypy", "--no-error-summary", *names, environment=environment)
    return problems


def _scripts(context: CheckContext) -> list[str]:
    """Return the files outside every package: they are run by path, and import from their own folder."""
    packages = tuple(f"{path}/" for path in PACKAGES)
    return [name for name in python_files(context.root) if not name.startswith(packages)]


def _folders(context: CheckContext, scripts: list[str]) -> list[str]:
    return sorted({str((context.root / name).parent) for name in scripts})
