"""One page per reason code, made from the registry: what it means, what a client does, what on-call looks at.

Two forms of the same page: HTML, which services serve at the place that every error names in ``docs``, and
Markdown for runbooks/codes/. Pure; a page holds nothing of a request or of a machine.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from khala_contracts.reason_codes import DOCS_PATH, REGISTRY, Advice, ReasonCode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONTENT_POLICY", "index_html", "page_html", "page_markdown"]

_DOES: Final[Mapping[Advice, str]] = MappingProxyType(
    {
        Advice.RETRY_NOW: "Reconnects at once and resumes after the last event that it applied. Ours do so by themselves.",
        Advice.RETRY_BACKOFF: (
            "Waits for retry_after_ms where it is given, else 250 ms, doubling to 30 s, with full jitter; then it "
            "repeats the request with the same idempotency key, or reconnects and resumes. Ours do so by themselves."
        ),
        Advice.REAUTHENTICATE: (
            "Obtains a new credential and resumes: mints a sync token again; where that is refused too, refreshes its "
            "session; where that has ended, the person signs in (khala login). The cursor stays valid."
        ),
        Advice.REBOOTSTRAP: (
            "Gives up this cursor and nothing else: loads the snapshot if the answer names one, or reads history by "
            "pages over HTTP, and subscribes from there. It never goes on across the gap."
        ),
        Advice.UPGRADE: "Stops, and tells the person to upgrade; the details say what is too old, and for what.",
        Advice.GIVE_UP: (
            "Does not repeat it: the same would be refused again. The details name the field, the limit or the topic."
        ),
    }
)
_CLOSE_RANGES: Final = (
    (4000, 4499, "reconnect and resume"),
    (4500, 4999, "do not reconnect until something changes"),
)
_STYLE: Final = (
    ":root{color-scheme:light dark;font:1.05rem/1.55 system-ui,sans-serif}"
    "body{margin:3rem auto;max-width:44rem;padding:0 1rem}"
    "code{font:0.95em ui-monospace,monospace}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;margin:1.5rem 0}dd{margin:0}"
    "h1{font-size:1.6rem}h2{font-size:1.1rem;margin-top:2rem}dt{opacity:.7}"
)
_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")
# The page's own style block, by hash, and nothing else.
CONTENT_POLICY: Final = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@attrs.frozen
class _Page:
    facts: tuple[tuple[str, str], ...]
    parts: tuple[tuple[str, str], ...]


def page_html(row: ReasonCode) -> str:
    """Return the page of a code as a document of its own."""
    page = _page(row)
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in page.facts)
    parts = "".join(f"<h2>{escape(title)}</h2><p>{escape(text)}</p>" for title, text in page.parts)
    body = f'<h1><code>{escape(row.name)}</code></h1><dl>{facts}</dl>{parts}<p><a href="{DOCS_PATH}">All codes</a></p>'
    return _document(row.name, body)


def index_html() -> str:
    """Return the list of all codes."""
    items = "".join(
        f'<dt><a href="{escape(row.docs)}"><code>{escape(row.name)}</code></a></dt><dd>{escape(row.text)}</dd>'
        for row in REGISTRY.values()
    )
    return _document("Reason codes", f"<h1>Reason codes</h1><dl>{items}</dl>")


def page_markdown(row: ReasonCode) -> str:
    """Return the page of a code as Markdown."""
    page = _page(row)
    lines = [f"# {row.name}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in page.facts]
    for title, text in page.parts:
        lines += ["", f"## {title}", "", text]
    lines += ["", f"[All codes](../codes.md#{row.name}). Made from `proto/khala_contracts/reason_codes.py`."]
    return "\n".join(lines) + "\n"


def _page(row: ReasonCode) -> _Page:
    return _Page(
        facts=(
            ("WebSocket", _close_text(row.close_code)),
            ("HTTP", "answers no request" if row.http_status is None else f"status {row.http_status}"),
            ("advice", row.advice.value),
            ("retryable", "yes" if row.retryable else "no"),
            ("number", str(row.number)),
        ),
        parts=(
            ("What it means", row.text),
            ("What a client does", _DOES[row.advice]),
            (
                "What on-call looks at",
                f"{row.runbook} The request_id of the error, or the connection_id of the welcome, leads to its line "
                "in the log.",
            ),
        ),
    )


def _close_text(close_code: int | None) -> str:
    if close_code is None:
        return "closes no connection"
    for first, last, meaning in _CLOSE_RANGES:
        if first <= close_code <= last:
            return f"close code {close_code}: {meaning}"
    return f"close code {close_code}: the client is at fault"


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)} - Khala</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )
