"""``khala token`` and ``khala keys``: credentials for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import click
import trio
from rich.table import Table
from rich.text import Text

from khala.cli.durations import duration
from khala.cli.failures import CommandFailed
from khala.cli.locations import find_settings, profile_option
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.topics import parse_topic_argument
from khala.cli.wording import printable, relative_time
from khala_client.trio import Khala
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from khala_client.resources import OrgMembership, ServiceKey, SyncToken

__all__ = ["choose_org", "key_record", "keys_command", "state_of", "token_command"]

T = TypeVar("T")
RIGHTS: Final = ("publish", "work", "read", "mint")


@click.command("token")
@click.argument("topics", nargs=-1, required=True)
@click.option(
    "--ttl", "ttl_s", type=click.IntRange(60, 900), default=None, help="Lifetime in seconds.  [default: 300]"
)
@profile_option
@json_option
def token_command(topics: tuple[str, ...], ttl_s: int | None, profile: Path | None, *, is_json: bool) -> None:
    """Print a sync token for TOPICS: it opens one WebSocket connection, once."""
    terminal = open_terminal(is_json=is_json)
    names = [parse_topic_argument(topic) for topic in topics]
    token = _call(profile, lambda khala: khala.control.mint_sync_token(names, ttl_s=ttl_s or 0))
    _show_token(terminal, token)


def _show_token(terminal: Terminal, token: SyncToken) -> None:
    terminal.data(
        {
            "type": "sync_token",
            "token": token.token,
            "jti": token.jti,
            "expires_at_s": token.expires_at_s,
            "grants": [
                {"topic": grant.topic, "basis": grant.basis, "org_id": grant.org_id} for grant in token.grants
            ],
        }
    )
    # Alone on standard output: it is there to be put into a variable.
    terminal.line(token.token)
    if not terminal.is_json:
        terminal.remark(
            f"Ends {relative_time(token.expires_at_s, SystemClock().now())}; opens one connection."
        )


@click.group("keys")
def keys_command() -> None:
    """Service keys: long-lived credentials of programs, each with rights of its own."""


@keys_command.command("create")
@click.option("--name", required=True, help="What it is for.")
@click.option("--can", "rights", required=True, help=f"Rights, separated by commas: {', '.join(RIGHTS)}.")
@click.option(
    "--topics", default="", help="Topic patterns, separated by commas: run:*:events. Default: all of the org."
)
@click.option("--org", "org", default="", help="Id or name of the org; not needed if you have only one.")
@click.option(
    "--ttl", "ttl_s", type=duration, default=0, help="Lifetime, for example 90d; 0 means until revoked."
)
@profile_option
@json_option
def create_command(
    name: str, rights: str, topics: str, org: str, ttl_s: int, profile: Path | None, *, is_json: bool
) -> None:
    """Make a key and show its secret, once."""
    terminal = open_terminal(is_json=is_json)
    wanted = _split(rights)
    unknown = [right for right in wanted if right not in RIGHTS]
    if unknown or not wanted:
        raise click.BadParameter(f"choose from {', '.join(RIGHTS)}", param_hint="--can")

    async def create(khala: Khala) -> ServiceKey:
        org_id = choose_org(org, (await khala.control.get_session()).orgs)
        return await khala.control.create_key(
            name, rights=wanted, topics=_split(topics), org_id=org_id, ttl_s=ttl_s
        )

    key = _call(profile, create)
    terminal.data({**key_record(key), "secret": key.secret})
    terminal.line(key.secret or "")
    if not terminal.is_json:
        terminal.remark(f"Key {key.key_id}. This secret is not shown again; put it into KHALA_KEY.")


@keys_command.command("list")
@profile_option
@json_option
def list_command(profile: Path | None, *, is_json: bool) -> None:
    """List the keys that you may see, without their secrets."""
    terminal = open_terminal(is_json=is_json)
    keys = _call(profile, lambda khala: khala.control.list_keys())
    for key in keys:
        terminal.data(key_record(key))
    if keys:
        terminal.show(_keys_table(keys, now_s=SystemClock().now()))
    else:
        terminal.show(Text("No keys yet. `khala keys create` makes one.", style="dim"))


@keys_command.command("rotate")
@click.argument("key_id")
@click.option(
    "--overlap",
    "overlap_s",
    type=duration,
    default="1h",
    show_default=True,
    help="How long the old secret goes on working; 0 ends it, and every earlier one, now.",
)
@click.option(
    "--ttl", "ttl_s", type=duration, default=0, help="New lifetime of the key; 0 leaves its expiry."
)
@profile_option
@json_option
def rotate_command(key_id: str, overlap_s: int, ttl_s: int, profile: Path | None, *, is_json: bool) -> None:
    """Give a key a new secret and show it, once; its id and rights stay."""
    terminal = open_terminal(is_json=is_json)
    key = _call(profile, lambda khala: khala.control.rotate_key(key_id, overlap_s=overlap_s, ttl_s=ttl_s))
    terminal.data({**key_record(key), "secret": key.secret})
    terminal.line(key.secret or "")
    if not terminal.is_json:
        minutes, rest_s = divmod(overlap_s, 60)
        # Not rounded: somebody plans by it.
        lasts = f"{overlap_s} s" if rest_s or not minutes else f"{minutes} min"
        old = f"works for another {lasts}" if overlap_s else "has ended"
        terminal.remark(f"Key {key.key_id}: the old secret {old}. This one is not shown again.")


@keys_command.command("revoke")
@click.argument("key_id")
@profile_option
@json_option
def revoke_command(key_id: str, profile: Path | None, *, is_json: bool) -> None:
    """End a key now; repeating it changes nothing."""
    terminal = open_terminal(is_json=is_json)
    key = _call(profile, lambda khala: khala.control.revoke_key(key_id))
    terminal.data(key_record(key))
    terminal.show(Text.assemble(("✗ ", "red"), f"Key {key.key_id} ({printable(key.name)}) is revoked."))


def key_record(key: ServiceKey) -> dict[str, object]:
    """Return a key as JSON values, without its secret."""
    return {
        "type": "key",
        "key_id": key.key_id,
        "name": key.name,
        "org_id": key.org_id,
        "rights": list(key.rights),
        "topics": list(key.topics),
        "created_at_s": key.created_at_s,
        "expires_at_s": key.expires_at_s,
        "last_used_at_s": key.last_used_at_s,
        "revoked_at_s": key.revoked_at_s,
        "rotated_at_s": key.rotated_at_s,
        "old_secret_ends_at_s": key.old_secret_ends_at_s,
    }


def _keys_table(keys: tuple[ServiceKey, ...], *, now_s: float) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("key", "state", "rights", "made", "last used"):
        table.add_column(heading, no_wrap=True)
    table.add_column("name", overflow="fold")
    table.add_column("topics", overflow="fold")
    for key in keys:
        word, style = state_of(key, now_s)
        table.add_row(
            key.key_id,
            Text(word, style=style),
            ", ".join(key.rights),
            relative_time(key.created_at_s, now_s),
            relative_time(key.last_used_at_s, now_s) if key.last_used_at_s else "never",
            printable(key.name),
            ", ".join(key.topics) or "all of its org",
        )
    return table


def state_of(key: ServiceKey, now_s: float) -> tuple[str, str]:
    """Return the word for a key's state at ``now_s`` (Unix seconds), and its style."""
    if key.revoked_at_s is not None:
        return "revoked", "red"
    if key.expires_at_s is not None and key.expires_at_s <= now_s:
        return "expired", "yellow"
    if key.old_secret_ends_at_s is not None and key.old_secret_ends_at_s > now_s:
        return "two secrets", "yellow"
    return "active", "green"


def choose_org(wanted: str, orgs: tuple[OrgMembership, ...]) -> str:
    """Return the id of the org that was named by id or name, or the only one.

    Raises:
        CommandFailed: None or several could be meant; names them.
    """
    if not wanted and len(orgs) == 1:
        return orgs[0].org_id
    found = [org.org_id for org in orgs if wanted in (org.org_id, org.name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{org.name} ({org.org_id})" for org in orgs) or "none"
    raise CommandFailed(f"name one of your orgs with --org: {known}")


def _split(text: str) -> list[str]:
    return [part for part in (part.strip() for part in text.split(",")) if part]


def _call(profile: Path | None, call: Callable[[Khala], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Khala(find_settings(profile)) as khala:
            return await call(khala)

    return trio.run(run)
