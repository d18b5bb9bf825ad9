"""The live page as a person uses it, and what a test may know beside: its network and its storage.

Nothing is built into the page for tests. What it applied is read from the browser's IndexedDB, what it sent
and received from the browser's own log of requests.
"""

import hashlib
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, expect

from tests.e2e.system import wait_until

# Everything here waits for a condition; other work on the machine may be ten times slower than it should be.
PATIENCE_MS: Final = 60_000
_READ_EVENTS: Final = """
async (topic) => {
  const ask = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const database = await ask(indexedDB.open("khala"));
  const events = database.transaction("events").objectStore("events");
  const [keys, rows] = [await ask(events.getAllKeys()), await ask(events.getAll())];
  database.close();
  const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return rows.map((row, index) => ({ topic: keys[index][1], seq: String(row.seq), kind: row.kind,
    schema_version: row.schemaVersion, payload: hex(row.payload), chain: hex(row.chain) }))
    .filter((row) => row.topic === topic);
}
"""

_FORGE_LINEAGE: Final = """
async () => {
  const ask = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const database = await ask(indexedDB.open("khala"));
  const cursors = database.transaction("cursors", "readwrite").objectStore("cursors");
  for (const key of await ask(cursors.getAllKeys())) {
    const cursor = await ask(cursors.get(key));
    await ask(cursors.put({ ...cursor, lineage: "lin_" + "0".repeat(26) }, key));
  }
  database.close();
}
"""


@attrs.define
class LivePage:
    """One tab.

    Attributes:
        page: The tab.
        requests: Method, resource type and path of every request, in order.
        sockets: URL of every WebSocket that was opened.
        problems: What a script of the page threw, or a policy of it refused.
    """

    page: Page
    requests: list[tuple[str, str, str]] = attrs.field(factory=list)
    sockets: list[str] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)

    @classmethod
    def open(cls, context: BrowserContext, url: str) -> "LivePage":
        """Open the page in a new tab."""
        live = cls(context.new_page())
        live.page.set_default_timeout(PATIENCE_MS)
        # Playwright marks the methods that it is given; a slotted object has no room for that.
        live.page.on("request", lambda request: live._note(request))
        live.page.on("websocket", lambda socket: live.sockets.append(socket.url))
        live.page.on("pageerror", lambda error: live.problems.append(str(error)))
        live.page.on("console", lambda said: live._hear(said))
        live.page.goto(url)
        return live

    def _hear(self, said: ConsoleMessage) -> None:
        if "Content Security Policy" in said.text:
            self.problems.append(said.text)

    def _note(self, request: Request) -> None:
        self.requests.append((request.method, request.resource_type, urlsplit(request.url).path))

    def sign_in(self, login: str) -> None:
        """Go through the form of the development issuer and come back."""
        self.page.get_by_role("link", name="Sign in").click()
        self.page.get_by_label("Name").fill(login)
        self.page.get_by_role("button", name="Sign in").click()
        self.wait_words("Live")

    def open_run(self, name: str) -> None:
        """Choose a run from the list."""
        self.page.get_by_role("navigation", name="Runs").get_by_role("link", name=name).click()
        expect(self.page.get_by_role("heading", level=1)).to_have_text(name, timeout=PATIENCE_MS)

    def wait_words(self, words: str) -> None:
        """Wait until the bar says how the connection is."""
        expect(self.page.locator(".link")).to_have_text(words, timeout=PATIENCE_MS)

    def wait_events(self, least: int) -> int:
        """Wait until so many events have been applied; return how many there are."""
        wait_until(lambda: self.events() >= least, timeout_s=PATIENCE_MS / 1000, what=f"{least} events")
        return self.events()

    def events(self) -> int:
        """Return how many events the page says it has applied; 0 before it says anything."""
        said = self.page.locator(".facts > span").nth(1).inner_text().split()
        return int(said[0].replace(",", "")) if said else 0

    def receipt(self) -> dict[str, int]:
        """Wait for the receipt of an outage; return its numbers."""
        ledger = self.page.locator(".notice .ledger")
        ledger.wait_for()
        received, lost, verified = (part.strip() for part in ledger.locator("> span").all_inner_texts())
        return {
            "received": int(received.split()[0].replace(",", "")),
            "lost": int(lost.split()[0].replace(",", "")),
            "verified": int(verified.rsplit(" ", 1)[1].replace(",", "")),
        }

    def rows(self) -> list[tuple[int, int, int]]:
        """Return first seq, last seq and number of events of each row in sight, from top to bottom."""
        numbers = "rows => rows.map(r => [+r.dataset.first, +r.dataset.last, +r.dataset.size])"
        return [tuple(row) for row in self.page.locator(".row").evaluate_all(numbers)]

    def wait_rows_end(self, last: int) -> None:
        """Wait until the lowest row in sight ends with this event."""
        row = self.page.locator(".row").last
        expect(row).to_have_attribute("data-last", str(last), timeout=PATIENCE_MS)

    def all_rows(self) -> dict[int, tuple[int, int]]:
        """Scroll from top to bottom and return last seq and size of every row, by its first.

        Rows that are in sight twice must be the same; within one sight none may be there twice.
        """
        scroller = self.page.locator(".scroller")
        scroller.evaluate("e => { e.scrollTop = 0; }")
        seen: dict[int, tuple[int, int]] = {}
        while True:
            self.page.evaluate(
                "() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
            )
            rows = self.rows()
            firsts = [first for first, _, _ in rows]
            assert firsts == sorted(set(firsts)), "a row twice, or out of order"
            for first, last, size in rows:
                assert seen.setdefault(first, (last, size)) == (last, size)
            is_over = scroller.evaluate(
                "e => { const o = e.scrollTop; e.scrollTop = o + e.clientHeight / 2; return e.scrollTop === o; }"
            )
            if is_over:
                return seen

    def forge_lineage(self) -> None:
        """Make what the browser keeps belong to another history, as a restored database would."""
        self.page.evaluate(_FORGE_LINEAGE)

    def applied(self, topic: str) -> list[dict[str, Any]]:
        """Return what the browser keeps of a topic, in its order, as lines that the checker reads."""
        lines: list[dict[str, Any]] = self.page.evaluate(_READ_EVENTS, topic)
        for line in lines:
            line["payload_sha256"] = hashlib.sha256(bytes.fromhex(line.pop("payload"))).hexdigest()
        return lines
