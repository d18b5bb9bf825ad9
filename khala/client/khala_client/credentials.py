"""As whom a call is made: the seam between the HTTP clients and where secrets are kept."""

from __future__ import annotations

import hashlib
from typing import Protocol

__all__ = ["Credentials", "KeyCredentials"]


class Credentials(Protocol):
    """What a call needs to be made in somebody's name."""

    @property
    def namespace(self) -> str:
        """Whose cursors a store keeps under this: a principal on a device."""
        ...

    @property
    def device_id(self) -> str:
        """The device that sync tokens are minted for."""
        ...

    async def bearer(self) -> str:
        """Return the secret for ``Authorization: Bearer``, fresh enough to be used now.

        Raises:
            ReauthRequired: there is none any more; sign in again.
            Unavailable: it could not be refreshed now.
        """
        ...

    async def replace(self, refused: str) -> bool:
        """Exchange the bearer that a server has just refused as expired.

        Returns:
            True if ``bearer`` now gives another one, False if there is no other.
        """
        ...


class KeyCredentials:
    """A service key. It has no successor: refused once is refused."""

    def __init__(self, secret: str, *, device_id: str) -> None:
        self._secret = secret
        self._device_id = device_id

    def __repr__(self) -> str:
        return f"KeyCredentials(device_id={self._device_id!r})"

    @property
    def namespace(self) -> str:
        """See Credentials.namespace. The key appears by a hash only."""
        fingerprint = hashlib.sha256(self._secret.encode()).hexdigest()[:16]
        return f"key-{fingerprint}/{self._device_id}"

    @property
    def device_id(self) -> str:
        """See Credentials.device_id."""
        return self._device_id

    async def bearer(self) -> str:
        """See Credentials.bearer."""
        return self._secret

    async def replace(self, refused: str) -> bool:
        """See Credentials.replace."""
        return False
