"""Keeps the profile of ``khala up`` signed in as the development user, by way of the development issuer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from khala_client.errors import Forbidden, KhalaError, ProfileRefused, ReauthRequired
from khala_client.http import ControlClient
from khala_client.http_calls import open_http
from khala_client.profiles import Profile, ProfileDirectory, new_device_id
from khala_client.trio import ProfileCredentials
from khala_service.identifiers import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

    from khala.cli.up_record import UpRecord
    from khala_client.resources import SessionTokens

__all__ = ["sign_in_profile"]

TRIES: Final = 3


async def sign_in_profile(path: Path, record: UpRecord, *, login: str) -> None:
    """Write a profile that knows the URLs of ``record`` and holds a living session of ``login``.

    A session of an earlier life that still works is kept: followers that outlived a restart go on
    with it. The device id is made once, since cursors belong to it.

    Raises:
        KhalaError: The sign-in was refused.
    """
    directory = ProfileDirectory(path)
    profile = _with_urls(_saved(directory), record)
    directory.save(profile)
    async with open_http() as http:
        control = ControlClient(record.control_url, http, None)
        if profile.login == login and await _is_session_alive(directory, profile, control):
            return
        tokens = await _sign_in(control, login, profile.device_id)
        directory.save(profile.with_tokens(tokens))


async def _sign_in(control: ControlClient, login: str, device_id: str) -> SessionTokens:
    """Walk through the development issuer; again if it was restarted on the way.

    Its codes are in memory: one that it gave before control was killed is refused afterwards.
    """
    for _ in range(TRIES - 1):
        try:
            return await control.sign_in_dev(login, device_id=device_id)
        except ReauthRequired:
            continue
    return await control.sign_in_dev(login, device_id=device_id)


def _saved(directory: ProfileDirectory) -> Profile | None:
    try:
        return directory.load()
    except ProfileRefused:
        return None


def _with_urls(saved: Profile | None, record: UpRecord) -> Profile:
    fresh = Profile(
        control_url=record.control_url,
        runtime_url=record.runtime_url,
        sync_url=record.sync_url,
        device_id=new_device_id(),
    )
    if saved is None:
        return fresh
    return attrs.evolve(
        saved, control_url=fresh.control_url, runtime_url=fresh.runtime_url, sync_url=fresh.sync_url
    )


async def _is_session_alive(directory: ProfileDirectory, profile: Profile, control: ControlClient) -> bool:
    if not profile.is_signed_in:
        return False
    async with open_http() as http:
        credentials = ProfileCredentials(directory, profile, control=control, wall_clock=SystemClock().now)
        try:
            session = await ControlClient(control.base_url, http, credentials).get_session()
        except (ReauthRequired, Forbidden):
            return False
        except KhalaError as error:
            if error.retryable:
                raise
            return False
    return session.device_id == profile.device_id
