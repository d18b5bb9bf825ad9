"""Which system a drill stands on. Drills with equal setups may share one that runs."""

from __future__ import annotations

import attrs

__all__ = ["SystemSetup"]


@attrs.frozen(kw_only=True)
class SystemSetup:
    """A split system.

    Attributes:
        nodes: How many.
        has_nats: Whether a broker carries the news.
        driver: Of the fan-out; empty: what ``khala up`` takes by itself.
        links: Pairs of processes with the fault proxy between them, as ``client.server``: a client is
            ``control``, ``runtime`` or a node's name, a server ``postgres``, ``nats``, ``control`` or
            ``runtime``; or ``clients.<node>``, the way on which followers of that node come.
        environ: Variables of its processes, over those of the drill.
        has_shim: Whether PostgreSQL's disk and clock can be harmed; needs Linux and a C compiler.
    """

    nodes: int = 2
    has_nats: bool = False
    driver: str = ""
    links: tuple[str, ...] = ()
    environ: tuple[tuple[str, str], ...] = ()
    has_shim: bool = False
