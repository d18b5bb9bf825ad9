"""Origins of web pages, as browsers write them: what `cors_origins` may hold. Pure.

The list is compared byte by byte with what a browser sends, so an entry that no browser sends would
silently allow nobody: it is refused at the start, with the form that it should have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DESCRIPTION", "check_origins", "origin_error"]

DESCRIPTION: Final = (
    "Origins whose pages may use this service, exactly as browsers send them: https://app.example."
)
# Any scheme: pages of installed applications have their own (tauri://localhost).
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?",
    re.ASCII,
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PORT_MAX: Final = 65_535


def origin_error(text: str) -> str | None:
    """Return what is wrong with an origin, None if browsers could send it."""
    if text in ("*", "null"):
        return "stands for every page; name the origins"
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return "expected scheme://host or scheme://host:port, lower case, without a path"
    port = match["port"]
    if port is not None and int(port) > _PORT_MAX:
        return f"port {port} does not exist"
    if port is not None and int(port) == _DEFAULT_PORTS.get(match["scheme"]):
        return f"browsers leave out :{port}"
    return None


def check_origins(origins: Iterable[str]) -> None:
    """Refuse a list with an entry that no browser sends; for the configuration of a service.

    Raises:
        ValueError: naming the first one.
    """
    for origin in origins:
        error = origin_error(origin)
        if error is not None:
            message = f"cors_origins: {origin!r}: {error}"
            raise ValueError(message)
