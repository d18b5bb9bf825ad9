"""The live page in a real Chromium, on a whole system of processes: what a person sees is what the journal holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from chaos.checker import Journal, check_history, check_journal
from chaos.transcripts import read_lines
from khala_contracts import reason_codes
from tests.browser.live_page import PATIENCE_MS, LivePage
from tests.browser.recording import AGENT, LIFECYCLE_EVENTS, running_agent
from tests.e2e.system import running_system, wait_until, write_lines

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

    from tests.e2e.system import System

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first one may have to install the browser

RATE_PER_S = 100
# Everything that the page may ask for over HTTP, and how often at most for each connection that it made.
ASKED = {
    "/": 1,
    "/api/auth/refresh": 1,
    "/api/sync/token": 2,
    "/v1/runs": 1,
}


def test_network_cut_nodes_killed_page_reloaded(browser: Browser, tmp_path: Path) -> None:
    """After all of it the page's applied history equals the journal, no row is there twice, no lane is beside."""
    with running_system(tmp_path, split=True) as system:
        live = LivePage.open(browser.new_context(), system.ready["origin"])
        live.sign_in("dev")
        enough = tmp_path / "enough"
        with running_agent(system, "mend", rate_per_s=RATE_PER_S, until=enough) as recording:
            live.open_run("mend")
            topic = topic_of(live)
            live.wait_events(200)

            cut_and_restore(live)
            kill_node(live, system, by_itself=True)
            go_offline(live, system)
            kill_node(live, system, by_itself=False)
            held = live.events()
            live.page.reload()
            live.wait_events(held + 100)
            assert recording.poll() is None

            enough.touch()
            assert recording.wait(timeout=120) == 0
        expect(live.page.locator(".facts")).to_contain_text("succeeded", timeout=PATIENCE_MS)
        journal = read_journal(system, topic, tmp_path)
        head = journal.topics[topic][-1].seq
        expect(live.page.locator(".facts .verified")).to_have_text(
            f"chain verified to {head:,}", timeout=PATIENCE_MS
        )
        judge_storage(live, journal, topic, tmp_path)
        judge_rows(live, head)
        judge_network(live, system)
        assert live.problems == []


def topic_of(live: LivePage) -> str:
    """Return the topic of the run that is shown."""
    found = re.search(r"#/run/(run_\w+)$", live.page.url)
    assert found is not None
    return f"run:{found[1]}:events"


def cut_and_restore(live: LivePage) -> None:
    """The page's own button: nothing arrives while it is cut, everything afterwards."""
    live.page.get_by_role("button", name="Cut my network").click()
    live.wait_words("Network cut")
    held = live.events()
    missed = 150
    # A second tab has the same storage and another connection; it sees what the first one misses.
    other = LivePage.open(live.page.context, live.page.url)
    other.wait_events(held + missed)
    other.page.close()
    assert live.events() == held
    sockets = len(live.sockets)
    live.page.get_by_role("button", name="Restore my network").click()
    receipt = live.receipt()
    assert len(live.sockets) == sockets + 1
    assert receipt["lost"] == 0
    assert receipt["received"] >= missed
    assert receipt["verified"] >= held + missed
    live.page.get_by_role("button", name="Dismiss").click()


def kill_node(live: LivePage, system: System, *, by_itself: bool) -> None:
    """The node dies without a word; the page comes back by itself, or as soon as it is told that it may try."""
    killed = system.kill("node-1")
    expect(live.page.locator(".notice")).to_contain_text("Disconnected", timeout=PATIENCE_MS)
    system.wait_back("node-1", killed)
    if not by_itself:
        # What a browser says when its network is back. Pauses between attempts have grown by now, up to 30 s.
        live.page.evaluate("window.dispatchEvent(new Event('online'))")
    receipt = live.receipt()
    assert receipt["lost"] == 0
    live.page.get_by_role("button", name="Dismiss").click()


def go_offline(live: LivePage, system: System) -> None:
    """The machine has no network while its node dies; once it has one again the page resumes at once."""
    live.page.context.set_offline(True)
    killed = system.kill("node-1")
    live.wait_words("Disconnected")
    system.wait_back("node-1", killed)
    live.wait_words("Disconnected")
    live.page.context.set_offline(False)
    assert live.receipt()["lost"] == 0
    live.page.get_by_role("button", name="Dismiss").click()


def read_journal(system: System, topic: str, folder: Path) -> Journal:
    """Return what the authority holds, which must hold by itself."""
    export = folder / "journal.jsonl"
    system.run("verify", topic, "--export", str(export))
    journal = Journal.of(read_lines(export))
    assert check_journal(journal) == []
    return journal


def judge_storage(live: LivePage, journal: Journal, topic: str, folder: Path) -> None:
    """What IndexedDB keeps is the journal, line by line, from the first to the last."""
    history = folder / "page.jsonl"
    head = journal.topics[topic][-1].seq
    wait_until(lambda: len(live.applied(topic)) == head, timeout_s=30, what="the last commit of the page")
    write_lines(history, live.applied(topic))
    verdict = check_history(
        list(read_lines(history)), journal, source="page", is_complete=True, after_seq=0, topics=[topic]
    )
    assert verdict == []


def judge_rows(live: LivePage, head: int) -> None:
    """Each event is in exactly one row, few rows exist at once, and scrolling shows all of them."""
    rows = live.all_rows()
    assert sum(size for _, size in rows.values()) == head
    assert min(rows) == 1
    assert max(last for last, _ in rows.values()) == head
    assert live.page.locator(".row").count() < 120


def judge_network(live: LivePage, system: System) -> None:
    """One lane: WebSockets to the node. No request is repeated but by a new connection."""
    origin = system.ready["origin"]
    assert set(live.sockets) == {f"{origin.replace('http', 'ws')}/sync/v1/ws"}
    assert len(live.sockets) >= 5
    attempts = sum(1 for _, _, path in live.requests if path == "/api/sync/token")
    fetched = [path for _, kind, path in live.requests if kind in ("fetch", "xhr")]
    assert {path for path in fetched if path not in ASKED} == set()
    for path, most in ASKED.items():
        assert fetched.count(path) <= most * max(attempts, len(live.sockets)), path
    assert {kind for _, kind, _ in live.requests} <= {
        "document",
        "script",
        "stylesheet",
        "image",
        "fetch",
        "other",
    }


LONG_EVENTS = 20_600
SHORT_RECORDING = "tests/fixtures/runs/missing-colon.jsonl"
UNKNOWN_RUN = f"run_{'0' * 26}"


def test_states_of_the_page_and_time_travel(browser: Browser, tmp_path: Path) -> None:
    """From nobody signed in to a session that ended elsewhere, over a run longer than one replay may be."""
    with running_system(tmp_path, KHALA_RUNTIME_PUBLISH_RATE_PER_S='{"run_events": 0}') as system:
        live = LivePage.open(browser.new_context(), system.ready["origin"])
        heading = live.page.get_by_role("heading", level=1)
        expect(heading).to_have_text("Watch your agents work", timeout=PATIENCE_MS)
        live.sign_in("dev")
        expect(heading).to_have_text("No runs yet", timeout=PATIENCE_MS)

        recording = tmp_path / "long.jsonl"
        with recording.open("w") as file:
            agent = [sys.executable, str(AGENT), "--events", str(LONG_EVENTS), "--rate", "1e9"]
            subprocess.run(agent, stdout=file, check=True, timeout=60)
        system.run("import", "--name", "long", str(recording), timeout_s=240)
        live.open_run("long")
        head = LONG_EVENTS + LIFECYCLE_EVENTS
        assert live.wait_events(head) == head
        expect(live.page.locator(".facts .verified")).to_have_text(f"chain verified to {head:,}")
        assert live.page.locator(".row").count() < 120
        travel(live, head)
        keep(live, head)
        look_elsewhere(live, heading)
        go_stale(live, system)

        system.run("sessions", "revoke", "--others")
        expect(heading).to_have_text("Your session has ended", timeout=PATIENCE_MS)
        expect(live.page.locator(".blank")).to_contain_text("reauth_required")
        assert live.problems == []


def travel(live: LivePage, head: int) -> None:
    """Back to a moment, along it by keyboard, and at full speed to the present."""
    slider = live.page.get_by_role("slider", name="Position in the run")
    slider.fill("300")
    expect(live.page.locator(".where")).to_contain_text(f"300 of {head:,}")
    live.wait_rows_end(300)
    slider.press("ArrowRight")
    live.wait_rows_end(301)
    slider.press("Home")
    expect(live.page.locator(".row")).to_have_count(0)
    live.page.get_by_label("Speed").select_option("max")
    live.page.get_by_role("button", name="Play", exact=True).click()
    expect(live.page.get_by_role("button", name="Live")).to_have_attribute(
        "aria-pressed", "true", timeout=PATIENCE_MS
    )
    live.wait_rows_end(head)


def keep(live: LivePage, head: int) -> None:
    """After a reload the run is there from the browser's own storage, and the colours as they were chosen."""
    root = live.page.locator("html")
    live.page.get_by_role("button", name="Colours: as the system").click()
    expect(root).to_have_attribute("data-theme", "dark")
    asked = len(live.requests)
    live.page.reload()
    live.wait_words("Live")
    assert live.wait_events(head) == head
    live.wait_rows_end(head)
    expect(root).to_have_attribute("data-theme", "dark")
    assert [path for _, _, path in live.requests[asked:] if path.endswith("/events")] == []


def go_stale(live: LivePage, system: System) -> None:
    """A history that the authority does not have is not continued: said with its code, and loaded anew on a click."""
    count = len(Path(SHORT_RECORDING).read_text().splitlines())
    system.run("import", "--name", "short", SHORT_RECORDING)
    live.open_run("short")
    held = live.wait_events(count)
    live.page.get_by_role("link", name="Khala", exact=True).click()
    live.forge_lineage()
    live.page.reload()
    live.wait_words("Live")
    live.open_run("short")
    notice = live.page.locator(".notice")
    expect(notice).to_contain_text(reason_codes.STALE_LINEAGE_MISMATCH.name, timeout=PATIENCE_MS)
    expect(notice).to_contain_text(reason_codes.STALE_LINEAGE_MISMATCH.text)
    expect(notice.get_by_role("link")).to_have_attribute("href", reason_codes.STALE_LINEAGE_MISMATCH.docs)
    live.page.get_by_role("button", name="Load what is retained").click()
    expect(live.page.locator(".facts .verified")).to_have_text(
        f"chain verified to {held}", timeout=PATIENCE_MS
    )
    expect(notice).to_be_empty()
    assert live.events() == held


def look_elsewhere(live: LivePage, heading: Locator) -> None:
    """A run that is not there, and a narrow window, in which list and run take turns."""
    origin = live.page.url.split("#")[0]
    live.page.goto(f"{origin}#/run/{UNKNOWN_RUN}")
    expect(heading).to_have_text("Not for you, or not there", timeout=PATIENCE_MS)
    expect(live.page.locator(".blank")).to_contain_text(reason_codes.FORBIDDEN.text)
    live.page.set_viewport_size({"width": 390, "height": 780})
    live.page.get_by_role("link", name="All runs").click()
    live.open_run("long")
    expect(live.page.get_by_role("navigation", name="Runs")).to_be_hidden()
    live.page.get_by_role("link", name="All runs").click()
    expect(live.page.get_by_role("navigation", name="Runs")).to_be_visible()
    live.page.set_viewport_size({"width": 1280, "height": 800})
