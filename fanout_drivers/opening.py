"""Which driver is used, and how it is opened: section ``fanout``, variables ``KHALA_FANOUT_*``.

Runtime, control and every node of one system are given the same section. A driver is found by name in the
entry-point group ``khala.fanout_drivers``, ours like anybody's: the entry is a ``DriverFactory``. Only
composition roots call ``open_driver``.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  # attrs resolves the types of fields at run time
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

import attrs
from attrs.validators import matches_re

from khala_service.config import ConfigRefused, Secret, described

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from fanout_drivers.base import FanoutDriver

__all__ = ["DRIVER_GROUP", "SECTION", "DriverContext", "DriverFactory", "FanoutConfig", "open_driver"]

SECTION: Final = "fanout"
DRIVER_GROUP: Final = "khala.fanout_drivers"


@attrs.frozen(kw_only=True)
class FanoutConfig:
    """What carries the news of commits, and hints of revocations, to the nodes."""

    # The default needs nothing but the database that is there anyway.
    driver: str = attrs.field(
        default="postgres",
        validator=matches_re(r"[a-z][a-z0-9_-]{0,31}"),
        metadata=described(
            "postgres, nats, none, memory (one process only), faulty (dev mode), or one that you installed."
        ),
    )
    nats_servers: tuple[str, ...] = attrs.field(
        default=("nats://127.0.0.1:4222",),
        metadata=described("Servers of the NATS cluster, nats:// or tls://; whichever answers is used."),
    )
    nats_user: str = attrs.field(
        default="", metadata=described("User at the NATS servers, of this process's role; empty: none.")
    )
    nats_password: Secret | None = attrs.field(default=None, metadata=described("Password of that user."))
    nats_credentials: Secret | None = attrs.field(
        default=None,
        metadata=described("An NKey seed or a credentials file's content, instead of user and password."),
    )
    nats_tls_ca: Path | None = attrs.field(
        default=None,
        metadata=described("PEM file of the authority that signs the NATS servers; none: the public ones."),
    )
    nats_tls_cert: Path | None = attrs.field(
        default=None, metadata=described("PEM file with our certificate, for servers that ask for one.")
    )
    nats_tls_key: Path | None = attrs.field(
        default=None, metadata=described("PEM file with its private key, without a pass phrase.")
    )
    nats_doorbell: bool = attrs.field(
        default=True,
        metadata=described("Also hint through PostgreSQL while NATS is away or heals; nodes listen there."),
    )
    subject_prefix: str = attrs.field(
        default="khala",
        validator=matches_re(r"[a-z0-9-]{1,32}"),
        metadata=described("First token of every subject, so that systems can share a broker."),
    )
    options: Mapping[str, str] = attrs.field(
        factory=dict, metadata=described("Settings of the driver faulty, or of one that is not ours.")
    )


@attrs.frozen(kw_only=True)
class DriverContext:
    """What a driver is opened with.

    Attributes:
        config: The section ``fanout``.
        database_dsn: Database of the process that opens it, with the role of that process.
        component: Who opens it; a runtime publishes, control hints at revocations, a node subscribes.
        mode: Of the process; a driver that does harm on purpose refuses ``production``.
    """

    config: FanoutConfig
    database_dsn: Secret
    component: Literal["runtime", "control", "node"]
    mode: Literal["production", "dev"] = "production"


class DriverFactory(Protocol):
    """What an entry point of the group names."""

    def __call__(self, context: DriverContext) -> AbstractAsyncContextManager[FanoutDriver]:
        """Open a driver for the life of a process, inside ``open_asyncio_loop``.

        Entering never fails because the broker is away: the driver connects by itself, with
        backoff, and says so by ``check_health``.

        Raises:
            ConfigRefused: The configuration cannot be right; nothing was started.
        """


@asynccontextmanager
async def open_driver(context: DriverContext, *, is_one_process: bool) -> AsyncIterator[FanoutDriver]:
    """Open the configured driver.

    Args:
        context: What to open.
        is_one_process: Whether runtime, control and nodes live in this process.

    Raises:
        ConfigRefused: No such driver is installed, or it cannot leave this process and must.
    """
    name = context.config.driver
    async with find_driver(name)(context) as driver:
        if not (is_one_process or driver.guarantees.crosses_processes):
            raise ConfigRefused(
                (
                    f"{SECTION}.driver: {name} cannot leave its process, and the runtime is another one; "
                    "choose postgres or nats",
                )
            )
        yield driver


def find_driver(name: str) -> DriverFactory:
    """Return the driver of this name.

    Raises:
        ConfigRefused: No installed distribution registers it.
    """
    found = entry_points(group=DRIVER_GROUP, name=name)
    if not found:
        known = ", ".join(sorted(point.name for point in entry_points(group=DRIVER_GROUP))) or "none"
        raise ConfigRefused((f"{SECTION}.driver: {name} is not installed; known are {known}",))
    return cast("DriverFactory", next(iter(found)).load())
