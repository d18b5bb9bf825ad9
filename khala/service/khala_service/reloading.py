"""What a running process reads again when it is told to: SIGHUP, for services.

Signals belong to a process, so this is one list per process: whoever holds something that can be read again
says so for as long as it holds it. What cannot be used is refused, and what was in force stays in force.

Of a service's configuration the limits, minimum builds and flags are read again (`reloadable_config`); the whole of
it is judged as at the start, and what differs elsewhere is named in the log and waits for a restart.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from khala_service.config import ConfigRefused
from khala_service.live_limits import TakesEffect
from khala_service.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from khala_service.live_limits import LimitChange

__all__ = ["OUTCOMES", "outcomes", "reload_all", "reloadable", "reloadable_config"]

C = TypeVar("C", bound=attrs.AttrsInstance)
# What became of a request to read something again, by part.
OUTCOMES: Final = ("applied", "refused")

_log = get_logger(__name__)
_held: Final[list[tuple[str, Callable[[], None]]]] = []
_outcomes: Final[Counter[str]] = Counter()


def outcomes() -> Counter[str]:
    """Return how often parts of this process were read again, by outcome."""
    return _outcomes


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


@contextmanager
def reloadable_config(
    section: str,
    config: C,
    reread: Callable[[], C] | None,
    *,
    live: Sequence[str],
    apply: Callable[[C], Sequence[LimitChange]],
) -> Iterator[None]:
    """Read a service's configuration again at each request while inside the block.

    Args:
        section: Its section, as log lines name keys.
        config: What is in force at the start.
        reread: Reads file and variables again and judges all of it; None: nothing is ever read again.
        live: The fields that ``apply`` puts into force.
        apply: Puts them into force in one step and returns what changed; must neither wait nor raise.
    """

    def reload() -> None:
        assert reread is not None
        wanted = reread()
        changes = apply(wanted)
        for change in changes:
            is_waiting = change.takes_effect is TakesEffect.RESTART
            _log.info(
                "limit_waits_for_restart" if is_waiting else "limit_changed",
                limit=f"{section}.{change.name}",
                old=change.old,
                new=change.new,
            )
        waiting = [
            f"{section}.{field.name}"
            for field in attrs.fields(type(config))
            if field.name not in live and getattr(wanted, field.name) != getattr(config, field.name)
        ]
        if waiting:
            _log.warning("reload_ignored", keys=waiting, reason="takes effect at the next start")

    if reread is None:
        yield
        return
    with reloadable(section, reload):
        yield


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
            _outcomes["refused"] += 1
            _log.error("reload_refused", part=name, reasons=list(refused.errors))
        else:
            _outcomes["applied"] += 1
            _log.info("reloaded", part=name)
    return is_clean
