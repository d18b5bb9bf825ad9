"""What PostgreSQL itself says that a role has asked it: every statement, in its log.

For a while the server logs all statements, with the role of each; the superuser of the embedded
cluster is asked for that, as an administrator would be. Counted are executions, by the first line of the SQL.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos.load.system_under_test import SystemUnderTest

__all__ = ["StatementLog", "logged_statements"]

_SUPERUSER: Final = "postgres"
_PREFIX: Final = "%m [%p] user=%u "
# A statement of the extended protocol is logged as "execute <name>: ...".
_LOGGED: Final = re.compile(r" user=(?P<role>\S*) LOG:  (?:statement|execute [^:]*): (?P<sql>.*)")


@attrs.define
class StatementLog:
    """Executions by the first line of their SQL, of one role."""

    _file: Path
    _role: str
    _offset: int

    def read(self) -> Counter[str]:
        """Return what the role has executed since the last call."""
        with self._file.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found: Counter[str] = Counter()
        for line in whole.decode(errors="replace").splitlines():
            logged = _LOGGED.search(line)
            if logged is not None and logged["role"] == self._role:
                found[logged["sql"].strip()[:80]] += 1
        return found


@contextmanager
def logged_statements(system: SystemUnderTest, role: str) -> Iterator[StatementLog]:
    """Let PostgreSQL log all statements for a block; return the log of one role's.

    Raises:
        SystemFailedError: PostgreSQL refuses.
    """
    file = system.data_dir / "logs" / "postgres.log"
    system.query(
        f"ALTER SYSTEM SET log_line_prefix = '{_PREFIX}';\n"
        "ALTER SYSTEM SET log_statement = 'all';\nSELECT pg_reload_conf();",
        role=_SUPERUSER,
    )
    try:
        yield StatementLog(file, role, file.stat().st_size)
    finally:
        system.query(
            "ALTER SYSTEM RESET log_line_prefix;\nALTER SYSTEM RESET log_statement;\nSELECT pg_reload_conf();",
            role=_SUPERUSER,
        )
