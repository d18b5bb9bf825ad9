"""The migrations of one plane as files: names, order, checksums. Reads files, no database.

Invariant: versions are 1..N without holes, one file each, named ``NNNN_name.sql``.
"""

import hashlib
import re
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, TypeAlias

import attrs

Directory: TypeAlias = Path | Traversable

_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql", re.ASCII)


class MigrationFilesInvalid(Exception):
    """The directory breaks the invariant above; our packaging or merge error."""


@attrs.frozen
class Migration:
    """One file. `checksum` is the SHA-256 of its bytes, in hex."""

    version: int
    name: str
    sql: str
    checksum: str


def read_migrations(directory: Directory) -> tuple[Migration, ...]:
    """Return the migrations in order.

    Raises:
        MigrationFilesInvalid: no files, a hole, a doubled version, or a name of another form.
    """
    migrations: list[Migration] = []
    for entry in directory.iterdir():
        if not entry.name.endswith(".sql"):
            continue
        matched = _NAME.fullmatch(entry.name)
        if matched is None:
            raise MigrationFilesInvalid(f"{entry.name}: expected NNNN_name.sql")
        content = entry.read_bytes()
        migrations.append(
            Migration(
                version=int(matched[1]),
                name=matched[2],
                sql=content.decode("utf-8"),
                checksum=hashlib.sha256(content).hexdigest(),
            )
        )
    migrations.sort(key=lambda migration: migration.version)
    versions = [migration.version for migration in migrations]
    if not versions or versions != list(range(1, len(versions) + 1)):
        raise MigrationFilesInvalid(f"versions are {versions}, expected 1..N without holes")
    return tuple(migrations)


def expected_revision(directory: Directory) -> int:
    """Return the version that the database must be at for this build."""
    return read_migrations(directory)[-1].version
