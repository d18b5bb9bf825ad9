"""Which build this is, as servers are told."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

__all__ = ["CLIENT_BUILD_ID", "USER_AGENT", "VERSION"]


def _installed_version() -> str:
    # The client is installed by itself (khala-client) or as a part of the whole system (khala).
    for distribution in ("khala-client", "khala"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "0.0.0"


VERSION: Final = _installed_version()
# A version, so that a server can compare it with its oldest accepted build.
CLIENT_BUILD_ID: Final = VERSION
USER_AGENT: Final = f"khala-client/{VERSION}"
