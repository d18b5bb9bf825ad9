"""``khala sessions``: where one is signed in, and ending it there."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click
import trio
from rich.table import Table
from rich.text import Text

from khala.cli.locations import find_settings, profile_option
from khala.cli.terminal import json_option, open_terminal
from khala.cli.wording import count_text, printable, relative_time
from khala_client.trio import Khala
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from khala_client.resources import SessionInfo

__all__ = ["session_record", "sessions_command", "state_of"]

T = TypeVar("T")


@click.group("sessions")
def sessions_command() -> None:
    """Where you are signed in: list sessions, and end them."""


@sessions_command.command("list")
@click.option("--device", default="", help="Only those of this device.")
@profile_option
@json_option
def list_command(device: str, profile: Path | None, *, is_json: bool) -> None:
    """List your newest 200 sessions, those that have ended too."""
    terminal = open_terminal(is_json=is_json)

    async def ask(khala: Khala) -> tuple[str, tuple[SessionInfo, ...]]:
        own = await khala.control.get_session()
        return own.session_id, await khala.control.list_sessions(device_id=device)

    own_id, sessions = _call(profile, ask)
    now_s = SystemClock().now()
    for session in sessions:
        terminal.data(session_record(session, own_id=own_id, now_s=now_s))
    terminal.show(_table(sessions, own_id=own_id, now_s=now_s))


@sessions_command.command("revoke")
@click.argument("session_id", required=False)
@click.option("--device", default="", help="End those of this device.")
@click.option("--others", is_flag=True, help="End all but this one.")
@click.option("--all", "is_all", is_flag=True, help="End all, this one too.")
@profile_option
@json_option
def revoke_command(
    session_id: str | None,
    *,
    device: str,
    others: bool,
    is_all: bool,
    profile: Path | None,
    is_json: bool,
) -> None:
    """End a session, or those of a device, all others, or all; their sockets close within a second."""
    if [bool(session_id), bool(device), others, is_all].count(True) != 1:
        raise click.UsageError("name one of: a session's id, --device, --others, --all")
    terminal = open_terminal(is_json=is_json)
    ended = _call(
        profile,
        lambda khala: khala.control.revoke_sessions(
            session_id=session_id or "", device_id=device, others=others
        ),
    )
    terminal.data({"type": "sessions_revoked", "session_ids": list(ended)})
    terminal.show(Text.assemble(("✗ ", "red"), f"{count_text(len(ended), 'session')} ended."))


def session_record(session: SessionInfo, *, own_id: str, now_s: float) -> dict[str, object]:
    """Return a session as JSON values."""
    return {
        "type": "session",
        "session_id": session.session_id,
        "state": state_of(session, now_s)[0],
        "is_this": session.session_id == own_id,
        "device_id": session.device_id,
        "surface": session.surface,
        "created_at_s": session.created_at_s,
        "expires_at_s": session.expires_at_s,
        "revoked_at_s": session.revoked_at_s,
        "revoked_reason": session.revoked_reason,
        "revoked_by": session.revoked_by,
    }


def state_of(session: SessionInfo, now_s: float) -> tuple[str, str]:
    """Return the word for a session's state at ``now_s`` (Unix seconds), and its style."""
    if session.revoked_at_s is not None:
        return "ended", "red"
    if session.expires_at_s <= now_s:
        return "expired", "yellow"
    return "active", "green"


def _table(sessions: tuple[SessionInfo, ...], *, own_id: str, now_s: float) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("session", "state", "device", "kind", "begun", "ended"):
        table.add_column(heading, no_wrap=True)
    for session in sessions:
        word, style = state_of(session, now_s)
        is_own = session.session_id == own_id
        ended = ""
        if session.revoked_at_s is not None:
            ended = f"{relative_time(session.revoked_at_s, now_s)} ({printable(session.revoked_reason)})"
        table.add_row(
            session.session_id,
            Text(f"{word}, this one" if is_own else word, style=style),
            session.device_id,
            session.surface,
            relative_time(session.created_at_s, now_s),
            ended,
        )
    return table


def _call(profile: Path | None, call: Callable[[Khala], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Khala(find_settings(profile)) as khala:
            return await call(khala)

    return trio.run(run)
