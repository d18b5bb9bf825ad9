"""Reads the numbered invariants of `runbooks/architecture.md` and proves that each is pinned by a test.

Format: a heading ``### INV-7 Name``, and below it the lines ``- formula:``, ``- code:`` and ``- tests:`` with file
paths and test ids in backticks. After the test lanes have run in the same build, each named test must have run
and passed there; alone, the lane proves only that it exists.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.ci.checks import CheckContext, Problems
from tests.ci.docs_contents import ARCHITECTURE
from tests.ci.markdown import headings, section
from tests.ci.tree import tree_files

_TITLE = re.compile(r"^INV-(\d+)\b\s*(.*)$")
_LINE = re.compile(r"^- (formula|code|tests): (.+)$", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_MENTION = re.compile(r"\bINV-(\d+)\b")
_EXAMPLES = ("tests/ci/", "tests/unit/ci/")
# The four rules the system was founded on. Each is an invariant, whatever else changes.
FOUNDING = ("proto-first", "two authority planes", "projection only", "WebSocket only")


@attrs.frozen
class Invariant:
    """One numbered promise as the document states it."""

    number: int
    name: str
    line: int
    formula: str
    code: tuple[str, ...]
    tests: tuple[str, ...]


def read_invariants(text: str) -> list[Invariant]:
    """Return the invariants of the document in its order."""
    found = []
    for line, level, title in headings(text):
        match = _TITLE.match(title)
        if match is None or level != 3:
            continue
        body = section(text, title) or ""
        fields = dict(_LINE.findall(body))
        found.append(
            Invariant(
                number=int(match.group(1)),
                name=match.group(2).strip(),
                line=line,
                formula=fields.get("formula", "").strip(),
                code=tuple(_SPAN.findall(fields.get("code", ""))),
                tests=tuple(_SPAN.findall(fields.get("tests", ""))),
            )
        )
    return found


def find_invariant_problems(context: CheckContext) -> Problems:
    """Each invariant has a formula, code that exists and tests that exist (and passed, if they ran)."""
    path = context.root / ARCHITECTURE
    invariants = read_invariants(path.read_text(encoding="utf-8")) if path.exists() else []
    numbers = [invariant.number for invariant in invariants]
    problems = []
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        problems.append(f"{ARCHITECTURE}:1: invariants are not numbered 1, 2, 3 ...: {numbers}")
    names = [invariant.name.lower() for invariant in invariants]
    problems += [
        f"{ARCHITECTURE}:1: no invariant is named {name}" for name in FOUNDING if name.lower() not in names
    ]
    for invariant in invariants:
        place = f"{ARCHITECTURE}:{invariant.line}: INV-{invariant.number}"
        problems += [f"{place} {problem}" for problem in _judge(invariant, context)]
    return problems


def find_unknown_mentions(context: CheckContext) -> Problems:
    """An ``INV-n`` written anywhere in code or documents is one that the architecture defines."""
    path = context.root / ARCHITECTURE
    known = (
        {one.number for one in read_invariants(path.read_text(encoding="utf-8"))} if path.exists() else set()
    )
    problems = []
    for name in tree_files(context.root):
        if not name.endswith((".py", ".sql", ".md")) or name.startswith(_EXAMPLES):
            continue
        text = (context.root / name).read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), start=1):
            unknown = [found for found in _MENTION.findall(line) if int(found) not in known]
            problems += [f"{name}:{number}: INV-{found} is not in {ARCHITECTURE}" for found in unknown]
    return problems


def _judge(invariant: Invariant, context: CheckContext) -> Iterator[str]:
    if not invariant.formula:
        yield "has no formula"
    if not invariant.code:
        yield "names no code"
    if not invariant.tests:
        yield "names no test"
    for name in invariant.code:
        if not (context.root / name.partition("::")[0]).exists():
            yield f"names {name}, which does not exist"
    for test in invariant.tests:
        if not _test_exists(context.root, test):
            yield f"names the test {test}, which does not exist"
        elif context.outcomes is not None:
            results = {outcome for node, outcome in context.outcomes.items() if _is_run_of(node, test)}
            if results != {"passed"}:
                yield f"names the test {test}, which did not run and pass in this build"


def _is_run_of(node: str, test: str) -> bool:
    return node == test or node.startswith((test + "[", test + "::"))


def _test_exists(root: Path, test: str) -> bool:
    name, *parts = test.split("::")
    path = root / name
    if not path.is_file() or not parts:
        return False
    found = _definition(path, parts[0])
    if len(parts) == 1:
        return found is not None
    if not isinstance(found, ast.ClassDef):
        return False
    # A suite that fake and real thing share is a base class in another file.
    bases = [base.id for base in found.bases if isinstance(base, ast.Name)]
    suites = (_definition(file, base) for base in bases for file in sorted((root / "tests").rglob("*.py")))
    classes = [found, *(suite for suite in suites if isinstance(suite, ast.ClassDef))]
    return any(_defines(node, parts[1]) for one in classes for node in one.body)


def _definition(path: Path, name: str) -> ast.stmt | None:
    text = path.read_text(encoding="utf-8")
    if name not in text:
        return None
    return next((node for node in ast.parse(text, str(path)).body if _defines(node, name)), None)


def _defines(node: ast.stmt, name: str) -> bool:
    # A stateful machine becomes a test by assignment: TestWindow = WindowMachine.TestCase.
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name
