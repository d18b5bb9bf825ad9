"""The drills by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from chaos.drills.broker_loss import BROKER_SYSTEM, run_broker_loss_drill
from chaos.drills.database_silent import SILENT_SYSTEM, run_database_silent_drill
from chaos.drills.kill import KILL_SYSTEM, run_kill_drill
from chaos.drills.nats_partition import run_nats_partition_drill
from chaos.drills.node_kill import THREE_NODES, run_node_kill_drill
from chaos.drills.postgres_restart import run_postgres_restart_drill
from chaos.drills.reconnect_storm import run_reconnect_storm_drill
from chaos.drills.rolling_deploy import run_rolling_deploy_drill
from chaos.drills.rolling_restart import run_rolling_restart_drill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.drills.drill import RunDrill
    from chaos.drills.system_setup import SystemSetup

__all__ = ["DRILLS", "Drill"]


@attrs.frozen
class Drill:
    """One drill; ``runbooks/drills/<name>.md`` is its page.

    Attributes:
        text: What it does, for ``khala drill list``.
        quick_s: About how long the quick form takes on two quiet cores.
        system: What it stands on; drills that stand on the same may share it. None: it makes its own.
        cadence_days: How old its newest report may be (`cadence.py`).
    """

    name: str
    text: str
    quick_s: int
    run: RunDrill
    system: SystemSetup | None = None
    cadence_days: int = 30


_ALL: Final = (
    Drill(
        "kill",
        "SIGKILL of every process, at failpoints and at any instant, at 200 events/s",
        50,
        run_kill_drill,
        KILL_SYSTEM,
    ),
    Drill(
        "database-silent",
        "PostgreSQL stopped, so that it answers nothing, at 200 events/s",
        50,
        run_database_silent_drill,
        SILENT_SYSTEM,
    ),
    Drill(
        "broker-loss",
        "the broker killed, wiped and kept away, at 300 events/s",
        30,
        run_broker_loss_drill,
        BROKER_SYSTEM,
    ),
    Drill(
        "nats-partition",
        "one node cut off from NATS alone, both ways and one way, at 300 events/s",
        35,
        run_nats_partition_drill,
        BROKER_SYSTEM,
    ),
    Drill(
        "postgres-restart",
        "PostgreSQL shut down in immediate mode again and again, at 300 events/s",
        25,
        run_postgres_restart_drill,
        BROKER_SYSTEM,
    ),
    Drill(
        "node-kill",
        "nodes killed, one alone and all at once, again and again, at 500 events/s",
        20,
        run_node_kill_drill,
        THREE_NODES,
    ),
    Drill(
        "rolling-restart",
        "three nodes restarted one after the other under 100 events/s and 300 clients",
        30,
        run_rolling_restart_drill,
        THREE_NODES,
    ),
    Drill(
        "reconnect-storm",
        "2,000 clients of one node cut off at once, who all come back",
        40,
        run_reconnect_storm_drill,
        THREE_NODES,
    ),
    Drill(
        "rolling-deploy",
        "another release and its migration, and back, at 200 events/s",
        45,
        run_rolling_deploy_drill,
    ),
)
DRILLS: Final[Mapping[str, Drill]] = {drill.name: drill for drill in _ALL}
