"""The page of runbooks/recipes in a real browser, served by the program beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.checker import check_positions
from tests.e2e.recipes import free_port, recipe_application, recipe_system

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

WAIT_MS = 20_000


def test_the_page_shows_its_users_events(browser: Browser, tmp_path: Path) -> None:
    """Somebody who never signed in at Khala sees the events, each once, also after the page was loaded again."""
    for name in ("system", "application"):
        (tmp_path / name).mkdir()
    port = free_port()
    with (
        recipe_system(tmp_path / "system", port) as system,
        recipe_application(system, tmp_path / "application", port) as url,
    ):
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        page.locator("li", has_text='"number":3').wait_for(timeout=WAIT_MS)
        page.reload()
        page.locator("li", has_text='"number":5').wait_for(timeout=WAIT_MS)
        shown = page.locator("li").all_inner_texts()
        numbers = [int(text.partition('"number":')[2].rstrip("}")) for text in shown]
        assert check_positions("the list", numbers, source="page") == []
        assert problems == []
