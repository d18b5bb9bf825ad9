"""Khala for trio: ``from khala_client.trio import Khala``."""

from __future__ import annotations

from khala_client.trio.khala import Khala
from khala_client.trio.profile_credentials import ProfileCredentials
from khala_client.trio.run import Run
from khala_client.trio.subscription import Subscription

__all__ = ["Khala", "ProfileCredentials", "Run", "Subscription"]
