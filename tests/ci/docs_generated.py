"""Parts of documents that are made from the contracts, so that prose cannot drift from code.

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end generated -->``. The check compares; with
`--write` it writes. A part nobody makes, and a maker without a part, are problems too.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.ci.checks import CheckContext, Problems
from tests.ci.docs_links import documents

_PART = re.compile(r"(<!-- generated: ([a-z ]+) -->\n)(.*?)(<!-- end generated -->)", re.DOTALL)
HOW = "run `python -m tests.ci docs --write`"
CODE_PAGES = "runbooks/codes"
REPORTS = Path(__file__).resolve().parents[2] / "runbooks" / "reports"


def reason_codes_table() -> str:
    """Return the registry of reason codes as a Markdown table with an anchor per code."""
    from khala_contracts import reason_codes

    return reason_codes.markdown_table()


def stale_reasons_table() -> str:
    """Return the rows of the registry that end a subscription as stale."""
    from khala_contracts.reason_codes import REGISTRY

    lines = ["| reason | number | what the client does | said to the client |", "|---|---|---|---|"]
    for name, row in REGISTRY.items():
        if name.startswith("stale_cursor."):
            reason = name.removeprefix("stale_cursor.")
            lines.append(f"| `{reason}` | {row.number} | {row.advice.value} | {row.text} |")
    return "\n".join(lines)


def topic_classes_table() -> str:
    """Return the closed registry of topic classes as a Markdown table."""
    from khala_contracts import topics

    return topics.markdown_table()


def run_transitions_table() -> str:
    """Return the automaton of runs: what event each allowed transition writes."""
    from runtime.core import run_state_machine

    return run_state_machine.markdown_table()


def failpoints_table() -> str:
    """Return every failpoint and where it is."""
    from khala_service import failpoints

    return failpoints.markdown_table()


def capacity_part() -> str:
    """Return what machines would carry, computed from the newest reports."""
    from chaos.load.capacity import Machines, capacity_tables, read_costs

    return capacity_tables(read_costs(REPORTS), Machines())


MAKERS: Mapping[str, Callable[[], str]] = {
    "capacity": capacity_part,
    "failpoints": failpoints_table,
    "reason codes": reason_codes_table,
    "run transitions": run_transitions_table,
    "stale reasons": stale_reasons_table,
    "topic classes": topic_classes_table,
}


def check_generated_parts(
    context: CheckContext, makers: Mapping[str, Callable[[], str]] = MAKERS
) -> Problems:
    """Compare every generated part with what its maker says now, or write it when asked to."""
    problems = []
    used = set()
    for name, text in documents(context):
        fresh = text
        for part in _PART.finditer(text):
            maker = makers.get(part.group(2))
            line = text.count("\n", 0, part.start()) + 1
            if maker is None:
                problems.append(f"{name}:{line}: nobody makes the part {part.group(2)}")
                continue
            used.add(part.group(2))
            made = maker().rstrip("\n") + "\n"
            if part.group(3) != made:
                fresh = fresh.replace(part.group(0), part.group(1) + made + part.group(4))
                if not context.write:
                    problems.append(f"{name}:{line}: the part {part.group(2)} is out of date; {HOW}")
        if context.write and fresh != text:
            (context.root / name).write_text(fresh, encoding="utf-8")
    return problems + [f"runbooks:1: no document has the part {name}" for name in makers if name not in used]


def check_code_pages(context: CheckContext) -> Problems:
    """Every reason code has the page that the registry makes, and no page outlives its code."""
    from khala_contracts.reason_code_pages import page_markdown
    from khala_contracts.reason_codes import REGISTRY

    folder = context.root / CODE_PAGES
    fresh = {f"{name}.md": page_markdown(row) for name, row in REGISTRY.items()}
    there = (
        {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*")} if folder.is_dir() else {}
    )
    if context.write:
        folder.mkdir(exist_ok=True)
        for name, text in fresh.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name in there.keys() - fresh.keys():
            (folder / name).unlink()
        return []
    problems = [
        f"{CODE_PAGES}/{name}:1: no reason code has this name" for name in sorted(there.keys() - fresh.keys())
    ]
    problems += [
        f"{CODE_PAGES}/{name}:1: missing or out of date; {HOW}"
        for name, text in sorted(fresh.items())
        if there.get(name) != text
    ]
    return problems
