"""Names, order and checksums of migration files."""

import hashlib
from pathlib import Path

import pytest

from khala_service.migration_files import MigrationFilesInvalid, expected_revision, read_migrations


def _write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text(f"-- {name}\n")
    return folder


def test_files_in_order(tmp_path: Path) -> None:
    """Versions ascend whatever the order of the directory; other files are not looked at."""
    _write(tmp_path, "0002_b.sql", "0001_a.sql", "README.md")
    migrations = read_migrations(tmp_path)
    assert [(each.version, each.name) for each in migrations] == [(1, "a"), (2, "b")]
    assert migrations[0].sql == "-- 0001_a.sql\n"
    assert migrations[0].checksum == hashlib.sha256(b"-- 0001_a.sql\n").hexdigest()
    assert expected_revision(tmp_path) == 2


def test_a_file_names_the_oldest_build_that_works_with_it(tmp_path: Path) -> None:
    """Without the line that is the build which brings the file."""
    _write(tmp_path, "0001_a.sql", "0002_b.sql")
    (tmp_path / "0003_c.sql").write_text("-- oldest build: 0002\n-- text\n")
    assert [each.oldest_build for each in read_migrations(tmp_path)] == [1, 2, 2]


@pytest.mark.parametrize(
    "line", ["-- oldest build: 0002", "-- oldest build: 0000", "-- Oldest build 1", "-- oldest build:"]
)
def test_an_oldest_build_that_cannot_be_is_refused(tmp_path: Path, line: str) -> None:
    """Not below its own number, not above 0, or written in another way: never silently strict."""
    _write(tmp_path, "0001_a.sql")
    (tmp_path / "0002_b.sql").write_text(f"{line}\n")
    with pytest.raises(MigrationFilesInvalid, match="0002_b"):
        read_migrations(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("0002_b.sql",),
        ("0001_a.sql", "0003_c.sql"),
        ("0001_a.sql", "0001_b.sql"),
        ("0001_a.sql", "2_b.sql"),
        ("0001_a.sql", "0002-b.sql"),
        ("0001_a.sql", "0002_B.sql"),
        ("0001_a.sql", "0000_b.sql"),
    ],
)
def test_directories_that_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Nothing, holes, doubles and other names are a mistake of ours."""
    with pytest.raises(MigrationFilesInvalid):
        read_migrations(_write(tmp_path, *names))


def test_a_stray_file_is_named(tmp_path: Path) -> None:
    """A file of another form would never be applied: refused, with its name."""
    (tmp_path / "bootstrap_roles.sql").write_text("")
    with pytest.raises(MigrationFilesInvalid, match=r"bootstrap_roles\.sql: expected NNNN_name"):
        read_migrations(tmp_path)
