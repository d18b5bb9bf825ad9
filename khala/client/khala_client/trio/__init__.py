"""Khala for trio: ``from khala_client.trio import Khala``. The same API as on asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from khala_client.ring.khala import Khala as _Khala
from khala_client.ring.profile_credentials import ProfileCredentials
from khala_client.ring.requests import MintedToken
from khala_client.ring.run import Run
from khala_client.ring.subscription import Subscription
from khala_client.trio.loop import TrioLoop

if TYPE_CHECKING:
    from khala_client.ring.ports import EventLoop

__all__ = ["Khala", "MintedToken", "ProfileCredentials", "Run", "Subscription"]


class Khala(_Khala):
    """Everything an application on trio does with one Khala."""

    _loop: ClassVar[EventLoop] = TrioLoop()
