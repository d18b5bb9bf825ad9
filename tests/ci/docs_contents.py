"""What particular documents must contain: one canonical architecture, glossary, dependencies, changelog, README."""

import re
import tomllib

from tests.ci.checks import CheckContext, Problems
from tests.ci.docs_links import documents
from tests.ci.markdown import fenced_blocks, headings, prose_lines, table_rows
from tests.ci.tree import tree_files

ARCHITECTURE = "runbooks/architecture.md"
CURRENT_AND_TARGET = "Current state and target"
GLOSSARY = "runbooks/glossary.md"
GLOSSARY_TERMS = 20
DEPENDENCIES = "runbooks/dependencies.md"
CLIENT_PROJECT = "khala/client/pyproject.toml"
CHANGELOG = "runbooks/changelog.md"
FIGURE_FIRST_LINE = "POST /v1/runs/{id}/events"
_CLAIM = re.compile(r"^canonical: architecture$")
_BACKLOG = re.compile(r"backlog|roadmap|milestone", re.IGNORECASE)
_SOURCE = re.compile(r"[\w./-]+\.(?:py|sql)\b")


def find_architecture_problems(context: CheckContext) -> Problems:
    """Exactly one file claims to be canonical; it says what runs and what is a target, and keeps no backlog."""
    claims = [
        f"{name}:{line}"
        for name, text in documents(context)
        for line, words in prose_lines(text)
        if _CLAIM.match(words.strip())
    ]
    problems = []
    if [claim.rpartition(":")[0] for claim in claims] != [ARCHITECTURE]:
        problems.append(
            f"{ARCHITECTURE}:1: must be the one file that claims canonical: architecture; found {claims}"
        )
    titles = headings(_read(context, ARCHITECTURE))
    if CURRENT_AND_TARGET not in [title for _, _, title in titles]:
        problems.append(f"{ARCHITECTURE}:1: has no section {CURRENT_AND_TARGET}")
    problems += [
        f"{ARCHITECTURE}:{line}: section {title} belongs to a roadmap"
        for line, _, title in titles
        if _BACKLOG.search(title)
    ]
    return problems


def find_glossary_problems(context: CheckContext) -> Problems:
    """At least 20 terms, each once, each with a sentence and a number."""
    rows = table_rows(_read(context, GLOSSARY))
    problems = []
    seen: set[str] = set()
    for line, cells in rows:
        term, meaning = cells[0], " ".join(cells[1:])
        if term in seen:
            problems.append(f"{GLOSSARY}:{line}: {term} is explained twice")
        seen.add(term)
        if not re.search(r"\d", meaning):
            problems.append(f"{GLOSSARY}:{line}: {term} has no number")
        if not re.search(r"\w\.( |$)", meaning):
            problems.append(f"{GLOSSARY}:{line}: {term} has no sentence")
    if len(seen) < GLOSSARY_TERMS:
        problems.append(f"{GLOSSARY}:1: {len(seen)} terms, at least {GLOSSARY_TERMS} are expected")
    return problems


def find_dependency_problems(context: CheckContext) -> Problems:
    """Each dependency of pyproject.toml earns its place in one line, and no line outlives its dependency."""
    project = tomllib.loads(_read(context, "pyproject.toml"))
    needed = list(project["project"]["dependencies"]) + list(project["build-system"]["requires"])
    for group in project["project"].get("optional-dependencies", {}).values():
        needed += group
    wanted = {distribution(line) for line in needed}
    rows = {
        cells[0].strip("`").lower(): (line, cells) for line, cells in table_rows(_read(context, DEPENDENCIES))
    }
    problems = [f"{DEPENDENCIES}:1: {name} has no line" for name in sorted(wanted - set(rows))]
    problems += [
        f"{DEPENDENCIES}:{rows[name][0]}: {name} is no dependency" for name in sorted(set(rows) - wanted)
    ]
    problems += [
        f"{DEPENDENCIES}:{line}: {name} does not say what it is for"
        for name, (line, cells) in rows.items()
        if len(cells) < 2 or not all(cells)
    ]
    return problems


def find_version_problems(context: CheckContext) -> Problems:
    """The newest entry of the changelog is the version of both distributions; the client's needs are the same."""
    project = tomllib.loads(_read(context, "pyproject.toml"))["project"]
    version = project["version"]
    entries = [(line, title) for line, level, title in headings(_read(context, CHANGELOG)) if level == 2]
    problems = []
    if not entries or entries[0][1].split()[0] != version:
        problems.append(f"{CHANGELOG}:{entries[0][0] if entries else 1}: newest entry is not {version}")
    client = tomllib.loads(_read(context, CLIENT_PROJECT))["project"]
    if client["version"] != version:
        problems.append(f"{CLIENT_PROJECT}:1: version {client['version']} is not {version}")
    others = sorted(set(client["dependencies"]) - set(project["dependencies"]))
    return problems + [f"{CLIENT_PROJECT}:1: {line} is not what pyproject.toml needs" for line in others]


def find_figure_problems(context: CheckContext) -> Problems:
    """README's first figure is the way of one event, and every file in it exists."""
    blocks = [block for block in fenced_blocks(_read(context, "README.md")) if block.language != "sh"]
    if not blocks or not blocks[0].text.lstrip().startswith(FIGURE_FIRST_LINE):
        return [f"README.md:{blocks[0].line if blocks else 1}: the first figure is not the way of one event"]
    files = set(tree_files(context.root))
    problems = []
    for number, line in enumerate(blocks[0].text.splitlines(), start=blocks[0].line + 1):
        problems += [
            f"README.md:{number}: no such file {name}" for name in _SOURCE.findall(line) if name not in files
        ]
    if not _SOURCE.search(blocks[0].text):
        problems.append(f"README.md:{blocks[0].line}: the figure names no file")
    return problems


def distribution(requirement: str) -> str:
    """Return the name of the distribution in a requirement, in lower case."""
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower()


def _read(context: CheckContext, name: str) -> str:
    return (context.root / name).read_text(encoding="utf-8")
