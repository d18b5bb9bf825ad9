import attrs

from khala_contracts.reason_codes import REGISTRY
from tests.ci import docs_generated
from tests.unit.ci.conftest import Plant

MAKERS = {"colours": lambda: "| red |"}
FRESH = "intro\n<!-- generated: colours -->\n| red |\n<!-- end generated -->\nend\n"


def test_equal_part_passes(plant: Plant) -> None:
    """A part equal to what its maker says is fine."""
    assert docs_generated.check_generated_parts(plant({"a.md": FRESH}), MAKERS) == []


def test_old_part_names_file_and_line(plant: Plant) -> None:
    """A part that differs is a problem with the line of its begin."""
    context = plant({"a.md": FRESH.replace("red", "blue")})
    [problem] = docs_generated.check_generated_parts(context, MAKERS)
    assert problem.startswith("a.md:2: the part colours is out of date")


def test_write_makes_it_equal(plant: Plant) -> None:
    """With `--write` the part is written and nothing else changes."""
    context = attrs.evolve(plant({"a.md": FRESH.replace("| red |\n", "")}), write=True)
    assert docs_generated.check_generated_parts(context, MAKERS) == []
    assert (context.root / "a.md").read_text(encoding="utf-8") == FRESH


def test_part_without_maker_and_maker_without_part(plant: Plant) -> None:
    """Both ends must exist."""
    context = plant({"a.md": FRESH.replace("colours", "sounds")})
    assert docs_generated.check_generated_parts(context, MAKERS) == [
        "a.md:2: nobody makes the part sounds",
        "runbooks:1: no document has the part colours",
    ]


def test_makers_describe_the_contracts() -> None:
    """The tables are of the registries: every class, every stale reason, each with a row."""
    classes = docs_generated.topic_classes_table().splitlines()
    assert len(classes) == 2 + 10
    assert "`run:{run_id}:events`" in classes[2]
    assert "`retention_expired`" in docs_generated.stale_reasons_table()
    assert "stale_cursor.retention_expired" in docs_generated.reason_codes_table()


def test_each_reason_code_has_its_page_and_no_other(plant: Plant) -> None:
    """A missing, an edited and a foreign page are problems; `--write` repairs all three."""
    writing = attrs.evolve(
        plant({"runbooks/codes/forbidden.md": "edited", "runbooks/codes/gone.md": "x"}), write=True
    )
    folder = writing.root / "runbooks" / "codes"
    context = attrs.evolve(writing, write=False)
    problems = docs_generated.check_code_pages(context)
    assert problems[0] == "runbooks/codes/gone.md:1: no reason code has this name"
    assert len(problems) == 1 + len(REGISTRY)
    assert docs_generated.check_code_pages(writing) == []
    assert docs_generated.check_code_pages(context) == []
    assert {path.stem for path in folder.iterdir()} == set(REGISTRY)
    (folder / "forbidden.md").write_text("edited")
    [problem] = docs_generated.check_code_pages(context)
    assert problem.startswith("runbooks/codes/forbidden.md:1: missing or out of date")
