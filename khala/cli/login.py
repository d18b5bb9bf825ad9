"""``khala login`` and ``khala logout``: who acts on this machine, kept in a profile directory.

People sign in through their browser (RFC 8252): the command listens on a port of 127.0.0.1, opens the sign-in of
control, and exchanges the code that the browser brings. ``--dev`` signs a development user in without one.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click
import trio
from rich.text import Text

from khala.cli.failures import EXIT_REFUSED, CommandFailed
from khala.cli.locations import data_dir_option, default_login_profile, find_profile, profile_of
from khala.cli.loopback_listener import open_loopback_listener
from khala.cli.terminal import Terminal, json_option, open_terminal
from khala.cli.wording import duration_text, printable
from khala_client.errors import KhalaError, ProfileRefused, ReauthRequired
from khala_client.http import ControlClient
from khala_client.http_calls import check_base_url, open_http, send_to_redirect
from khala_client.profiles import Profile, ProfileDirectory, new_device_id
from khala_client.settings import format_sync_url
from khala_client.sign_in import BrowserSignIn
from khala_client.trio import ProfileCredentials
from khala_contracts.sync_claims import Surface
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from khala_client.resources import SessionTokens

__all__ = ["login_command", "logout_command"]

# A person looks for the second factor. Longer: a forgotten command listens on.
WAIT_S: Final = 300.0


@click.command("login")
@click.option(
    "--url", default="", help="Origin of the system: https://khala.example.  [default: the profile's]"
)
@click.option("--dev", "is_dev", is_flag=True, help="As a development user, without a browser.")
@click.option("--user", default="dev", show_default=True, help="Which development user, with --dev.")
@click.option(
    "--profile",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Directory that keeps the session.  [default: KHALA_PROFILE, else ~/.config/khala/profile]",
)
@data_dir_option
@click.option("--no-browser", is_flag=True, help="Only print the address to open.")
@click.option(
    "--timeout",
    "wait_s",
    type=click.FloatRange(1, 3600),
    default=WAIT_S,
    help="Seconds to wait.  [default: 300]",
)
@json_option
def login_command(
    *,
    url: str,
    is_dev: bool,
    user: str,
    profile: Path | None,
    data_dir: Path,
    no_browser: bool,
    wait_s: float,
    is_json: bool,
) -> None:
    """Sign in, through the browser or (with --dev) as a development user."""
    terminal = open_terminal(is_json=is_json)
    directory, saved = _target(url, is_dev=is_dev, profile=profile, data_dir=data_dir)
    try:
        if is_dev:
            tokens = trio.run(_sign_in_dev, saved, user)
        else:
            tokens = trio.run(_sign_in_by_browser, saved, terminal, no_browser, wait_s)
    except KhalaError as error:
        if error.code != "not_found":
            raise
        who = "has no development sign-in" if is_dev else "signs nobody in; ask for a service key"
        raise CommandFailed(f"{saved.control_url} {who}") from error
    directory.save(saved.with_tokens(tokens))
    session = tokens.session
    terminal.data(
        {
            "type": "signed_in",
            "profile": str(directory.path),
            "control_url": saved.control_url,
            "login": session.login,
            "user_id": session.user_id,
            "session_id": session.session_id,
            "device_id": session.device_id,
        }
    )
    terminal.show(
        Text.assemble(("● ", "green"), f"Signed in as {printable(session.login)} at {saved.control_url}.")
    )
    if directory.path != default_login_profile():
        terminal.show(Text(f"  profile  {directory.path}", style="dim"))


def _target(
    url: str, *, is_dev: bool, profile: Path | None, data_dir: Path
) -> tuple[ProfileDirectory, Profile]:
    """Return where the session is kept, and the profile that will hold it.

    Raises:
        CommandFailed: Nothing says where to sign in.
    """
    url = url or os.environ.get("KHALA_URL", "")
    up = profile_of(data_dir.expanduser().absolute())
    path = find_profile(profile)
    if path is None:
        # The development user of this machine is the one of its khala up; everybody else has a place of his own.
        path = up if is_dev and not url else default_login_profile()
    directory = ProfileDirectory(path.expanduser().absolute())
    own = _saved(directory)
    # The same system for another user: where the person works at present, else the khala up of this machine.
    known = own or _saved(ProfileDirectory(find_profile(None) or up))
    if url:
        base_url = check_base_url(url, name="--url")
        wanted = Profile(base_url, base_url, format_sync_url(base_url), new_device_id())
    elif known is not None and (is_dev or own is not None):
        wanted = Profile(known.control_url, known.runtime_url, known.sync_url, new_device_id())
    else:
        raise CommandFailed(
            "name the system with --url https://...; where `khala up` runs, --dev is enough",
            exit_status=EXIT_REFUSED,
        )
    # Cursors belong to a device, and a device to one system.
    if own is not None and own.control_url == wanted.control_url:
        wanted = attrs.evolve(wanted, device_id=own.device_id)
    return directory, wanted


def _saved(directory: ProfileDirectory) -> Profile | None:
    try:
        return directory.load()
    except ProfileRefused:
        return None


async def _sign_in_dev(profile: Profile, user: str) -> SessionTokens:
    async with open_http() as http:
        return await ControlClient(profile.control_url, http, None).sign_in_dev(
            user, device_id=profile.device_id
        )


async def _sign_in_by_browser(
    profile: Profile, terminal: Terminal, is_only_printed: bool, wait_s: float
) -> SessionTokens:
    """Return the session that the person opened in a browser.

    Raises:
        CommandFailed: Nobody did in time.
        KhalaError: ``not_found``; people do not sign in there.
    """
    got: list[SessionTokens] = []
    done = trio.Event()

    async def answer(code: str) -> str | None:
        try:
            tokens = await sign_in.exchange(http, code)
        except ReauthRequired:
            return None
        got.append(tokens)
        done.set()
        return f"Signed in as {tokens.session.login}. You can close this page."

    async with open_http() as http, open_loopback_listener(answer) as port:
        sign_in = BrowserSignIn(profile.control_url, profile.device_id, port, Surface.DESKTOP)
        # What is wrong with the address is said here, not in a page that leads nowhere.
        await send_to_redirect(http, sign_in.url)
        is_opened = not is_only_printed and await trio.to_thread.run_sync(_open_browser, sign_in.url)
        terminal.data({"type": "sign_in", "url": sign_in.url, "opened": is_opened})
        said = (
            "Sign in in the browser that was opened"
            if is_opened
            else "Open this in a browser on this machine"
        )
        terminal.show(Text(f"{said}:", style="bold"))
        terminal.line(f"  {sign_in.url}")
        with trio.move_on_after(wait_s):
            await done.wait()
            # The page is on its way to the browser; it is worth a moment, and never the session.
            with trio.move_on_after(1):
                await trio.sleep(0.2)
    if not got:
        raise CommandFailed(f"nobody signed in within {duration_text(wait_s)}; run `khala login` again")
    return got[0]


def _open_browser(url: str) -> bool:
    """Open the person's browser; False where there is none to see, or only one that would take the terminal."""
    has_screen = sys.platform in {"darwin", "win32"} or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    try:
        return has_screen and webbrowser.open(url)
    except webbrowser.Error:
        return False


@click.command("logout")
@click.option(
    "--profile",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Signed-in profile directory; default: as for every command.",
)
@json_option
def logout_command(profile: Path | None, *, is_json: bool) -> None:
    """End the session of a profile, here and at the server; the profile stays."""
    terminal = open_terminal(is_json=is_json)
    path = find_profile(profile, has_default=True)
    if path is None:
        raise CommandFailed("nobody is signed in here")
    directory = ProfileDirectory(path)
    saved = directory.load()
    was_alive = trio.run(_log_out, directory, saved) if saved.is_signed_in else False
    directory.save(directory.load().signed_out())
    terminal.data({"type": "signed_out", "profile": str(path), "was_signed_in": was_alive})
    terminal.show(Text.assemble(("○ ", "bold"), f"Signed out of {saved.control_url}."))


async def _log_out(directory: ProfileDirectory, profile: Profile) -> bool:
    """End the session; False if it had ended."""
    async with open_http() as http:
        open_control = ControlClient(profile.control_url, http, None)
        credentials = ProfileCredentials(
            directory, profile, control=open_control, wall_clock=SystemClock().now
        )
        try:
            await ControlClient(profile.control_url, http, credentials).log_out()
        except ReauthRequired:
            return False
    return True
