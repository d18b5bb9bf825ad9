"""Which upgrade requests are served: path, no credentials in the URL, allowed origins.

Browsers send Origin and cannot be kept from connecting otherwise; other clients send none and
are let through, since their token decides. Checked before the upgrade, so that a page of another
site never gets as far as a socket.
"""

from __future__ import annotations

from typing import Final

import attrs

SYNC_PATH: Final = "/sync/v1/ws"


@attrs.frozen
class UpgradeRequest:
    """What a client asked for before the upgrade.

    Attributes:
        path: Without the query.
        query: Without the question mark.
        origin: As the browser wrote it; None if there is none; several are joined and match nothing.
        subprotocols: As offered, in order.
        client_address: Of the client, as far as our own proxies know it.
        request_id: The X-Request-Id of the client, empty if it sent none of the form that we take over.
    """

    path: str
    query: str
    origin: str | None
    subprotocols: tuple[str, ...]
    client_address: str = ""
    request_id: str = ""


@attrs.frozen
class ExactOrigins:
    """Serves the sync path to an exact list of origins."""

    allowed: frozenset[str]

    def refusal(self, request: UpgradeRequest) -> tuple[int, str] | None:
        """Return the HTTP status and constant text with which to refuse, or None."""
        if request.path != SYNC_PATH:
            return 404, "not found"
        if request.query:
            return 400, "no parameters here: the token belongs into the first message"
        if request.origin is not None and request.origin not in self.allowed:
            return 403, "origin not allowed"
        return None
