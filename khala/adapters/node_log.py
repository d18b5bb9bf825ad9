"""What a node writes to its log about connections and contained crashes.

Each line that a connection causes carries its id: the id is bound to the task that serves it and to the
tasks which that one starts; where another task meets the trouble (a topic that writes to the socket), the
line names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from khala_service.logs import bind_log_context, get_logger

if TYPE_CHECKING:
    from khala.actors.connection import Connection

_log = get_logger("khala.node")


class NodeLog:
    """Implements CrashLog of actors/supervision.py and ConnectionLog of actors/listener.py."""

    def task_crashed(
        self, kind: str, name: str, exc: BaseException, *, restart_in_s: float | None = None
    ) -> None:
        """Report one contained crash; see CrashLog."""
        about = {"connection_id": name} if kind == "connection" else {"name": name}
        _log.error(f"{kind}_crashed", **about, restart_in_s=restart_in_s, exc_info=exc)

    def connection_opened(self, connection: Connection) -> None:
        """Bind the connection's id to the current task; see ConnectionLog."""
        bind_log_context(connection_id=connection.connection_id)
        _log.debug("connection_opened")

    def connection_closed(self, connection: Connection) -> None:
        """Say who it was, for how long, and why it ended; see ConnectionLog."""
        claims = connection.claims
        who = {} if claims is None else {"user_id": claims.user_id, "session_id": claims.session_id}
        # Without a label nobody ended it in words: it was cancelled with the node, or never began.
        unsaid = "never_greeted" if claims is None else "dropped"
        _log.info(
            "connection_closed",
            reason=connection.ended_as or unsaid,
            app_version=connection.app_version,
            client=connection.client_address,
            duration_s=round(trio.current_time() - connection.opened_at, 3),
            **who,
        )
