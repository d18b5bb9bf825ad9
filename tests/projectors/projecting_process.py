"""A process that projects until nothing is behind: what a test kills.

Arguments: URL of the database, failpoints to arm ("" for none), hit file. Exit status 0: everything is
applied and told.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from khala_service import failpoints
from khala_service.adapters.postgres import open_asyncio_loop, open_pool
from khala_service.identifiers import SystemIds
from runtime.actors.projector import Projector
from runtime.adapters.postgres.journal_store import PostgresJournalStore
from runtime.adapters.postgres.projection_store import PostgresProjectionStore
from tests.projectors.rig import HeadsTold, Recorded, Reported


async def project(dsn: str) -> None:
    """Take the authority and project."""
    async with open_asyncio_loop(), open_pool(dsn, application_name="khala-test", max_size=3) as pool:
        authority = await PostgresJournalStore(pool).take_authority(
            holder="child", lineage_candidate="lin_unused"
        )
        # Small pages: many steps, so that each child has many places at which to die.
        store = PostgresProjectionStore(pool, page_events_max=3)
        projector = Projector(
            store, Recorded(), ids=SystemIds(), metrics=Reported(), supersede=lambda: None,
            tell_heads=HeadsTold().tell,
        )  # fmt: skip
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(projector.serve, authority)
                while await store.find_behind(after_topic="", limit=1):
                    await trio.sleep(0.02)
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    url, spec, hit_file = sys.argv[1:]
    failpoints.arm(spec, hit_file=Path(hit_file))
    trio.run(project, url)
