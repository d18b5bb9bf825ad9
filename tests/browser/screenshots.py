"""Pictures of the live page in its states, from a real system and a real browser.

    python -m tests.browser.screenshots --out DIR

Look at them after a change of the page; `runbooks/images` has those that documents show.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from playwright.sync_api import ViewportSize, expect

from tests.browser.chromium import find_chromium, open_browser
from tests.browser.live_page import PATIENCE_MS, LivePage
from tests.browser.recording import running_agent
from tests.e2e.system import running_system

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.e2e.system import System

WIDE: Final[ViewportSize] = {"width": 1200, "height": 750}
NARROW: Final[ViewportSize] = {"width": 390, "height": 760}
RATE_PER_S: Final = 60


def take_pictures(browser: Browser, system: System, out: Path) -> list[Path]:
    """Walk through the states and return the pictures, in that order."""
    taken: list[Path] = []
    live = LivePage.open(browser.new_context(viewport=WIDE), system.ready["origin"])
    page = live.page

    def shoot(name: str) -> None:
        # Two frames: what the last change asked for has been drawn then.
        page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
        taken.append(out / f"{name}.png")
        page.screenshot(path=taken[-1])

    page.get_by_role("link", name="Sign in").wait_for()
    shoot("signed-out")
    live.sign_in("dev")
    page.get_by_role("heading", name="No runs yet").wait_for()
    shoot("empty")
    system.run("import", "--name", "missing-colon", "tests/fixtures/runs/missing-colon.jsonl")
    never = system.folder / "never"
    with running_agent(system, "mend-division", rate_per_s=RATE_PER_S, until=never):
        live.open_run("mend-division")
        live.wait_events(300)
        page.get_by_role("button", name="Cut my network").click()
        live.wait_words("Network cut")
        expect(page.locator(".notice")).to_contain_text("cut")
        shoot("disconnected")
        held = live.events()
        # Another tab sees what this one misses.
        other = LivePage.open(page.context, page.url)
        other.wait_events(held + 200)
        other.page.close()
        page.get_by_role("button", name="Restore my network").click()
        live.receipt()
        shoot("resumed")
        page.get_by_role("button", name="Dismiss").click()
        shoot("live")
        page.get_by_role("slider").fill("140")
        page.get_by_label("Speed").select_option(index=1)
        page.get_by_role("button", name="Play", exact=True).click()
        expect(page.locator(".where")).to_contain_text(":", timeout=PATIENCE_MS)
        shoot("scrubbing")
        page.get_by_role("button", name="Live").click()
        page.emulate_media(color_scheme="dark")
        shoot("dark")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(NARROW)
        shoot("narrow")
        page.get_by_role("link", name="All runs").click()
        shoot("narrow-runs")
    return taken


def main() -> int:
    """Take the pictures; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    out = parser.parse_args().out.resolve()
    program = find_chromium()
    if not program:
        sys.stderr.write("no Chromium here, and none can be installed\n")
        return 1
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="khala-pictures-") as folder,
        open_browser(program) as browser,
        running_system(Path(folder)) as system,
    ):
        for picture in take_pictures(browser, system, out):
            sys.stdout.write(f"{picture} {picture.stat().st_size // 1024} KB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
