"""An upgrade request as the node judges it, made of what a WebSocket library has parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from khala.core.origin_policy import UpgradeRequest
from khala_service.request_context import REQUEST_ID_HEADER, is_request_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from khala_service.client_address import TrustedProxies

__all__ = ["BAD_REQUEST", "read_upgrade_request"]

# For what no library can read.
BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def read_upgrade_request(
    target: str,
    offered: Iterable[str],
    get_all: Callable[[str], Sequence[str]],
    *,
    remote_address: str,
    proxies: TrustedProxies,
) -> UpgradeRequest:
    """Return what was asked for.

    Args:
        target: Path and query.
        offered: Subprotocols, in order.
        get_all: Values of a header, in order.
        remote_address: Who is connected to us.
        proxies: Whose word about clients is believed.
    """
    path, query = _split(target)
    origins = get_all("Origin")
    request_ids = get_all(REQUEST_ID_HEADER)
    return UpgradeRequest(
        path=path,
        query=query,
        # An empty one is one, and several match nothing.
        origin=", ".join(origins) if origins else None,
        subprotocols=tuple(part.strip() for part in offered if part.strip()),
        client_address=proxies.client_address(remote_address, get_all("X-Forwarded-For")),
        request_id=request_ids[0] if len(request_ids) == 1 and is_request_id(request_ids[0]) else "",
    )


def _split(target: str) -> tuple[str, str]:
    try:
        url = urlsplit(target)
    except ValueError:
        # "//[" begins an address that does not end: it is no path of ours.
        return target, ""
    return url.path, url.query
