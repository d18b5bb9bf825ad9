"""Named places at which a process can be made to die or to fail: for drills, in dev mode only.

    hit("runtime.committed")        costs a look into an empty dict while nothing is armed

A specification arms points: ``runtime.committed=kill@3,node.mid_frame=raise``. ``kill`` is SIGKILL of this
very process at the n-th hit (default: the first), ``raise`` is a ``FailpointError`` at that hit and none
after it. Before it acts, a point appends one line to the hit file, if there is one: what was hit is then
known although the process is dead. The services refuse a specification outside dev mode (exit 78).
"""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING, Final, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "FAILPOINTS",
    "FailpointError",
    "arm",
    "check_failpoint_settings",
    "disarm",
    "hit",
    "hits",
    "is_armed",
    "markdown_table",
    "parse_failpoints",
]

# Every point, and where it is. Documented in runbooks/failpoints.md.
FAILPOINTS: Final[Mapping[str, str]] = {
    "runtime.before_lock": "a batch has been taken, its transaction has begun, nothing is locked",
    "runtime.after_insert": "events, journal and heads are written, the answers are not",
    "runtime.before_commit": "everything is written, COMMIT has not been sent",
    "runtime.committed": "COMMIT was answered, neither the nodes nor the callers know",
    "runtime.after_hint": "the driver has taken a record",
    "runtime.before_checkpoint": "a projector has applied events, its checkpoint is not written",
    "node.after_append": "frames are in the window, no connection has them",
    "node.mid_frame": "the kernel has taken a part of a WebSocket frame",
    "node.mid_page": "a page of a replay has been sent in part",
    "node.topic": "a topic's task has work to do",
    "node.connection": "a connection has received a command",
}
_SPEC: Final = re.compile(r"(?P<name>[a-z_.]+)=(?P<action>kill|raise)(?:@(?P<at>[1-9][0-9]{0,8}))?")


class FailpointError(Exception):
    """Raised by an armed point: stands for any bug at that place."""


@attrs.define
class _Armed:
    action: Literal["kill", "raise"]
    # Invariant: remaining >= 0; 0: it has acted.
    remaining: int


_armed: dict[str, _Armed] = {}
_hits: dict[str, int] = {}
_hit_file: Path | None = None


def parse_failpoints(spec: str) -> dict[str, tuple[Literal["kill", "raise"], int]]:
    """Return action and hit number by point.

    Raises:
        ValueError: Not of the form above, or a point that does not exist.
    """
    parsed: dict[str, tuple[Literal["kill", "raise"], int]] = {}
    for part in filter(None, (part.strip() for part in spec.split(","))):
        match = _SPEC.fullmatch(part)
        if match is None:
            message = f"{part!r}: expected <point>=kill or <point>=raise, perhaps with @<n-th hit>"
            raise ValueError(message)
        name = match["name"]
        if name not in FAILPOINTS:
            message = f"{name!r} is not a failpoint; known are {', '.join(FAILPOINTS)}"
            raise ValueError(message)
        parsed[name] = ("kill" if match["action"] == "kill" else "raise", int(match["at"] or 1))
    return parsed


def markdown_table() -> str:
    """Return the points as the table of runbooks/failpoints.md."""
    lines = ["| point | where the process is |", "|---|---|"]
    lines += [f"| `{name}` | {place} |" for name, place in FAILPOINTS.items()]
    return "\n".join(lines)


def check_failpoint_settings(mode: str, spec: str, hit_file: Path | None) -> None:
    """Refuse what a service must not be configured with.

    Raises:
        ValueError: Failpoints outside mode dev, or a wrong specification; names the key.
    """
    if mode != "dev":
        for name, value in (("failpoints", spec), ("failpoint_file", hit_file)):
            if value:
                message = f"{name}: accepted in mode dev only"
                raise ValueError(message)
    try:
        parse_failpoints(spec)
    except ValueError as error:
        message = f"failpoints: {error}"
        raise ValueError(message) from None


def arm(spec: str, *, hit_file: Path | None = None) -> None:
    """Arm the points of a specification; those armed before stay, those named again start anew.

    Raises:
        ValueError: The specification is wrong; nothing was armed.
    """
    global _hit_file  # one process, one set of points
    parsed = parse_failpoints(spec)
    if hit_file is not None:
        _hit_file = hit_file
    for name, (action, at) in parsed.items():
        _armed[name] = _Armed(action, at)


def disarm() -> None:
    """Forget every point, hit and file."""
    global _hit_file
    _armed.clear()
    _hits.clear()
    _hit_file = None


def hits() -> Mapping[str, int]:
    """Return how often each armed point was passed since it was armed first."""
    return _hits


def is_armed(name: str) -> bool:
    """Whether the point will still act: for places that must prepare what is to be interrupted."""
    return bool(_armed) and name in _armed and _armed[name].remaining > 0


def hit(name: str) -> None:
    """Pass a point: nothing, unless it is armed.

    Raises:
        FailpointError: It was armed with ``raise`` and this is the hit.
    """
    if not _armed:
        return
    point = _armed.get(name)
    if point is None:
        return
    _hits[name] = _hits.get(name, 0) + 1
    if not point.remaining:
        return
    point.remaining -= 1
    if point.remaining:
        return
    _note(name, point.action)
    if point.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise FailpointError(name)


def _note(name: str, action: str) -> None:
    if _hit_file is not None:
        line = json.dumps({"failpoint": name, "action": action, "pid": os.getpid()}) + "\n"
        with _hit_file.open("a", encoding="utf-8") as file:
            file.write(line)
