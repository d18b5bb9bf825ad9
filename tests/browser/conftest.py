"""Fixtures of the tests in a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import find_chromium, open_browser


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A running Chromium."""
    program = find_chromium()
    if not program:
        pytest.skip("no Chromium here, and none can be installed")
    with open_browser(program) as opened:
        yield opened
