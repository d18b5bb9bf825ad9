"""The TypeScript client in a real browser: its IndexedDB, its SubtleCrypto, and how busy it keeps a page.

The page is empty and there is no Khala: what needs one is tests/browser/test_live_page.py.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.ci.node_tools import open_node_tools
from tests.ci.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.slow

WAIT_MS = 120_000
# A page that draws nothing for a second looks broken. Measured with ten busy programs on two cores: 226 ms.
LONGEST_FRAME_MS = 1_000


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests of a test are no news."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder's files at an origin on this machine, which browsers take for a secure context."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page that has loaded the functions of tests/in_browser.ts."""
    folder = tmp_path_factory.mktemp("in_browser")
    open_node_tools(ROOT).run(
        "esbuild",
        "khala/client/typescript/tests/in_browser.ts",
        "--bundle",
        "--format=esm",
        "--target=es2022",
        f"--outfile={folder / 'in_browser.js'}",
        "--log-level=warning",
        cwd=ROOT,
    )
    (folder / "index.html").write_text(
        '<script type="module">import * as all from "/in_browser.js"; window.client = all;</script>'
    )
    with served(folder) as url:
        yield url


def open_tab(context: BrowserContext, origin: str) -> Page:
    """Return a page that is ready."""
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(origin)
    page.wait_for_function("window.client !== undefined")
    return page


def test_a_replay_of_twenty_thousand_frames_leaves_the_page_responsive(browser: Browser, origin: str) -> None:
    """Decoded, verified by SubtleCrypto, stored, given in order; and nothing holds the page up for long."""
    with browser.new_context() as context:
        found: dict[str, Any] = open_tab(context, origin).evaluate("window.client.replay(20_000)")
    assert found["events"] == 20_000
    assert (found["isVerified"], found["isPersistent"]) == (True, True)
    # The event in hand does not count when a loop is left.
    assert found["keptSeq"] == 19_999
    assert found["longestFrameMs"] < LONGEST_FRAME_MS


def test_two_tabs_keep_every_row_once(browser: Browser, origin: str) -> None:
    """Two tabs of one device that follow one topic at the same time: no repeat, no hole, no step back."""
    with browser.new_context() as context:
        tabs = [open_tab(context, origin) for _ in range(2)]
        for tab, size in zip(tabs, (7, 10), strict=True):
            tab.evaluate(f"void (window.positions = window.client.commitInto('usr_1', 500, {size}))")
        positions: list[list[int]] = [tab.evaluate("window.positions") for tab in tabs]
        kept: dict[str, Any] = tabs[0].evaluate("window.client.keptIn('usr_1')")
    for seen in positions:
        assert seen == sorted(seen)
        assert seen[-1] == 500
    assert kept == {"seqs": list(range(1, 501)), "isVerified": True}
