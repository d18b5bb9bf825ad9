"""What both forms of ``khala up`` have in common: the record, the ports, the signals, the announcement."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from khala.adapters.embedded_postgres_directory import write_private
from khala.cli.locations import PROFILE_FOLDER
from khala.cli.orphans import end_orphans
from khala.cli.signals import taken_signals
from khala.cli.terminal import json_line
from khala.cli.up_ports import HOST, choose_ports
from khala.cli.up_record import own_record, read_record, write_record
from khala.cli.up_secrets import UpSecrets
from khala.cli.up_sign_in import sign_in_profile
from khala.cli.up_values import UpValues
from khala_client.settings import SYNC_PATH
from khala_client.version import VERSION
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

    from khala.cli.up_record import UpRecord
    from khala.cli.up_report import UpReport
    from khala.cli.up_settings import UpSettings

__all__ = ["UpLife"]

# Children of a killed supervisor see that it is gone and drain for 2 s.
ORPHANS_WAIT_S = 2.5


class UpLife:
    """One life of the system, from taking the data directory to leaving it.

    Attributes:
        stop: Set when somebody asked for the end.
        is_hurried: Whether somebody asked again, so that nothing was waited for.
    """

    def __init__(self, settings: UpSettings, report: UpReport) -> None:
        self.settings = settings
        self.report = report
        self.stop = trio.Event()
        self.is_hurried = False
        self._record = own_record(version=VERSION, now_s=SystemClock().now())
        self._is_ready = False

    @property
    def data_dir(self) -> Path:
        """Where everything is."""
        return self.settings.data_dir

    @property
    def record(self) -> UpRecord:
        """What the other commands are told."""
        return self._record

    def update(self, **changes: object) -> None:
        """Tell the other commands something new."""
        self._record = attrs.evolve(self._record, **changes)  # type: ignore[arg-type]  # fields by name
        write_record(self.data_dir, self._record)

    async def begin(self) -> UpValues:
        """End what an earlier life left behind, choose ports, make secrets.

        Raises:
            CommandFailed: A port is taken; exit status 78.
        """
        left = read_record(self.data_dir)
        self.update()
        if left is not None and left.processes:
            await trio.to_thread.run_sync(
                partial(end_orphans, left, services_wait_s=ORPHANS_WAIT_S), abandon_on_cancel=True
            )
        settings = self.settings
        ports = choose_ports(
            settings.port_base,
            nodes=settings.nodes,
            has_nats=settings.nats,
            is_shared=settings.shared_port,
        )
        return UpValues(ports, UpSecrets.read_or_make(self.data_dir, has_nats=settings.nats))

    async def announce(self, values: UpValues) -> None:
        """Sign in the development user, then say to people and scripts that everything is there."""
        ports = values.ports
        profile = self.data_dir / PROFILE_FOLDER
        nodes: list[dict[str, str | int]] = [
            {
                "name": f"node-{number}",
                "url": f"ws://{HOST}:{ports.node(number)}{SYNC_PATH}",
                "admin_url": f"http://{HOST}:{ports.admin(number)}",
                "pid": self._record.processes.get(f"node-{number}", self._record.pid),
            }
            for number in range(1, ports.nodes + 1)
        ]
        record = attrs.evolve(
            self._record,
            is_ready=True,
            origin=f"http://{HOST}:{ports.origin}",
            control_url=f"http://{HOST}:{ports.control}",
            runtime_url=f"http://{HOST}:{ports.runtime}",
            sync_url=str(nodes[0]["url"]),
            admin_url=str(nodes[0]["admin_url"]),
            admin_token_file=str(values.parts.admin_token_file),
            profile=str(profile),
            nodes=nodes,
        )
        await sign_in_profile(profile, record, login=self.settings.login)
        self._record = record
        self.update()
        self._is_ready = True
        self.report.ready(self.data_dir, record)
        # Last: whoever waits for the file may then read what was printed.
        if self.settings.ready_file is not None:
            write_private(self.settings.ready_file, json_line(record.urls))

    async def watch_signals(self, root: trio.CancelScope) -> None:
        """Turn the first signal into ``stop``, a second one (or one before it is ready) into the end."""
        with trio.open_signal_receiver(*taken_signals()) as signals:
            async for _ in signals:
                self.is_hurried = self.stop.is_set()
                if self.is_hurried or not self._is_ready:
                    root.cancel()
                self.stop.set()
