from tests.ci import docs_links
from tests.unit.ci.conftest import Plant


def test_dead_link_names_file_and_line(plant: Plant) -> None:
    """A link to a file that does not exist is one problem, with file and line."""
    context = plant({"runbooks/a.md": "text\n\nsee [b](b.md)\n"})
    assert docs_links.find_dead_links(context) == ["runbooks/a.md:3: dead link b.md"]


def test_links_resolve_from_the_folder_of_the_document(plant: Plant) -> None:
    """Files, folders, parents, fragments and outside addresses are all fine where they exist."""
    context = plant(
        {
            "README.md": "# Top\n[x](runbooks/a.md#one-two) [y](runbooks/) [z](https://example.org/q) [t](#top)",
            "runbooks/a.md": "# One two\n[up](../README.md)",
        }
    )
    assert docs_links.find_dead_links(context) == []


def test_missing_heading_is_a_dead_link(plant: Plant) -> None:
    """A fragment that no heading has is a problem."""
    context = plant({"README.md": "[x](a.md#two)", "a.md": "# One"})
    assert docs_links.find_dead_links(context) == ["README.md:1: a.md has no heading for #two"]


def test_missing_path_in_code_names_file_and_line(plant: Plant) -> None:
    """A repository path in a code span exists; a word that only looks similar is left alone."""
    context = plant(
        {
            "README.md": "\n`khala/gone.py` `khala/app.py` `khala/app.py::serve` `khala up` `v1/runs/x.py`",
            "khala/app.py": "",
        }
    )
    assert docs_links.find_missing_paths(context) == ["README.md:2: no such file khala/gone.py"]


def test_history_may_name_what_is_gone(plant: Plant) -> None:
    """The changelog is about the past."""
    assert docs_links.find_missing_paths(plant({"runbooks/changelog.md": "`khala/gone.py`"})) == []


def test_unknown_lane_is_a_problem(plant: Plant) -> None:
    """A document may tell to run only lanes that exist."""
    context = plant({"README.md": "run `python -m tests.ci docs speed` or `python -m tests.ci all`"})
    assert docs_links.find_unknown_lanes(context) == ["README.md:1: there is no lane speed"]
