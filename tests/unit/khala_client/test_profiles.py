from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs
import pytest

from khala_client.errors import ProfileRefused
from khala_client.file_lock import LockHeld
from khala_client.profiles import PROFILE_VERSION, Profile, ProfileDirectory, new_device_id
from khala_client.resources import SessionInfo, SessionTokens
from khala_contracts.ids import is_device_id

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = Profile("http://c", "http://r", "ws://s", "dev_00000001")
TOKENS = SessionTokens(
    access_token="access",
    access_expires_at_s=1_000.0,
    refresh_token="refresh",
    refresh_expires_at_s=9_000.0,
    session=SessionInfo("ses_1", "usr_1", "dev_00000001", "desktop", "ada", 0.0, 9_000.0, None, ()),
)


@pytest.fixture
def directory(tmp_path: Path) -> ProfileDirectory:
    """A directory that does not exist yet."""
    return ProfileDirectory(tmp_path / "deep" / "profile")


def test_saved_and_loaded(directory: ProfileDirectory) -> None:
    """Private, and the same afterwards."""
    signed_in = PROFILE.with_tokens(TOKENS)
    assert not directory.exists()
    directory.save(signed_in)
    assert directory.exists()
    assert directory.load() == signed_in
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert (directory.path / "profile.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in directory.path.iterdir()] == ["profile.json"]


def test_tokens_come_and_go() -> None:
    """Device and URLs stay; secrets do not show."""
    signed_in = PROFILE.with_tokens(TOKENS)
    assert signed_in.is_signed_in
    assert (signed_in.login, signed_in.namespace) == ("ada", "usr_1/dev_00000001")
    assert "access" not in repr(attrs.evolve(signed_in, access_expires_at_s=0)).replace("access_expires", "")
    signed_out = signed_in.signed_out()
    assert not signed_out.is_signed_in
    assert signed_out.refresh_token == ""
    assert signed_out.device_id == "dev_00000001"
    assert PROFILE.namespace == "nobody/dev_00000001"


def test_a_failed_save_leaves_the_old_one(
    directory: ProfileDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader sees the old or the new, never a half; nothing else is left behind."""
    directory.save(PROFILE)

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        directory.save(PROFILE.with_tokens(TOKENS))
    assert directory.load() == PROFILE
    assert [path.name for path in directory.path.iterdir()] == ["profile.json"]


def test_fields_of_a_later_client_are_passed_over(directory: ProfileDirectory) -> None:
    """Of the same version; a newer version is refused."""
    directory.save(PROFILE)
    file = directory.path / "profile.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "colour": "blue"}))
    assert directory.load() == PROFILE
    file.write_text(json.dumps({**document, "version": PROFILE_VERSION + 1}))
    with pytest.raises(ProfileRefused, match="version 2"):
        directory.load()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 1}', b'{"version": "x"}', b"\xff"])
def test_a_damaged_profile(directory: ProfileDirectory, content: bytes) -> None:
    """Refused, not guessed."""
    directory.path.mkdir(parents=True)
    (directory.path / "profile.json").write_bytes(content)
    with pytest.raises(ProfileRefused):
        directory.load()


def test_the_lock_is_one(directory: ProfileDirectory) -> None:
    """Two refreshes at once would sign each other out."""
    directory.save(PROFILE)
    with directory.hold_lock(), pytest.raises(LockHeld), directory.hold_lock():
        pytest.fail("held twice")


def test_device_ids_are_new_and_well_formed() -> None:
    """130 random bits each."""
    ids = {new_device_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(is_device_id(device_id) for device_id in ids)
