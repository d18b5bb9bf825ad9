from __future__ import annotations

from pathlib import Path

import pytest

from khala_client.errors import ProfileRefused, SettingsRefused
from khala_client.profiles import Profile, ProfileDirectory
from khala_client.settings import format_sync_url, load_settings
from khala_contracts.ids import is_device_id


@pytest.fixture
def profile(tmp_path: Path) -> ProfileDirectory:
    """A signed-in profile."""
    directory = ProfileDirectory(tmp_path / "profile")
    directory.save(
        Profile(
            control_url="http://127.0.0.1:8471",
            runtime_url="http://127.0.0.1:8472/",
            sync_url="ws://127.0.0.1:8473/sync/v1/ws",
            device_id="dev_00000001",
            user_id="usr_1",
            access_token="secret",
        )
    )
    return directory


def test_one_origin_serves_all_three() -> None:
    """KHALA_URL alone is enough, with a key."""
    settings = load_settings({"KHALA_URL": "https://khala.example/", "KHALA_KEY": "khk_1"})
    assert settings.control_url == settings.runtime_url == "https://khala.example"
    assert settings.sync_url == "wss://khala.example/sync/v1/ws"
    assert is_device_id(settings.device_id)
    assert settings.store_path is None
    assert "khk_1" not in repr(settings)


def test_a_url_of_its_own_wins() -> None:
    """Services may listen apart."""
    settings = load_settings(
        {
            "KHALA_URL": "https://khala.example",
            "KHALA_RUNTIME_URL": "http://10.0.0.1:8472",
            "KHALA_SYNC_URL": "ws://10.0.0.2:8473",
            "KHALA_KEY": "khk_1",
            "KHALA_DEVICE": "dev_00000009",
            "KHALA_STORE": "/var/lib/app/khala.sqlite3",
        }
    )
    assert settings.control_url == "https://khala.example"
    assert settings.runtime_url == "http://10.0.0.1:8472"
    assert settings.sync_url == "ws://10.0.0.2:8473/sync/v1/ws"
    assert (settings.device_id, settings.store_path) == ("dev_00000009", Path("/var/lib/app/khala.sqlite3"))


def test_a_profile_knows_everything(profile: ProfileDirectory) -> None:
    """URLs, device and store come with it; empty variables count as absent."""
    settings = load_settings({"KHALA_PROFILE": str(profile.path), "KHALA_KEY": ""})
    assert settings.runtime_url == "http://127.0.0.1:8472"
    assert settings.sync_url == "ws://127.0.0.1:8473/sync/v1/ws"
    assert settings.device_id == "dev_00000001"
    assert settings.store_path == profile.store_path
    elsewhere = load_settings(
        {"KHALA_SYNC_URL": "https://a.example", "KHALA_STORE": "x"}, profile=profile.path
    )
    assert (elsewhere.sync_url, elsewhere.store_path) == ("wss://a.example/sync/v1/ws", Path("x"))


def test_an_argument_wins_over_the_environment(profile: ProfileDirectory) -> None:
    """--profile beside KHALA_KEY is no contradiction: it was said later."""
    settings = load_settings({"KHALA_KEY": "khk_1", "KHALA_PROFILE": "/nowhere"}, profile=profile.path)
    assert settings.key is None


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({}, "KHALA_PROFILE"),
        ({"KHALA_KEY": "k", "KHALA_PROFILE": "p"}, "both set"),
        ({"KHALA_KEY": "k"}, "KHALA_CONTROL_URL, KHALA_RUNTIME_URL, KHALA_SYNC_URL"),
        ({"KHALA_KEY": "k", "KHALA_SYNC_URL": "ws://a"}, "KHALA_CONTROL_URL, KHALA_RUNTIME_URL$"),
        ({"KHALA_KEY": "k", "KHALA_URL": "a.example"}, "not an http"),
        ({"KHALA_KEY": "khk_1\n", "KHALA_URL": "https://a"}, "KHALA_KEY has characters"),
        ({"KHALA_KEY": "khk_\u0416", "KHALA_URL": "https://a"}, "KHALA_KEY has characters"),
        ({"KHALA_KEY": "k", "KHALA_URL": "https://"}, "not an http"),
        ({"KHALA_KEY": "k", "KHALA_URL": "https://a.example/?token=x"}, "query"),
        ({"KHALA_KEY": "k", "KHALA_URL": "https://me:secret@a.example"}, "user name"),
        ({"KHALA_KEY": "k", "KHALA_URL": "https://a", "KHALA_SYNC_URL": "ftp://a"}, "sync URL"),
        ({"KHALA_KEY": "k", "KHALA_URL": "https://a", "KHALA_SYNC_URL": "ws://a/?token=x"}, "query"),
        ({"KHALA_KEY": "k", "KHALA_URL": "https://a", "KHALA_DEVICE": "laptop"}, "KHALA_DEVICE"),
        ({"KHALA_KEY": "k", "KHALA_URL": "https://a", "KHALA_STORE": "s"}, "KHALA_DEVICE"),
    ],
)
def test_what_is_refused(environ: dict[str, str], complaint: str) -> None:
    """A guess is never made; secrets in URLs never accepted, and not repeated either."""
    with pytest.raises(SettingsRefused, match=complaint) as refused:
        load_settings(environ)
    assert "secret" not in str(refused.value)
    assert "token=x" not in str(refused.value)


def test_a_missing_profile(tmp_path: Path) -> None:
    """It says what to do."""
    with pytest.raises(ProfileRefused, match="sign in first"):
        load_settings({}, profile=tmp_path)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a:1", "ws://a:1/sync/v1/ws"),
        ("https://a/", "wss://a/sync/v1/ws"),
        ("wss://a/other/path", "wss://a/other/path"),
        ("ws://[::1]:9/", "ws://[::1]:9/sync/v1/ws"),
    ],
)
def test_sync_urls(url: str, expected: str) -> None:
    """A path is kept if there is one."""
    assert format_sync_url(url) == expected
