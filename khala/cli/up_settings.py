"""What ``khala up`` can be told: section ``up``, variables ``KHALA_UP_*``, options of the command."""

from pathlib import Path
from typing import Final, Literal

import attrs
from attrs.validators import ge, in_, le

from khala.cli.locations import default_data_dir
from khala.cli.up_ports import PORT_BASE
from khala_service.config import described

SECTION: Final = "up"
# The base and the four ports above it must exist.
PORT_BASE_MAX: Final = 65_535 - 4
# Each is a process with a pool of its own; a development machine has nothing from more.
NODES_MAX: Final = 16


@attrs.frozen(kw_only=True)
class UpSettings:
    """Configuration of ``khala up``."""

    data_dir: Path = attrs.field(
        factory=default_data_dir, metadata=described("Directory of database, secrets and profile.")
    )
    port_base: int = attrs.field(
        default=PORT_BASE,
        validator=[ge(0), le(PORT_BASE_MAX)],
        metadata=described(
            "Everything is reached at this port; the services listen above it; 0 takes any free block."
        ),
    )
    split: bool = attrs.field(
        default=False, metadata=described("Each service is a process of its own, watched and restarted.")
    )
    nodes: int = attrs.field(
        default=1,
        validator=[ge(1), le(NODES_MAX)],
        metadata=described("How many nodes; more than one needs split."),
    )
    shared_port: bool = attrs.field(
        default=False,
        metadata=described(
            "All nodes listen on one port, and the kernel spreads clients (Linux); needs split."
        ),
    )
    nats: bool = attrs.field(
        default=False, metadata=described("Run a NATS server and let it carry the news; needs split.")
    )
    restart_max_s: float = attrs.field(
        default=5.0,
        validator=[ge(0.1), le(3600)],
        metadata=described("Longest wait before a dead process is started again, seconds."),
    )
    restart_stable_s: float = attrs.field(
        default=60.0,
        validator=[ge(0), le(86_400)],
        metadata=described("A process that lived this long, seconds, is started again at once."),
    )
    ready_file: Path | None = attrs.field(
        default=None, metadata=described("File that is written, as JSON, once everything is ready.")
    )
    login: str = attrs.field(default="dev", metadata=described("The development user of the profile."))
    log_level: Literal["debug", "info", "warning", "error"] = attrs.field(
        default="info",
        validator=in_(("debug", "info", "warning", "error")),
        metadata=described("What goes into the logs of Khala below logs/."),
    )

    def __attrs_post_init__(self) -> None:
        """Check what no single field can say. Raises ValueError naming the key."""
        if not self.split:
            needs_split = {"nodes": self.nodes > 1, "shared_port": self.shared_port, "nats": self.nats}
            for name, is_given in needs_split.items():
                if is_given:
                    message = f"{name}: needs split"
                    raise ValueError(message)
