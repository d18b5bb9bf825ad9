"""A real Chromium for the tests of the live page: found, or installed where that is possible, and driven.

Debian's own build, because the browser that Playwright would download is not always to be had. Everything that
would talk to somebody else's servers is switched off.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from playwright.sync_api import Browser, sync_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES: Final = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
INSTALL_TIMEOUT_S: Final = 300.0
_ARGUMENTS: Final = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
)


@cache
def find_chromium() -> str:
    """Return the program, installing Debian's if we are root; empty if there is none."""
    found = _find()
    if not found and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]):
            subprocess.run(
                command, env=environment, capture_output=True, timeout=INSTALL_TIMEOUT_S, check=False
            )
        found = _find()
    return found


def _find() -> str:
    named = (shutil.which(name) or "" for name in NAMES)
    placed = (place if os.access(place, os.X_OK) else "" for place in PLACES)
    return next((found for found in (*named, *placed) if found), "")


@contextmanager
def _plain_asyncio() -> Iterator[None]:
    """Let Playwright have a loop of asyncio's own: trio-asyncio, once imported, hands out another kind."""
    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(None)


@contextmanager
def open_browser(program: str) -> Iterator[Browser]:
    """A running browser without a window, ended with the block."""
    # Its own sandbox needs a user that is not root; what it loads here is our own page.
    sandbox = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
    with _plain_asyncio(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_ARGUMENTS, *sandbox])
        try:
            yield browser
        finally:
            browser.close()
