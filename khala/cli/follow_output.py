"""What a follower prints: events, news of the stream, and how it ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Literal

import attrs
from rich.text import Text

from khala.cli.event_lines import BODY_LINES_MAX, format_event, style_event
from khala.cli.event_view import view_event
from khala.cli.wording import count_text, duration_text
from khala_client.history import format_history_line
from khala_client.notices import (
    Connected,
    Disconnected,
    GapSeen,
    HeadSeen,
    HistoryRead,
    Lagged,
    Live,
    Notice,
    Released,
    Replaying,
    Retrying,
)

if TYPE_CHECKING:
    from khala.cli.terminal import Terminal
    from khala_client.errors import KhalaError
    from khala_client.events import Event

__all__ = ["FollowEnd", "FollowOutput", "Verification", "event_record"]

# ``unknown``: it was asked for, but the authority could not be reached.
Verification = Literal["not_asked", "verified", "differs", "unknown"]
_VERIFIED: Final = {"not_asked": None, "verified": True, "differs": False, "unknown": None}


@attrs.frozen
class FollowEnd:
    """How following a topic ended.

    Attributes:
        reason: ``finished``, ``interrupted`` or ``refused``.
        events: Number of events that were printed.
        through_seq: Position that was reached, 0 if there is none; also where nothing new came.
        chain: Chain there.
        verification: Whether the authority's chain there is the same.
        error: Set if reason is ``refused``.
    """

    topic: str
    reason: str
    events: int
    through_seq: int
    chain: bytes = b""
    verification: Verification = "not_asked"
    error: KhalaError | None = None

    @property
    def exit_status(self) -> int:
        """0 if it ended as asked, with the right history."""
        return 1 if self.error is not None or self.verification in {"differs", "unknown"} else 0


def event_record(event: Event) -> dict[str, object]:
    """Return an event as JSON values: its place in the chain, and its data."""
    line: dict[str, object] = json.loads(format_history_line(event))
    return {"type": "event", **line, "data": dict(event.data)}


class FollowOutput:
    """Prints one follower's events as they come."""

    def __init__(self, terminal: Terminal, *, is_verifying: bool, is_full: bool) -> None:
        self._terminal = terminal
        self._is_verifying = is_verifying
        self._body_lines_max = None if is_full else BODY_LINES_MAX
        self._was_disconnected = False
        self._has_printed = False
        self._has_read_history = False

    def event(self, event: Event) -> None:
        """Print one event."""
        self._has_printed = True
        if self._terminal.is_json:
            self._terminal.data(event_record(event))
            return
        view = view_event(event.kind, event.data)
        if not self._terminal.is_decorated:
            self._terminal.line(format_event(event.seq, event.kind, view))
            return
        width = self._terminal.out.width
        self._terminal.out.print(
            style_event(event.seq, event.kind, view, width=width, body_lines_max=self._body_lines_max)
        )

    def notice(self, notice: Notice) -> None:
        """Say how the stream is doing, on standard error."""
        match notice:
            case Connected() if self._was_disconnected:
                self._was_disconnected = False
                self._terminal.remark("connected again")
            case Disconnected():
                self._was_disconnected = True
                wait = f"again in {duration_text(notice.retry_in_s)}" if notice.retry_in_s else "again now"
                self._terminal.remark(f"disconnected ({notice.code}), {wait}", style="yellow")
            case Live():
                self._live(notice)
            case Lagged():
                self._terminal.remark(
                    f"lagging: at {notice.from_seq:,} of {notice.head_seq:,}; nothing is lost"
                )
            case GapSeen():
                self._terminal.remark(f"gap on the wire at {notice.expected_seq:,}; resuming", style="yellow")
            case Released():
                wait = duration_text(notice.delay_s)
                self._terminal.remark(f"released as too slow; resuming in {wait}", style="yellow")
            case Retrying():
                self._terminal.remark(
                    f"refused for now ({notice.code}), again in {duration_text(notice.delay_s)}"
                )
            case HistoryRead():
                if not self._has_read_history:
                    self._has_read_history = True
                    self._terminal.remark(
                        f"beyond what is replayed: reading history, {notice.head_seq:,} events"
                    )
            case Connected() | Replaying() | HeadSeen():
                return

    def _live(self, notice: Live) -> None:
        self._terminal.data(
            {"type": "live", "topic": notice.topic, "seq": str(notice.seq), "chain": notice.chain.hex()}
        )
        if not self._terminal.is_json:
            is_verified = self._is_verifying and self._has_printed
            verified = f"; chain verified through {notice.seq:,}" if is_verified else ""
            self._terminal.remark(f"live at {notice.seq:,}{verified}", style="green")

    def end(self, end: FollowEnd) -> None:
        """Print the last line: how many events, through which position, verified or not."""
        error = end.error
        self._terminal.data(
            {
                "type": "end",
                "topic": end.topic,
                "reason": end.reason,
                "events": end.events,
                "through_seq": str(end.through_seq),
                "chain": end.chain.hex(),
                "verified": _VERIFIED[end.verification],
                "code": error.code if error is not None else None,
                "advice": error.advice.value if error is not None else None,
            }
        )
        if not self._terminal.is_json:
            self._terminal.err.print(_end_line(end))


def _end_line(end: FollowEnd) -> Text:
    text = Text(f"{end.reason}: {count_text(end.events, 'event')}", style="dim")
    if end.through_seq:
        text.append(f", through {end.through_seq:,}")
    if end.verification == "verified":
        text.append("  ✓ chain verified", style="bold green")
        text.append(f" {end.chain.hex()[:16]}…", style="dim")
    elif end.verification == "differs":
        text.append("  ✗ the chain differs from the authority's: this is not its history", style="bold red")
    elif end.verification == "unknown":
        text.append("  ? the chain could not be compared: no answer", style="yellow")
    return text
