"""The migrations of one plane as files: names, order, checksums. Reads files, no database.

Invariant: versions are 1..N without holes, one file each, named ``NNNN_name.sql``.

A file that only adds may say so in its first line: ``-- oldest build: 0003`` means that builds which know
the migrations up to 0003 work on the schema as well. Without it no older build does. That is what lets
the old processes of a rolling upgrade stay in traffic after the migration.
"""

import hashlib
import re
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, TypeAlias

import attrs

Directory: TypeAlias = Path | Traversable

_OLDEST_BUILD: Final = re.compile(r"-- oldest build: (\d{4})", re.ASCII)
_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql", re.ASCII)


class MigrationFilesInvalid(Exception):
    """The directory breaks the invariant above; our packaging or merge error."""


@attrs.frozen
class Migration:
    """One file.

    Attributes:
        version: Number in its name.
        name: The rest of its name.
        sql: Its text.
        checksum: SHA-256 of its bytes, in hex.
        oldest_build: Revision of the oldest build that works on a schema with this file.
    """

    version: int
    name: str
    sql: str
    checksum: str
    oldest_build: int


def read_migrations(directory: Directory) -> tuple[Migration, ...]:
    """Return the migrations in order.

    Raises:
        MigrationFilesInvalid: no files, a hole, a doubled version, a name of another form, or an
            oldest build that cannot be.
    """
    migrations: list[Migration] = []
    for entry in directory.iterdir():
        if not entry.name.endswith(".sql"):
            continue
        matched = _NAME.fullmatch(entry.name)
        if matched is None:
            raise MigrationFilesInvalid(f"{entry.name}: expected NNNN_name.sql")
        content = entry.read_bytes()
        version, sql = int(matched[1]), content.decode("utf-8")
        migrations.append(
            Migration(
                version=version,
                name=matched[2],
                sql=sql,
                checksum=hashlib.sha256(content).hexdigest(),
                oldest_build=_read_oldest_build(entry.name, version, sql),
            )
        )
    migrations.sort(key=lambda migration: migration.version)
    versions = [migration.version for migration in migrations]
    if not versions or versions != list(range(1, len(versions) + 1)):
        raise MigrationFilesInvalid(f"versions are {versions}, expected 1..N without holes")
    return tuple(migrations)


def _read_oldest_build(name: str, version: int, sql: str) -> int:
    first_line = sql.partition("\n")[0]
    if not first_line.lower().startswith("-- oldest build"):
        return version
    matched = _OLDEST_BUILD.fullmatch(first_line)
    if matched is None or not 1 <= int(matched[1]) < version:
        raise MigrationFilesInvalid(f"{name}: expected -- oldest build: NNNN, below its own number")
    return int(matched[1])


def expected_revision(directory: Directory) -> int:
    """Return the version that the database must be at for this build."""
    return read_migrations(directory)[-1].version
