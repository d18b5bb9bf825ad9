"""The ownership map of tables, and the comparison of it with what a database's catalog says.

Pure: the catalog arrives as rows. `tests/security/test_table_ownership.py` reads them from a migrated database.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from tests.ci.checks import Problems

OWNERSHIP_MAP = "tests/ci/table_ownership.toml"
PLANES = ("control", "runtime")
SERVICE_ROLES = ("khala_control", "khala_runtime", "khala_reader")


@attrs.frozen
class TableRule:
    """What the map says about one table."""

    writer: str
    readers: frozenset[str]
    is_written_through_functions: bool


@attrs.frozen
class CatalogTable:
    """What the catalog says: partitions count as their parent."""

    schema: str
    name: str
    owner: str
    readers: frozenset[str]
    writers: frozenset[str]


def read_ownership(root: Path) -> dict[tuple[str, str], TableRule]:
    """Return the rule of each (schema, table)."""
    table = tomllib.loads((root / OWNERSHIP_MAP).read_text(encoding="utf-8"))
    return {
        (schema, name): TableRule(
            writer=row["writer"],
            readers=frozenset(row["readers"]),
            is_written_through_functions=row.get("through") == "functions",
        )
        for schema, tables in table.items()
        for name, row in tables.items()
    }


def find_ownership_problems(
    rules: Mapping[tuple[str, str], TableRule], catalog: Iterable[CatalogTable]
) -> Problems:
    """Return where map and catalog differ: tables, owners, and the rights of the service roles."""
    problems = []
    seen = set()
    for table in catalog:
        place = f"{table.schema}.{table.name}"
        rule = rules.get((table.schema, table.name))
        seen.add((table.schema, table.name))
        if rule is None:
            problems.append(f"{place}: is in the database but not in {OWNERSHIP_MAP}")
            continue
        if table.owner != f"khala_{table.schema}_owner":
            problems.append(f"{place}: is owned by {table.owner}")
        is_granted = rule.writer in SERVICE_ROLES and not rule.is_written_through_functions
        writers = frozenset({rule.writer}) if is_granted else frozenset()
        if table.writers != writers:
            problems.append(f"{place}: may be written by {sorted(table.writers)}, not {sorted(writers)}")
        if table.readers != rule.readers:
            problems.append(f"{place}: may be read by {sorted(table.readers)}, not {sorted(rule.readers)}")
    problems += [
        f"{schema}.{name}: is in {OWNERSHIP_MAP} but not in the database"
        for schema, name in rules.keys() - seen
    ]
    problems += [
        f"{schema}.{name}: {rule.writer} is of the other plane"
        for (schema, name), rule in rules.items()
        if rule.writer.removesuffix("_owner") != f"khala_{schema}"
    ]
    return problems
