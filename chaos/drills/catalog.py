"""The drills by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from chaos.drills.database_silent import run_database_silent_drill
from chaos.drills.kill import run_kill_drill
from chaos.drills.nats_loss import run_nats_loss_drill
from chaos.drills.node_loss import run_node_loss_drill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.drills.drill import RunDrill

__all__ = ["DRILLS", "Drill"]


@attrs.frozen
class Drill:
    """One drill; ``runbooks/drills/<name>.md`` is its page.

    Attributes:
        text: What it does, for ``khala drill list``.
        quick_s: About how long the quick form takes on two quiet cores.
    """

    name: str
    text: str
    quick_s: int
    run: RunDrill


_ALL: Final = (
    Drill(
        "kill",
        "SIGKILL of every process, at failpoints and at any instant, at 200 events/s",
        50,
        run_kill_drill,
    ),
    Drill(
        "database-silent",
        "PostgreSQL stopped, so that it answers nothing, at 200 events/s",
        50,
        run_database_silent_drill,
    ),
    Drill("nats-loss", "the broker killed, wiped and kept away, at 200 events/s", 30, run_nats_loss_drill),
    Drill(
        "node-loss", "every node killed at once, again and again, at 500 events/s", 20, run_node_loss_drill
    ),
)
DRILLS: Final[Mapping[str, Drill]] = {drill.name: drill for drill in _ALL}
