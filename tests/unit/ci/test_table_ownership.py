import attrs
import pytest

from tests.ci.table_ownership import CatalogTable, TableRule, find_ownership_problems, read_ownership
from tests.ci.tree import ROOT

READERS = frozenset({"khala_control"})
RULES = {("control", "users"): TableRule("khala_control", READERS, is_written_through_functions=False)}
TABLE = CatalogTable("control", "users", "khala_control_owner", READERS, READERS)


def test_equal_map_and_catalog_pass() -> None:
    """A table that is owned, written and read as the map says is fine."""
    assert find_ownership_problems(RULES, [TABLE]) == []


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (attrs.evolve(TABLE, owner="postgres"), "control.users: is owned by postgres"),
        (attrs.evolve(TABLE, writers=frozenset()), "may be written by [], not ['khala_control']"),
        (attrs.evolve(TABLE, readers=frozenset({"khala_reader"})), "may be read by ['khala_reader']"),
    ],
)
def test_each_difference_is_named(table: CatalogTable, words: str) -> None:
    """A wrong owner, writer or reader is a problem of its own."""
    [problem] = find_ownership_problems(RULES, [table])
    assert words in problem


def test_table_missing_on_either_side_is_named() -> None:
    """A new table needs a line, and a line needs a table."""
    stranger = attrs.evolve(TABLE, name="notes")
    problems = find_ownership_problems(RULES, [stranger])
    assert problems == [
        "control.notes: is in the database but not in tests/ci/table_ownership.toml",
        "control.users: is in tests/ci/table_ownership.toml but not in the database",
    ]


def test_writer_through_functions_has_no_right_of_its_own() -> None:
    """A direct right beside the functions is a way around them."""
    rules = {("control", "users"): attrs.evolve(RULES["control", "users"], is_written_through_functions=True)}
    [problem] = find_ownership_problems(rules, [TABLE])
    assert problem == "control.users: may be written by ['khala_control'], not []"


def test_writer_is_of_the_plane() -> None:
    """One plane never writes the other's tables, whatever the map says."""
    rules = {("control", "users"): attrs.evolve(RULES["control", "users"], writer="khala_runtime")}
    assert "control.users: khala_runtime is of the other plane" in find_ownership_problems(rules, [TABLE])


def test_our_map_has_two_planes_only() -> None:
    """Two authority planes exist, and every table is in one of them."""
    assert {schema for schema, _ in read_ownership(ROOT)} == {"control", "runtime"}
