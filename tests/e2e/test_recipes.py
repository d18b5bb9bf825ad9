"""runbooks/recipes: what is written there works, from an empty folder. Its page in a browser: tests/browser."""

from __future__ import annotations

import re
import urllib.request
from typing import TYPE_CHECKING

import pytest

from khala_contracts import kinds
from khala_contracts.codec import ErrorMessage
from tests.e2e.recipes import FILES, RECIPES, free_port, recipe_application, recipe_system
from tests.e2e.wire import follow, open_wire, subscribe

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

BROWSER = "dev_0123456789abcdef"
LINES_MAX = 40


def get(url: str) -> str:
    """Return what the application answers."""
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own URL
        text: str = response.read().decode()
        return text


@pytest.mark.parametrize("name", FILES)
def test_they_are_short(name: str) -> None:
    """What is called a recipe fits on a screen."""
    assert len((RECIPES / name).read_text(encoding="utf-8").splitlines()) <= LINES_MAX


async def test_own_users_follow_own_events(tmp_path: Path) -> None:
    """The page names the topic; the token that it fetches opens the topic, from its origin, and nothing else."""
    for name in ("system", "application"):
        (tmp_path / name).mkdir()
    port = free_port()
    with (
        recipe_system(tmp_path / "system", port) as system,
        recipe_application(system, tmp_path / "application", port) as url,
    ):
        page = get(url)
        assert "{{" not in page
        assert system.ready["origin"] in page
        found = re.search(r"app:org_[0-9a-z]{26}:orders", page)
        assert found is not None
        topic = found[0]
        token = get(f"{url}/token?device_id={BROWSER}")
        async with open_wire(system, origin=url) as wire:
            await wire.greet(token, BROWSER)
            follower = await subscribe(wire, topic)
            while follower.position < 3:
                follower.take(await wire.receive())
            orders = [kinds.decode_payload(frame.kind, frame.payload) for frame in follower.frames]
            assert orders[:3] == [
                {"name": "order.placed", "data": {"number": number}} for number in (1, 2, 3)
            ]
            denied = await wire.ask(follow(f"{topic}2"), ErrorMessage)
            assert denied.code == "forbidden"
