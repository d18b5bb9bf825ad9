"""The rules of the decision records in `runbooks/adr/`: numbers, sections, index, successors."""

import re

from tests.ci.checks import CheckContext, Problems
from tests.ci.markdown import headings, section, table_rows
from tests.ci.tree import tree_files

ADR_FOLDER = "runbooks/adr"
SECTIONS = ("Status", "Date", "Context", "Decision", "Rationale", "Consequences")
_NAME = re.compile(rf"^{ADR_FOLDER}/ADR-(\d{{4}})-[a-z0-9-]+\.md$")
_STATUS = re.compile(
    r"^(Proposed|Accepted|Rejected)\.?$|^Superseded by \[ADR-\d{4}\]\((ADR-\d{4}[a-z0-9-]*\.md)\)\.?$"
)
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")
HARVEST_RECORD = "ADR-0004"
HARVEST_COLUMNS = ("pattern", "rationale", "flag", "rollback")
REPLAY_RECORD = "ADR-0003"
DISCARD_RULE = "`seq <= last_applied`"


def find_adr_problems(context: CheckContext) -> Problems:
    """Numbers are unique and dense from 1; every record has every section; the index lists exactly them."""
    files = tree_files(context.root)
    records = {name: match.group(1) for name in files if (match := _NAME.match(name))}
    problems = [
        f"{name}:1: not named ADR-NNNN-words.md"
        for name in files
        if name.startswith(f"{ADR_FOLDER}/")
        and name not in records
        and not name.endswith(("README.md", "template.md"))
    ]
    numbers = sorted(int(number) for number in records.values())
    if numbers != list(range(1, len(numbers) + 1)):
        problems.append(f"{ADR_FOLDER}:1: numbers are not 1..{len(numbers)}: {numbers}")
    template = f"{ADR_FOLDER}/template.md"
    for name in [*records, template]:
        if name not in files:
            problems.append(f"{name}:1: missing")
            continue
        text = (context.root / name).read_text(encoding="utf-8")
        problems += _judge_record(name, text, is_template=name == template)
    index_name = f"{ADR_FOLDER}/README.md"
    index = (context.root / index_name).read_text(encoding="utf-8") if index_name in files else ""
    for name in records:
        if f"({name.rpartition('/')[2]})" not in index:
            problems.append(f"{index_name}:1: does not list {name}")
    return problems


def find_harvest_problems(context: CheckContext) -> Problems:
    """ADR-0004 gives every adopted and every rejected pattern its rationale, flag and way back."""
    name, text = _record(context, HARVEST_RECORD)
    if text is None:
        return [f"{ADR_FOLDER}:1: no {HARVEST_RECORD}"]
    problems = []
    for title, at_least in (("Adopted", 4), ("Rejected", 3)):
        rows = table_rows(section(text, title) or "")
        if len(rows) < at_least:
            problems.append(f"{name}:1: section {title} has {len(rows)} patterns, {at_least} are expected")
        for _, cells in rows:
            if len(cells) < len(HARVEST_COLUMNS) or not all(cells):
                problems.append(f"{name}:1: {title}: {cells[0]} lacks one of {', '.join(HARVEST_COLUMNS)}")
    return problems


def find_replay_problems(context: CheckContext) -> Problems:
    """ADR-0003 names the discard rule; its table of reasons is a generated block, compared elsewhere."""
    name, text = _record(context, REPLAY_RECORD)
    if text is None:
        return [f"{ADR_FOLDER}:1: no {REPLAY_RECORD}"]
    wanted = (DISCARD_RULE, "<!-- generated: stale reasons -->")
    return [f"{name}:1: does not contain {words}" for words in wanted if words not in text]


def _record(context: CheckContext, number: str) -> tuple[str, str | None]:
    for name in tree_files(context.root):
        if name.startswith(f"{ADR_FOLDER}/{number}-"):
            return name, (context.root / name).read_text(encoding="utf-8")
    return number, None


def _judge_record(name: str, text: str, *, is_template: bool) -> Problems:
    titles = {title: line for line, level, title in headings(text) if level == 2}
    problems = [f"{name}:1: section {title} is missing" for title in SECTIONS if title not in titles]
    problems += [
        f"{name}:{titles[title]}: section {title} is empty"
        for title in SECTIONS
        if section(text, title) == ""
    ]
    if problems or is_template:
        return problems
    status, date = section(text, "Status") or "", section(text, "Date") or ""
    if not _STATUS.match(status):
        problems.append(
            f"{name}:{titles['Status']}: status is none of Proposed, Accepted, Rejected, Superseded by [..](..)"
        )
    if not _DATE.match(date):
        problems.append(f"{name}:{titles['Date']}: date is not YYYY-MM-DD")
    return problems
