"""A verified history as a file that proves itself.

Every line is as ``khala_client.history`` writes it, plus

    "payload_base64"   the payload, so that it can be read later and its hash checked
    "chain_before"     on the first line: the chain that it continues
    "head": true       on the last line, so that a file that was cut short is noticed

``khala_client.core.history_lines`` verifies it, and so does any reader of plain histories.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, TextIO

from khala_client.history import format_history_line

if TYPE_CHECKING:
    from khala_client.events import Event

__all__ = ["HistoryExport"]


class HistoryExport:
    """Writes events in their order; one line is held back until it is known whether it is the last."""

    def __init__(self, file: TextIO, *, chain_before: bytes) -> None:
        """Write to ``file``; the first event continues ``chain_before``."""
        self._file = file
        self._chain_before = chain_before
        self._held: dict[str, object] | None = None

    def add(self, event: Event) -> None:
        """Write one more event."""
        self._write_held()
        line: dict[str, object] = json.loads(format_history_line(event))
        if self._chain_before:
            line["chain_before"], self._chain_before = self._chain_before.hex(), b""
        if not event.is_erased:
            line["payload_base64"] = b64encode(event.payload).decode()
        self._held = line

    def finish(self) -> None:
        """Write the last line: nothing was committed after it."""
        if self._held is not None:
            self._held["head"] = True
        self._write_held()
        self._held = None

    def _write_held(self) -> None:
        if self._held is not None:
            self._file.write(json.dumps(self._held, separators=(",", ":"), ensure_ascii=True) + "\n")
