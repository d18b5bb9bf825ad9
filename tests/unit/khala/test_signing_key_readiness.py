"""The readiness check ``control_keys``: what a node says while it cannot check any token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from khala.adapters.sync_tokens import REFETCH_MIN_S, JwksTokenVerifier
from khala.ports import ControlUnavailableError

if TYPE_CHECKING:
    from trio.testing import MockClock


@attrs.define
class Control:
    """Control's key set, or no answer."""

    keys: list[dict[str, object]] | None = None
    fetches: int = 0

    async def fetch_keys(self) -> list[dict[str, object]]:
        """Return them; see KeySource."""
        self.fetches += 1
        if self.keys is None:
            raise ControlUnavailableError(1.0)
        return self.keys


async def test_the_words(autojump_clock: MockClock) -> None:
    """Nobody answers; an answer without a usable key; a key: from then on control is not asked again."""
    control = Control()
    verifier = JwksTokenVerifier(control)
    assert await verifier.check() == "control_unreachable"
    control.keys = []
    await trio.sleep(REFETCH_MIN_S)
    assert await verifier.check() == "no_signing_keys"
    public = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate().public_key(), as_dict=True)
    control.keys = [{**public, "kid": "k1"}]
    await trio.sleep(REFETCH_MIN_S)
    assert await verifier.check() is None
    control.keys, asked = None, control.fetches
    await trio.sleep(REFETCH_MIN_S)
    assert await verifier.check() is None
    assert control.fetches == asked
