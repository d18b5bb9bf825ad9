"""A JSON document with the lines on which the elements of its top-level arrays begin.

The standard parser forgets positions; a refusal has to name one.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

import attrs

from khala_client.errors import RecordingRefused

__all__ = ["JsonDocument", "decode_text_untrusted", "parse_document_untrusted", "parse_json_untrusted"]

_BLANK: Final = re.compile(r"[ \t\n\r]*")


@attrs.frozen
class JsonDocument:
    """A top-level object; ``lines[name][i]`` is the line of element ``i`` of its array ``name``."""

    members: dict[str, object]
    lines: dict[str, list[int]]

    def line_of(self, name: str, index: int) -> int:
        """Return the 1-based line of an element, 0 if it is not known."""
        lines = self.lines.get(name, [])
        return lines[index] if index < len(lines) else 0


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not a JSON number"
    raise ValueError(message)


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def decode_text_untrusted(data: bytes) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    Raises:
        RecordingRefused: it is not UTF-8; names the line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecordingRefused("not UTF-8 text", line=line) from error


def parse_json_untrusted(text: str, *, line: int) -> object:
    """Return the value of one line.

    Raises:
        RecordingRefused: not JSON; ``line`` is the line's number in its file.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at column {error.colno}"
        raise RecordingRefused(reason, line=line + error.lineno - 1) from error
    except (ValueError, RecursionError) as error:
        raise RecordingRefused(f"not JSON: {_reason(error)}", line=line) from error


def parse_document_untrusted(text: str) -> JsonDocument:
    """Return the object that ``text`` is.

    Raises:
        RecordingRefused: not JSON, or not an object; names the line.
    """
    try:
        return _Reader(text).read()
    except json.JSONDecodeError as error:
        raise RecordingRefused(f"not JSON: {error.msg} at column {error.colno}", line=error.lineno) from error
    except (ValueError, RecursionError) as error:
        raise RecordingRefused(f"not JSON: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


class _Reader:
    """Walks the top level by hand and lets the standard parser read the values."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted_at = 0
        self._line = 1

    def read(self) -> JsonDocument:
        document = JsonDocument({}, {})
        self._take("{", "an object was expected")
        if not self._is_next("}"):
            while True:
                name = self._read_name()
                self._take(":", "':' was expected")
                document.members[name] = self._read_member(name, document.lines)
                if not self._is_next(","):
                    break
                self._take(",", "")
        self._take("}", "',' or '}' was expected")
        self._skip()
        if self._at != len(self._text):
            raise json.JSONDecodeError("something follows the document", self._text, self._at)
        return document

    def _read_name(self) -> str:
        name = self._read_value()
        if not isinstance(name, str):
            raise json.JSONDecodeError("a name in quotes was expected", self._text, self._at)
        return name

    def _read_member(self, name: str, lines: dict[str, list[int]]) -> object:
        if not self._is_next("["):
            return self._read_value()
        self._take("[", "")
        elements: list[object] = []
        lines[name] = []
        if not self._is_next("]"):
            while True:
                self._skip()
                lines[name].append(self._line_here())
                elements.append(self._read_value())
                if not self._is_next(","):
                    break
                self._take(",", "")
        self._take("]", "',' or ']' was expected")
        return elements

    def _read_value(self) -> object:
        self._skip()
        value, self._at = _DECODER.raw_decode(self._text, self._at)
        return value

    def _skip(self) -> None:
        blank = _BLANK.match(self._text, self._at)
        assert blank is not None
        self._at = blank.end()

    def _is_next(self, char: str) -> bool:
        self._skip()
        return self._text.startswith(char, self._at)

    def _take(self, char: str, complaint: str) -> None:
        if not self._is_next(char):
            raise json.JSONDecodeError(complaint, self._text, self._at)
        self._at += 1

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_at, self._at)
        self._counted_at = self._at
        return self._line
