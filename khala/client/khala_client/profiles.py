"""A profile: a directory that remembers where the services are and who is signed in there.

    profile.json   0600, replaced atomically (a reader sees the old or the new one, never a half)
    profile.lock   held while a refresh token is exchanged: it works once, and two processes that
                   exchange it at the same time would sign each other out
    store.sqlite3  the followed topics of this profile (khala_client.store)

The directory is 0700. The device id is made once and stays; signing in as somebody else keeps it.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from khala_client.errors import ProfileRefused
from khala_client.file_lock import hold_file_lock

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from khala_client.resources import SessionTokens

__all__ = ["PROFILE_VERSION", "Profile", "ProfileDirectory", "new_device_id"]

PROFILE_VERSION: Final = 1
_FILE: Final = "profile.json"
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"


def new_device_id() -> str:
    """Return a device id that no other device has: 130 random bits."""
    return "dev_" + "".join(secrets.choice(_ALPHABET) for _ in range(26))


@attrs.frozen
class Profile:
    """What profile.json holds. Tokens are secrets and do not show in the repr; times are Unix seconds."""

    control_url: str
    runtime_url: str
    sync_url: str
    device_id: str
    login: str = ""
    user_id: str = ""
    session_id: str = ""
    access_token: str = attrs.field(default="", repr=False)
    access_expires_at_s: float = 0.0
    refresh_token: str = attrs.field(default="", repr=False)
    refresh_expires_at_s: float = 0.0

    @property
    def is_signed_in(self) -> bool:
        """True if there is a token to try; whether it is still good is the server's to say."""
        return bool(self.access_token)

    @property
    def namespace(self) -> str:
        """Whose cursors a store keeps: this user on this device."""
        return f"{self.user_id or 'nobody'}/{self.device_id}"

    def with_tokens(self, tokens: SessionTokens) -> Profile:
        """Return the profile after a sign-in or refresh."""
        return attrs.evolve(
            self,
            login=tokens.session.login or self.login,
            user_id=tokens.session.user_id,
            session_id=tokens.session.session_id,
            access_token=tokens.access_token,
            access_expires_at_s=tokens.access_expires_at_s,
            refresh_token=tokens.refresh_token,
            refresh_expires_at_s=tokens.refresh_expires_at_s,
        )

    def signed_out(self) -> Profile:
        """Return the profile without its tokens."""
        return attrs.evolve(
            self, access_token="", access_expires_at_s=0.0, refresh_token="", refresh_expires_at_s=0.0
        )


class ProfileDirectory:
    """Reads and writes one profile. Calls are synchronous and short."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def store_path(self) -> Path:
        """Where followers with this profile keep their cursors."""
        return self.path / "store.sqlite3"

    def exists(self) -> bool:
        """Return whether a profile was saved here."""
        return (self.path / _FILE).is_file()

    def load(self) -> Profile:
        """Return the saved profile.

        Raises:
            ProfileRefused: there is none, it cannot be read, or a newer client wrote it.
        """
        try:
            text = (self.path / _FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            message = f"no profile in {self.path}: sign in first"
            raise ProfileRefused(message) from None
        except (OSError, UnicodeDecodeError) as error:
            message = f"the profile in {self.path} cannot be read: {error}"
            raise ProfileRefused(message) from error
        return _parse_profile(text, self.path)

    def save(self, profile: Profile) -> None:
        """Replace the saved profile; the directory is made (0700) if it is missing.

        Raises:
            OSError: nothing was changed.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = {"version": PROFILE_VERSION, **attrs.asdict(profile)}
        # mkstemp makes 0600 files; the new name is durable only once the directory is synced, and a
        # lost refresh token is a lost session.
        descriptor, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{_FILE}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path / _FILE)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_directory(self.path)

    def hold_lock(self) -> AbstractContextManager[None]:
        """Hold the refresh lock inside the block; LockHeld at once if somebody else does."""
        return hold_file_lock(self.path / "profile.lock")


def _parse_profile(text: str, path: Path) -> Profile:
    try:
        document = json.loads(text)
        version = document.pop("version")
        if version > PROFILE_VERSION:
            message = f"the profile in {path} has version {version}; this client knows {PROFILE_VERSION}"
            raise ProfileRefused(message)
        known = {field.name for field in attrs.fields(Profile)}
        return Profile(**{name: value for name, value in document.items() if name in known})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"the profile in {path} is damaged: {type(error).__name__}"
        raise ProfileRefused(message) from error


def _sync_directory(path: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open directories; its rename is durable by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
