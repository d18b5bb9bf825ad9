"""Where to connect and as whom, from the environment or from arguments. Pure.

    KHALA_URL       one origin of all three services: https://khala.example
    KHALA_CONTROL_URL, KHALA_RUNTIME_URL, KHALA_SYNC_URL   each by itself; they win over KHALA_URL
    KHALA_KEY       a service key, khk_...
    KHALA_PROFILE   a signed-in profile directory; it knows the URLs, too
    KHALA_DEVICE    the device id that goes with KHALA_KEY, dev_...; keep it, cursors belong to it
    KHALA_STORE     the store file of followers; a profile has its own

A key and a profile together are refused: which of the two acts would be a guess.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

import attrs

from khala_client.errors import SettingsRefused
from khala_client.http_calls import check_base_url
from khala_client.profiles import Profile, ProfileDirectory, new_device_id
from khala_contracts.ids import is_device_id

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SYNC_PATH", "Settings", "format_sync_url", "load_settings"]

SYNC_PATH: Final = "/sync/v1/ws"
_KEY: Final = re.compile(r"[!-~]+", re.ASCII)
_WEBSOCKET_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


@attrs.frozen
class Settings:
    """Complete and checked: three URLs and exactly one of key and profile.

    ``sync_url`` is a ws(s) URL with its path. ``store_path`` None: nothing is remembered.
    """

    control_url: str
    runtime_url: str
    sync_url: str
    device_id: str
    key: str | None = attrs.field(default=None, repr=False)
    profile: ProfileDirectory | None = None
    store_path: Path | None = None


def format_sync_url(url: str) -> str:
    """Return the WebSocket URL for a service or origin URL; a path is kept if there is one.

    Raises:
        SettingsRefused: no such scheme, no host, or a query, fragment or user in it.
    """
    parts = urlsplit(url)
    scheme = _WEBSOCKET_SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        message = f"the sync URL is not a ws(s) or http(s) URL: {url!r}"
        raise SettingsRefused(message)
    if parts.query or parts.fragment or parts.username or parts.password:
        message = "the sync URL must not carry a query, a fragment or a user name"
        raise SettingsRefused(message)
    path = parts.path if parts.path.strip("/") else SYNC_PATH
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def load_settings(environ: Mapping[str, str], *, profile: Path | str | None = None) -> Settings:
    """Return the settings that ``environ`` names.

    Args:
        environ: Usually os.environ; empty values count as absent.
        profile: A profile directory that wins over KHALA_PROFILE and KHALA_KEY.

    Raises:
        SettingsRefused: something is missing, contradictory or no URL.
        ProfileRefused: the named profile cannot be used.
    """
    given = {name: value for name, value in environ.items() if value}
    directory = str(profile) if profile is not None else given.get("KHALA_PROFILE")
    key = None if profile is not None else given.get("KHALA_KEY")
    if key is not None and directory is not None:
        message = "KHALA_KEY and KHALA_PROFILE are both set; unset the one that should not act"
        raise SettingsRefused(message)
    if directory is not None:
        return _with_profile(given, ProfileDirectory(directory))
    if key is None:
        message = "set KHALA_PROFILE (a signed-in profile) or KHALA_KEY (a service key)"
        raise SettingsRefused(message)
    return _with_key(given, key)


def _with_profile(given: Mapping[str, str], directory: ProfileDirectory) -> Settings:
    saved: Profile = directory.load()
    store = given.get("KHALA_STORE")
    return Settings(
        control_url=check_base_url(_url(given, "CONTROL") or saved.control_url, name="control_url"),
        runtime_url=check_base_url(_url(given, "RUNTIME") or saved.runtime_url, name="runtime_url"),
        sync_url=format_sync_url(_url(given, "SYNC") or saved.sync_url),
        device_id=saved.device_id,
        profile=directory,
        store_path=Path(store) if store else directory.store_path,
    )


def _with_key(given: Mapping[str, str], key: str) -> Settings:
    urls = {name: _url(given, name) for name in ("CONTROL", "RUNTIME", "SYNC")}
    missing = [f"KHALA_{name}_URL" for name, url in urls.items() if not url]
    if missing:
        message = f"set KHALA_URL, or {', '.join(missing)}"
        raise SettingsRefused(message)
    if not _KEY.fullmatch(key):
        # It travels in a header. No part of it is shown.
        message = "KHALA_KEY has characters that no key has: a space, a line end?"
        raise SettingsRefused(message)
    device_id = given.get("KHALA_DEVICE", "")
    if device_id and not is_device_id(device_id):
        message = "KHALA_DEVICE is not a device id: dev_ and 8 to 64 of 0-9 a-z"
        raise SettingsRefused(message)
    store = given.get("KHALA_STORE")
    if store and not device_id:
        message = "KHALA_STORE with a key needs KHALA_DEVICE: cursors belong to a device"
        raise SettingsRefused(message)
    return Settings(
        control_url=check_base_url(urls["CONTROL"], name="KHALA_CONTROL_URL"),
        runtime_url=check_base_url(urls["RUNTIME"], name="KHALA_RUNTIME_URL"),
        sync_url=format_sync_url(urls["SYNC"]),
        device_id=device_id or new_device_id(),
        key=key,
        store_path=Path(store) if store else None,
    )


def _url(given: Mapping[str, str], name: str) -> str:
    return given.get(f"KHALA_{name}_URL") or given.get("KHALA_URL") or ""
