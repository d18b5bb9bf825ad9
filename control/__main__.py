"""`python -m control serve | migrate`; `khala control` is the same service.

Exit status, signals and options: `khala_service.service_process`.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from control.app import SECTION, ControlConfig, ControlEndpoints, migrate, serve_control
from khala_service.config import ConfigSections
from khala_service.database_roles import foreign_role_error
from khala_service.service_commands import run_commands
from khala_service.service_process import LoggingConfig, Serve, run_service, service_environ

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["main", "serve"]


def serve(config_file: Path | None, is_leashed: bool) -> int:
    """Run control until it is asked to end; return the exit status."""

    def prepare() -> tuple[LoggingConfig, Serve[ControlEndpoints]]:
        sections = ConfigSections(config_file, service_environ())
        logging = sections.find(LoggingConfig, "logging")
        config = sections.find(ControlConfig, SECTION)
        if config is not None:
            sections.add_error(foreign_role_error(SECTION, config.database_dsn, "khala_control"))
        sections.refuse_errors()
        assert logging is not None
        assert config is not None
        return logging, partial(serve_control, config)

    return run_service("control", prepare, ports_of=lambda started: (started.port,), is_leashed=is_leashed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    return run_commands("control", serve=serve, migrate=migrate, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
