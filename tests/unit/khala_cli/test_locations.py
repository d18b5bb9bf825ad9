"""Unit tests of khala.cli.locations."""

from __future__ import annotations

from pathlib import Path

import pytest

from khala.cli.locations import default_data_dir, default_login_profile, find_profile, find_settings
from khala_client.errors import SettingsRefused
from khala_client.profiles import Profile, ProfileDirectory


def save_profile(path: Path, login: str) -> Path:
    """Save a profile; return its directory."""
    profile = Profile(
        control_url="http://127.0.0.1:1",
        runtime_url="http://127.0.0.1:2",
        sync_url="ws://127.0.0.1:3/x",
        device_id=f"dev_{login}1234",
        login=login,
    )
    ProfileDirectory(path).save(profile)
    return path


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Path.home() / ".local/share/khala"),
        ({"XDG_DATA_HOME": "/data"}, Path("/data/khala")),
        ({"XDG_DATA_HOME": "relative"}, Path.home() / ".local/share/khala"),
        ({"XDG_DATA_HOME": "/data", "KHALA_UP_DATA_DIR": "/mine"}, Path("/mine")),
    ],
)
def test_the_data_directory_follows_the_base_directory_specification(
    environ: dict[str, str], expected: Path
) -> None:
    """A variable of ours wins; a relative XDG path counts as absent."""
    assert default_data_dir(environ) == expected


def test_a_named_profile_wins_over_the_environment_and_that_over_khala_up(tmp_path: Path) -> None:
    """--profile, KHALA_PROFILE, then the profile of `khala up`."""
    named = save_profile(tmp_path / "named", "named")
    by_env = save_profile(tmp_path / "env", "byenv")
    environ = {"KHALA_UP_DATA_DIR": str(tmp_path / "up")}
    save_profile(tmp_path / "up" / "profile", "ofup")
    assert (
        find_settings(named, environ={**environ, "KHALA_PROFILE": str(by_env)}).device_id == "dev_named1234"
    )
    assert find_settings(None, environ={**environ, "KHALA_PROFILE": str(by_env)}).device_id == "dev_byenv1234"
    assert find_settings(None, environ=environ).device_id == "dev_ofup1234"


def test_the_profile_of_a_login_wins_over_that_of_khala_up(tmp_path: Path) -> None:
    """Nothing named: where `khala login --url` keeps its session, else the development user's."""
    environ = {"KHALA_UP_DATA_DIR": str(tmp_path / "up"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert find_profile(None, has_default=True, environ=environ) is None
    save_profile(tmp_path / "up" / "profile", "ofup")
    assert find_settings(None, environ=environ).device_id == "dev_ofup1234"
    place = default_login_profile(environ)
    assert place == tmp_path / "config" / "khala" / "profile"
    save_profile(place, "login")
    assert find_settings(None, environ=environ).device_id == "dev_login1234"
    assert find_profile(None, environ=environ) is None
    assert find_profile(tmp_path, environ={**environ, "KHALA_PROFILE": "/other"}) == tmp_path
    assert default_login_profile({"XDG_CONFIG_HOME": "relative"}) == Path.home() / ".config/khala/profile"


def test_a_key_needs_no_profile(tmp_path: Path) -> None:
    """KHALA_KEY acts, although `khala up` has a profile here."""
    save_profile(tmp_path / "profile", "ofup")
    environ = {"KHALA_UP_DATA_DIR": str(tmp_path), "KHALA_KEY": "khk_x", "KHALA_URL": "https://khala.example"}
    assert find_settings(None, environ=environ).key == "khk_x"


def test_nobody_signed_in_is_said_with_the_remedy(tmp_path: Path) -> None:
    """Without anything the sentence names `khala up` and the variable."""
    with pytest.raises(SettingsRefused, match=r"khala up.*KHALA_PROFILE"):
        find_settings(None, environ={"KHALA_UP_DATA_DIR": str(tmp_path)})


def test_only_followers_open_the_store(tmp_path: Path) -> None:
    """Another command must not wait for the store, or make one."""
    path = save_profile(tmp_path, "x")
    assert find_settings(path, environ={}).store_path is None
    assert find_settings(path, environ={}, has_store=True).store_path == path / "store.sqlite3"
