"""A kept history, line by line, judged without any server: by its own hash chain. Pure.

Reads what ``khala_client.history`` writes, alone or among the other lines of ``khala tail --json``:

    {"topic", "seq", "kind", "schema_version", "payload_sha256", "chain"}      one event
        "erased": true      kind, schema_version and hash are those of the event before its erasure
        "payload_base64"    the payload, which must have this hash
        "data"              its JSON mapping, as tail prints it, which must have this hash once encoded
        "chain_before"      on the first line of an export: the chain that it continues
        "head": true        on the last line of an export: nothing was committed after it
    {"type": "live", "topic", "seq", "chain"}             what the node said there
    {"type": "end", "topic", "through_seq", "chain"}      where the follower ended

Every link is computed anew, so a line that was changed, lost, added, repeated or moved breaks it where
it stands. What the chain cannot see is a tail that was cut off: that needs a line that states the end.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import attrs

from khala_client.core.verify import Broken, Verified
from khala_contracts import kinds
from khala_contracts.chain import chain_next_hashed, chain_start
from khala_contracts.errors import WireError
from khala_contracts.frames import SEQ_MAX
from khala_contracts.topics import TopicInvalid, parse_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["HistoryLine", "HistoryVerifier", "StatedPosition", "parse_line_untrusted", "verify_lines"]

_HASH: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_SCHEMA_VERSION_MAX: Final = (1 << 32) - 1


@attrs.frozen
class HistoryLine:
    """One event as a history keeps it; see the module's docstring for the members."""

    topic: str
    seq: int
    kind: str
    schema_version: int
    payload_sha256: bytes = attrs.field(repr=False)
    chain: bytes = attrs.field(repr=False)
    is_erased: bool = False
    payload: bytes | None = attrs.field(default=None, repr=False)
    data: Mapping[str, object] | None = attrs.field(default=None, repr=False)
    chain_before: bytes | None = attrs.field(default=None, repr=False)
    is_head: bool = False


@attrs.frozen
class StatedPosition:
    """Somebody said that the history stands here; ``is_end``: and that nothing of it follows."""

    topic: str
    seq: int
    chain: bytes = attrs.field(repr=False)
    is_end: bool


def parse_line_untrusted(text: str) -> HistoryLine | StatedPosition | None:
    """Read one line; None if it is about something else.

    Raises:
        ValueError: it is no line of a history; says what is wrong with it.
    """
    record = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(record, dict):
        message = "not an object"
        raise ValueError(message)  # noqa: TRY004 - the text is wrong, not a type of ours
    kind_of_line = record.get("type", "event")
    if kind_of_line == "event":
        return _event_line(record)
    if kind_of_line not in {"live", "end"}:
        return None
    is_end = kind_of_line == "end"
    seq = _number(record, "through_seq" if is_end else "seq", least=0, most=SEQ_MAX)
    if seq == 0:
        return None
    if is_end and record.get("chain") == "":
        return None
    return StatedPosition(_text(record, "topic"), seq, _hash(record, "chain"), is_end)


def _event_line(record: Mapping[str, object]) -> HistoryLine:
    data = record.get("data")
    payload = record.get("payload_base64")
    return HistoryLine(
        topic=_text(record, "topic"),
        seq=_number(record, "seq", least=1, most=SEQ_MAX),
        kind=_text(record, "kind"),
        schema_version=_number(record, "schema_version", least=1, most=_SCHEMA_VERSION_MAX),
        payload_sha256=_hash(record, "payload_sha256"),
        chain=_hash(record, "chain"),
        is_erased=record.get("erased") is True,
        payload=_base64(payload) if payload is not None else None,
        data=data if isinstance(data, dict) else None,
        chain_before=_hash(record, "chain_before") if "chain_before" in record else None,
        is_head=record.get("head") is True,
    )


class HistoryVerifier:
    """Judges the lines of one topic in the order in which they stand; constant memory."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.seq = 0
        self.chain = chain_start(topic)
        self.first_seq = 0
        self.events = 0
        self.erased_events = 0
        # Whether the history says by itself that it ends here.
        self.is_end_known = False
        self._has_head = False
        self._is_export = False

    def offer(self, line: HistoryLine | StatedPosition) -> Broken | None:
        """Judge the next line; after a Broken nothing more is to be offered."""
        if line.topic != self._topic:
            return Broken(line.seq, f"belongs to {line.topic}")
        if isinstance(line, StatedPosition):
            return self._judge_statement(line)
        return self._judge_event(line)

    def _judge_event(self, line: HistoryLine) -> Broken | None:
        if not self.events:
            self._begin(line)
        if line.seq <= self.seq:
            return Broken(line.seq, f"comes again, after seq {self.seq}")
        if line.seq > self.seq + 1:
            return Broken(self.seq + 1, f"missing: seq {line.seq} comes instead")
        if self._has_head:
            return Broken(line.seq, "follows where the history was said to end")
        expected = chain_next_hashed(
            self.chain, line.seq, line.schema_version, line.kind, line.payload_sha256
        )
        is_first_known = not self.events and self.first_seq > 1 and line.chain_before is None
        if expected != line.chain and not is_first_known:
            return Broken(line.seq, "its chain does not follow from its contents")
        if not _is_sealed(line):
            return Broken(
                line.seq,
                "what it shows is not what its hash seals (of a payload that another library encoded"
                " only the bytes prove it: keep an export)",
            )
        self.seq, self.chain = line.seq, line.chain
        self.events += 1
        self.erased_events += line.is_erased
        self.is_end_known = self._has_head = line.is_head
        return None

    def _begin(self, line: HistoryLine) -> None:
        """Take the link before the first line: known to everybody, stated, or this line's own."""
        self.first_seq = line.seq
        if line.seq > 1:
            self.seq = line.seq - 1
            self.chain = line.chain_before or b""
        self._is_export = line.chain_before is not None

    def _judge_statement(self, stated: StatedPosition) -> Broken | None:
        if not self.events:
            # A follower that began further on: nothing of it is here to compare.
            return None
        if stated.seq != self.seq:
            first_bad = min(stated.seq, self.seq) + 1
            return Broken(first_bad, f"the history was said to stand at seq {stated.seq}, not {self.seq}")
        if stated.chain != self.chain:
            return Broken(self.seq, "another chain than the one that was stated there")
        self.is_end_known = stated.is_end
        return None

    def conclude(self) -> Verified | Broken:
        """Return the verdict when there are no more lines."""
        if not self.events:
            return Broken(1, "there is nothing of this topic")
        if self._is_export and not self._has_head:
            return Broken(self.seq + 1, "missing: the export ends without its last line")
        return Verified(seq=self.seq, chain=self.chain, frames=self.events, erased_frames=self.erased_events)


def verify_lines(verifier: HistoryVerifier, lines: Iterable[str]) -> Verified | Broken:
    """Judge the text of a history; stops at the first line that does not hold."""
    for number, text in enumerate(lines, start=1):
        try:
            line = parse_line_untrusted(text)
        except (ValueError, RecursionError) as error:
            return Broken(verifier.seq + 1, f"line {number} is no line of a history: {error}")
        broken = verifier.offer(line) if line is not None else None
        if broken is not None:
            return broken
    return verifier.conclude()


def _is_sealed(line: HistoryLine) -> bool:
    """Whether what the line shows beside its hash has this hash."""
    if line.is_erased:
        return True
    payload = line.payload
    if payload is None and line.data is not None:
        payload = _encode(line.topic, line.kind, line.data)
    elif payload is None:
        return True
    return payload is not None and sha256(payload).digest() == line.payload_sha256


def _encode(topic: str, kind: str, data: Mapping[str, object]) -> bytes | None:
    raw = data.get("payload_base64")
    try:
        if isinstance(raw, str) and len(data) == 1:
            return _base64(raw)
        return kinds.encode_payload(parse_topic(topic).topic_class.name, kind, data)
    except (WireError, TopicInvalid, ValueError):
        return None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) != len(pairs):
        message = "a member twice"
        raise ValueError(message)
    return record


def _text(record: Mapping[str, object], name: str) -> str:
    value = record.get(name)
    if isinstance(value, str) and value:
        value.encode()  # half a surrogate pair is no text
        return value
    message = f"{name} is not a text"
    raise ValueError(message)


def _number(record: Mapping[str, object], name: str, *, least: int, most: int) -> int:
    value = record.get(name)
    digits = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(digits, str) and _NUMBER.fullmatch(digits) and least <= int(digits) <= most:
        return int(digits)
    message = f"{name} is not a number in {least}..{most}"
    raise ValueError(message)


def _hash(record: Mapping[str, object], name: str) -> bytes:
    value = record.get(name)
    if isinstance(value, str) and _HASH.fullmatch(value):
        return bytes.fromhex(value)
    message = f"{name} is not a SHA-256 in hexadecimal"
    raise ValueError(message)


def _base64(value: object) -> bytes:
    if isinstance(value, str):
        try:
            return b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    message = "payload_base64 is not base64"
    raise ValueError(message)
