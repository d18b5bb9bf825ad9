"""Equal iff the caller asks for the same thing."""

from __future__ import annotations

import attrs

from runtime.core.events import EventColumns
from runtime.core.fingerprint import fingerprint_events, fingerprint_parts


def columns(*events: tuple[str, bytes], version: int = 1, prefix: str = "e") -> EventColumns:
    """Return events of these kinds and payloads."""
    return EventColumns(
        tuple(f"{prefix}{index}" for index in range(len(events))),
        tuple(kind for kind, _ in events),
        tuple(payload for _, payload in events),
        (version,) * len(events),
    )


def test_parts_are_kept_apart() -> None:
    """No two different lists of parts look the same, whatever is moved over a boundary."""
    lists: list[tuple[str, list[str | bytes | int | None]]] = [
        ("r", []),
        ("r", [None]),
        ("r", [""]),
        ("r", [0]),
        ("r", ["0"]),
        ("r", [b"0"]),
        ("r", ["a", "b"]),
        ("r", ["ab"]),
        ("r", ["ab", ""]),
        ("r", ["", "ab"]),
        ("ra", ["b"]),
        ("r", [None, None]),
        ("r", [-1]),
        ("r", [1]),
    ]
    assert len({fingerprint_parts(route, parts) for route, parts in lists}) == len(lists)
    assert fingerprint_parts("r", ["a"]) == fingerprint_parts("r", ["a"])


def test_events() -> None:
    """Kinds, payloads, versions, order and expected_seq enter; our event ids do not."""
    base = columns(("a", b"xy"), ("b", b""))
    different = [
        (columns(("a", b"x"), ("b", b"y")), None),
        (columns(("a", b"xy"), ("b", b""), version=2), None),
        (columns(("b", b""), ("a", b"xy")), None),
        (columns(("a", b"xy")), None),
        (columns(("ab", b"xy"), ("", b"")), None),
        (base, 0),
        (base, 1),
        (base, None),
    ]
    assert len({fingerprint_events(events, expected) for events, expected in different}) == len(different)
    renamed = columns(("a", b"xy"), ("b", b""), prefix="other")
    assert attrs.asdict(renamed) != attrs.asdict(base)
    assert fingerprint_events(renamed, None) == fingerprint_events(base, None)
