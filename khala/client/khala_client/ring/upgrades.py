"""What a refused upgrade to WebSocket means. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from khala_client.errors import Unavailable, error_for

if TYPE_CHECKING:
    from khala_client.errors import KhalaError

__all__ = ["upgrade_refused"]


def upgrade_refused(status: int) -> KhalaError:
    """Return the error for the HTTP status that answered the upgrade; 403 and 404 are final."""
    details = {"status": str(status)}
    if status == 403:
        return error_for("origin_forbidden", details=details)
    if status == 404:
        return error_for("not_found", "no sync endpoint at this URL", details=details)
    return Unavailable("the upgrade to WebSocket was refused", details=details)
