import os
import subprocess

import pytest

from tests.ci.tree import child_environment, module_name, python_files, tree_files
from tests.unit.ci.conftest import Plant

FILES = {
    "khala/a.py": "",
    "khala/__pycache__/a.pyc": "",
    "proto/khala_contracts/gen/x_pb2.py": "",
    "notes.txt": "",
    ".gitignore": "*.txt\n__pycache__/\n",
}


def test_export_is_walked_without_caches(plant: Plant) -> None:
    """Without git every file counts but what tools leave behind."""
    root = plant(FILES).root
    assert tree_files(root) == [
        ".gitignore",
        "khala/a.py",
        "notes.txt",
        "proto/khala_contracts/gen/x_pb2.py",
    ]
    assert python_files(root) == ["khala/a.py"]


def test_working_copy_is_asked_through_git(plant: Plant) -> None:
    """Ignored files do not count, new ones do, and one that was deleted is gone."""
    root = plant(FILES).root
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for arguments in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *arguments], cwd=root, env=environment, check=True)
    (root / "khala/a.py").unlink()
    (root / "khala/b.py").touch()
    assert tree_files(root) == [".gitignore", "khala/b.py", "proto/khala_contracts/gen/x_pb2.py"]


def test_child_imports_from_this_tree_first(plant: Plant) -> None:
    """The path of a child has the four folders of the tree, and what was asked for."""
    root = plant({}).root
    environment = child_environment(root, EXTRA="1")
    assert environment["PYTHONPATH"].split(os.pathsep) == [
        str(root),
        *(str(root / parent) for parent in ("proto", "khala/client", "khala/service")),
    ]
    assert environment["EXTRA"] == "1"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("proto/khala_contracts/topics.py", "khala_contracts.topics"),
        ("khala/client/khala_client/__init__.py", "khala_client"),
        ("khala/app.py", "khala.app"),
        ("proto/generate.py", "generate"),
    ],
)
def test_module_names_are_those_of_the_installation(path: str, name: str) -> None:
    """A file's import name follows from the folders that are put on the path."""
    assert module_name(path) == name
