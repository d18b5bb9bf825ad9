"""A followed history as lines, for a checker that believes neither this client nor the server.

One JSON object a line, ascending by seq, integers of 64 bits as strings:

    {"topic": .., "seq": "1", "kind": .., "schema_version": 1, "payload_sha256": hex, "chain": hex}

``payload_sha256`` is the hash that entered the chain: for an erased frame that of the payload which
stood there, so that ``chain`` can be recomputed from these lines alone; ``kind`` and
``schema_version`` are the original ones then, too, and ``"erased": true`` is added.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from khala_contracts.erasure import decode_erased_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from khala_client.events import Event

__all__ = ["format_history_line", "format_history_lines"]


def format_history_line(event: Event) -> str:
    """Return the line of one event, without its newline."""
    kind, schema_version = event.kind, event.schema_version
    digest = hashlib.sha256(event.payload).hexdigest()
    line: dict[str, object] = {"topic": event.topic, "seq": str(event.seq)}
    if event.is_erased:
        erased = decode_erased_untrusted(event.payload)
        kind, schema_version = erased.original_kind, erased.original_schema_version
        digest = erased.payload_sha256.hex()
    line |= {
        "kind": kind,
        "schema_version": schema_version,
        "payload_sha256": digest,
        "chain": event.chain.hex(),
    }
    if event.is_erased:
        line["erased"] = True
    return json.dumps(line, separators=(",", ":"), ensure_ascii=True)


def format_history_lines(events: Iterable[Event]) -> Iterator[str]:
    """Return one line per event, lazily; see the module's docstring."""
    return map(format_history_line, events)
