"""Every link, file name and lane that a document names exists."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from tests.ci.boundaries import TOP_LEVEL
from tests.ci.checks import CheckContext, Problems
from tests.ci.markdown import anchors, code_spans, links
from tests.ci.tree import tree_files

_OUTSIDE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_FOLDERS = "|".join(sorted(name for name in TOP_LEVEL if "." not in name and name.islower()))
_PATH = re.compile(rf"^(?:{_FOLDERS}|\.ci|\.githooks)/[\w./-]*$")
_LANE_COMMAND = re.compile(r"python3? -m tests\.ci((?: [a-z]+)+)")
# History tells what once was: the changelog may name what is gone.
_HISTORY = frozenset({"runbooks/changelog.md"})


def documents(context: CheckContext) -> Iterator[tuple[str, str]]:
    """Yield name and text of every Markdown file."""
    for name in tree_files(context.root):
        if name.endswith(".md"):
            yield name, (context.root / name).read_text(encoding="utf-8")


def find_dead_links(context: CheckContext) -> Problems:
    """Relative links resolve to a file or folder of the tree, and their fragment to a heading."""
    files = set(tree_files(context.root))
    folders = {parent.as_posix() for name in files for parent in Path(name).parents}
    problems = []
    for name, text in documents(context):
        for line, target in links(text):
            if _OUTSIDE.match(target):
                continue
            path, _, fragment = target.partition("#")
            resolved = _resolve(name, unquote(path)) if path else name
            if resolved not in files | folders:
                problems.append(f"{name}:{line}: dead link {target}")
            elif fragment and resolved.endswith(".md") and fragment not in _anchors_of(context, resolved):
                problems.append(f"{name}:{line}: {resolved} has no heading for #{fragment}")
    return problems


def find_missing_paths(context: CheckContext) -> Problems:
    """A path of this repository written as code exists; `a/b.py::test_x` is judged by its file."""
    files = tree_files(context.root)
    known = set(files) | {parent.as_posix() for name in files for parent in Path(name).parents}
    problems = []
    for name, text in documents(context):
        if name in _HISTORY:
            continue
        for line, span in code_spans(text):
            path = span.partition("::")[0].rstrip("/")
            if _PATH.match(span.partition("::")[0]) and path not in known:
                problems.append(f"{name}:{line}: no such file {path}")
    return problems


def find_unknown_lanes(context: CheckContext) -> Problems:
    """Every lane that a document tells to run is one that `--list` prints."""
    from tests.ci.lanes import LANE_NAMES

    known = {*LANE_NAMES, "all"}
    problems = []
    for name, text in documents(context):
        for number, line in enumerate(text.splitlines(), start=1):
            for found in _LANE_COMMAND.finditer(line):
                unknown = [lane for lane in found.group(1).split() if lane not in known]
                problems += [f"{name}:{number}: there is no lane {lane}" for lane in unknown]
    return problems


def _anchors_of(context: CheckContext, name: str) -> set[str]:
    return anchors((context.root / name).read_text(encoding="utf-8"))


def _resolve(document: str, target: str) -> str:
    parts: list[str] = [] if target.startswith("/") else list(Path(document).parent.parts)
    for part in target.strip("/").split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts) or "."
