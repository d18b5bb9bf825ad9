"""Khala for scripts: the same names without ``await``.

    from khala_client.blocking import Khala

    with Khala.from_env() as khala, khala.run(name="nightly") as run:
        run.emit("thought", text="no event loop in sight")

Runs the asyncio front in a thread of its own. Any thread may call; each subscription is for one
thread at a time. Ctrl-C interrupts every call, and what it interrupts is either not done or not
lost: an event that had arrived is given by the next ``next``. Do not use a Khala across ``fork``:
its thread stays behind, so each call in a child raises RuntimeError; open another one there.
"""

from __future__ import annotations

from khala_client.blocking.khala import Khala, Run, Subscription

__all__ = ["Khala", "Run", "Subscription"]
