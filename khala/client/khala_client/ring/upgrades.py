"""What a refused upgrade to WebSocket means. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from khala_client.errors import Unavailable, error_for

if TYPE_CHECKING:
    from khala_client.errors import KhalaError

__all__ = ["upgrade_refused"]

_TOO_MANY: Final = 429


def upgrade_refused(status: int, body: bytes | bytearray | None = None) -> KhalaError:
    """Return the error for the HTTP status that answered the upgrade; 403 and 404 are final.

    A node that turns clients away gives each a time of its own to return, in the body.
    """
    details = {"status": str(status)}
    if status == 403:
        return error_for("origin_forbidden", details=details)
    if status == 404:
        return error_for("not_found", "no sync endpoint at this URL", details=details)
    if status == _TOO_MANY:
        return Unavailable(
            "the node is busy", code="rate_limited", retry_after_ms=_return_ms(body), details=details
        )
    return Unavailable("the upgrade to WebSocket was refused", details=details)


def _return_ms(body: bytes | bytearray | None) -> int:
    """Return what the body names; 0 for whatever is no body of ours."""
    try:
        named = json.loads(body or b"")["retry_after_ms"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return 0
    return named if isinstance(named, int) and named > 0 else 0
