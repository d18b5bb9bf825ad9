"""What a running process reads again when it is told to: SIGHUP, for services.

Signals belong to a process, so this is one list per process: whoever holds something that can be read again
says so for as long as it holds it. What cannot be used is refused, and what was in force stays in force.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from khala_service.config import ConfigRefused
from khala_service.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["reload_all", "reloadable"]

_log = get_logger(__name__)
_held: Final[list[tuple[str, Callable[[], None]]]] = []


@contextmanager
def reloadable(name: str, reload: Callable[[], None]) -> Iterator[None]:
    """Have ``reload`` called at each request while inside the block.

    Args:
        name: What it is, in logs.
        reload: Reads again, and raises ConfigRefused before it has changed anything.
    """
    entry = (name, reload)
    _held.append(entry)
    try:
        yield
    finally:
        _held.remove(entry)


def reload_all() -> bool:
    """Read everything again; return whether all of it could be used.

    A refusal is logged with its reasons and concerns its own part only.
    """
    is_clean = True
    for name, reload in tuple(_held):
        try:
            reload()
        except ConfigRefused as refused:
            is_clean = False
            _log.error("reload_refused", part=name, reasons=list(refused.errors))
        else:
            _log.info("reloaded", part=name)
    return is_clean
