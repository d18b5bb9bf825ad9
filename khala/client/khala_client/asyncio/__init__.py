"""Khala for asyncio: ``from khala_client import Khala``. The same API as ``khala_client.trio``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from khala_client.asyncio.loop import AsyncioLoop
from khala_client.ring.khala import Khala as _Khala
from khala_client.ring.profile_credentials import ProfileCredentials
from khala_client.ring.requests import MintedToken
from khala_client.ring.run import Run
from khala_client.ring.subscription import Subscription

if TYPE_CHECKING:
    from khala_client.ring.ports import EventLoop

__all__ = ["Khala", "MintedToken", "ProfileCredentials", "Run", "Subscription"]


class Khala(_Khala):
    """Everything an application on asyncio does with one Khala. Used from the loop that opened it."""

    _loop: ClassVar[EventLoop] = AsyncioLoop()
