"""Runs the migrator in a process of its own: `python -m ... DSN DIRECTORY`; prints what it applied."""

import sys
from pathlib import Path

import trio

from khala_service.adapters.postgres import open_asyncio_loop
from khala_service.adapters.postgres_migrations import run_migrations


async def main(dsn: str, directory: Path) -> None:
    """Migrate and say so."""
    async with open_asyncio_loop():
        report = await run_migrations(dsn, plane="runtime", directory=directory)
    sys.stdout.write(",".join(report.applied) + "\n")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]))
