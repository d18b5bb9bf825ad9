"""reason_code_pages.py: what each page says, in both of its forms."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape

import attrs
import pytest

from khala_contracts.reason_code_pages import CONTENT_POLICY, index_html, page_html, page_markdown
from khala_contracts.reason_codes import REGISTRY, Advice, ReasonCode


@pytest.mark.parametrize("row", REGISTRY.values(), ids=lambda row: row.name)
def test_each_page_says_all_that_the_registry_knows(row: ReasonCode) -> None:
    """Meaning, advice, what on-call looks at, status and close code: in HTML and in Markdown alike."""
    page, text = unescape(page_html(row)), page_markdown(row)
    for said in (page, text):
        for part in (row.name, row.text, row.runbook, row.advice.value, str(row.number)):
            assert part in said, part
        assert (f"status {row.http_status}" in said) == (row.http_status is not None)
        assert (f"close code {row.close_code}" in said) == (row.close_code is not None)
        for title in ("What it means", "What a client does", "What on-call looks at"):
            assert said.count(title) == 1
    assert text.startswith(f"# {row.name}\n")
    assert f"../codes.md#{row.name}" in text


def test_the_close_code_says_whether_to_come_back() -> None:
    """Below 4500 and from 4500 on; below 4000 it is the client's own."""
    for name, said in (
        ("draining", "4000: reconnect and resume"),
        ("protocol_error", "4500: do not reconnect"),
        ("message_too_large", "1009: the client is at fault"),
        ("not_found", "closes no connection"),
    ):
        assert said in page_markdown(REGISTRY[name])


def test_each_advice_has_words_of_its_own() -> None:
    """No two pieces of advice read alike, and the words of a code are those of its advice."""
    does: dict[Advice, str] = {}
    for row in REGISTRY.values():
        words = page_markdown(row).partition("## What a client does\n\n")[2].partition("\n")[0]
        assert does.setdefault(row.advice, words) == words
    assert does.keys() == set(Advice)
    assert len(set(does.values())) == len(Advice)


def test_the_index_leads_to_every_page() -> None:
    """Each code once, by the link that errors carry."""
    links = re.findall(r'href="([^"]+)"', index_html())
    assert links == [row.docs for row in REGISTRY.values()]


def test_a_page_runs_nothing_and_loads_nothing() -> None:
    """The policy allows its one style block by hash; what a text may contain is escaped."""
    page = page_html(attrs.evolve(REGISTRY["forbidden"], text="<script>alert(1)</script>"))
    assert "<script" not in page
    assert "src=" not in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in CONTENT_POLICY
    assert CONTENT_POLICY.startswith("default-src 'none'")
