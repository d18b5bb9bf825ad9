"""A signed-in profile as credentials: refreshes its access token, once however many ask.

In this process a lock makes concurrent calls share one refresh; between processes the profile's
lock file does, and whoever gets it later finds the new tokens and refreshes nothing. A refresh
token works once, so the answer is saved before anybody uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from khala_client.errors import ProfileRefused, ReauthRequired, Unavailable
from khala_client.file_lock import LockHeld

if TYPE_CHECKING:
    from collections.abc import Callable

    from khala_client.http import ControlClient
    from khala_client.profiles import Profile, ProfileDirectory

__all__ = ["ProfileCredentials"]

# Refreshed this long before its end, so that a request does not arrive with a token that has just
# ended. Longer: more refreshes. Shorter: slow requests are refused and repeated.
_MARGIN_S: Final = 30.0
# Another process refreshes in one request; if it hangs, its own time-outs end it before this.
_LOCK_PATIENCE_S: Final = 45.0
_LOCK_POLL_S: Final = 0.05


class ProfileCredentials:
    """Acts as the person who is signed in to a profile."""

    def __init__(
        self,
        directory: ProfileDirectory,
        profile: Profile,
        *,
        control: ControlClient,
        wall_clock: Callable[[], float],
    ) -> None:
        """Use ``control`` (without credentials of its own) to refresh; ``wall_clock`` is Unix seconds."""
        self._directory = directory
        self._profile = profile
        self._control = control
        self._wall_clock = wall_clock
        self._refreshing = anyio.Lock()
        # Our clock calls a token old that we have just got: then servers say when one is.
        self._is_clock_wrong = False

    @property
    def namespace(self) -> str:
        """See Credentials.namespace."""
        return self._profile.namespace

    @property
    def device_id(self) -> str:
        """See Credentials.device_id."""
        return self._profile.device_id

    async def bearer(self) -> str:
        """See Credentials.bearer."""
        if self._is_fresh(self._profile) or (self._is_clock_wrong and self._profile.access_token):
            return self._profile.access_token
        await self.replace(self._profile.access_token)
        return self._profile.access_token

    async def replace(self, refused: str) -> bool:
        """See Credentials.replace.

        Raises:
            ReauthRequired: the session is over.
            Unavailable: it could not be refreshed now.

        Cancellation: safe before and after the request; if the answer got lost, the server's grace
        period gives the same successor to this device again.
        """
        async with self._refreshing:
            if self._profile.access_token != refused:
                return True
            await self._refresh_locked(refused)
            return True

    def _is_fresh(self, profile: Profile) -> bool:
        return bool(profile.access_token) and profile.access_expires_at_s - _MARGIN_S > self._wall_clock()

    async def _refresh_locked(self, refused: str) -> None:
        with anyio.move_on_after(_LOCK_PATIENCE_S):
            while True:
                try:
                    with self._directory.hold_lock():
                        await self._refresh(refused)
                except LockHeld:
                    await anyio.sleep(_LOCK_POLL_S)
                except ProfileRefused as error:
                    # Signed out and removed meanwhile, by another process.
                    raise ReauthRequired("unauthenticated", str(error)) from error
                except OSError as error:
                    raise Unavailable(f"{type(error).__name__} at the profile") from error
                else:
                    return
        raise Unavailable("another process holds the profile's lock")

    async def _refresh(self, refused: str) -> None:
        saved = self._directory.load()
        if saved.access_token != refused and self._is_fresh(saved):
            self._profile = saved
            return
        if not saved.refresh_token:
            raise ReauthRequired("unauthenticated")
        tokens = await self._control.refresh(saved.refresh_token, device_id=saved.device_id)
        profile = saved.with_tokens(tokens)
        self._directory.save(profile)
        self._profile = profile
        self._is_clock_wrong = not self._is_fresh(profile)
