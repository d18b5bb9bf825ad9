"""The little of Markdown that the gates read: prose lines, links, headings, tables, fenced blocks.

Pure functions over text; line numbers start at 1.
"""

import re
from collections.abc import Iterator

import attrs

_FENCE = re.compile(r"^\s*(```+|~~~+)\s*(\S*)")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_CODE_SPAN = re.compile(r"`([^`]+)`")


@attrs.frozen
class Block:
    """A fenced block: its language, the line of its opening fence and its text."""

    language: str
    line: int
    text: str


def prose_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines outside fenced blocks with their numbers."""
    fence = None
    for number, line in enumerate(text.splitlines(), start=1):
        found = _FENCE.match(line)
        if found and fence is None:
            fence = found.group(1)
        elif found and fence is not None and found.group(1).startswith(fence) and not found.group(2):
            fence = None
        elif fence is None:
            yield number, line


def fenced_blocks(text: str) -> list[Block]:
    """Return all fenced blocks in order; an unclosed one ends with the text."""
    blocks: list[Block] = []
    opened: tuple[str, str, int] | None = None
    body: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        found = _FENCE.match(line)
        if opened is None:
            if found:
                opened, body = (found.group(1), found.group(2), number), []
        elif found and found.group(1).startswith(opened[0]) and not found.group(2):
            blocks.append(Block(opened[1], opened[2], "\n".join(body)))
            opened = None
        else:
            body.append(line)
    if opened is not None:
        blocks.append(Block(opened[1], opened[2], "\n".join(body)))
    return blocks


def links(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and target of every inline link outside code."""
    for number, line in prose_lines(text):
        for found in _LINK.finditer(_CODE_SPAN.sub(lambda span: "x" * len(span.group(0)), line)):
            yield number, found.group(1)


def code_spans(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and content of every inline code span."""
    for number, line in prose_lines(text):
        for found in _CODE_SPAN.finditer(line):
            yield number, found.group(1)


def headings(text: str) -> list[tuple[int, int, str]]:
    """Return (line, level, title) of every heading."""
    found = ((number, _HEADING.match(line)) for number, line in prose_lines(text))
    return [(number, len(match.group(1)), match.group(2)) for number, match in found if match]


def anchors(text: str) -> set[str]:
    """Return the fragment names that a link may use: heading slugs and explicit ``<a id="...">``."""
    names: set[str] = set()
    for _, _, title in headings(text):
        slug = re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-")
        name, repeat = slug, 0
        while name in names:
            repeat += 1
            name = f"{slug}-{repeat}"
        names.add(name)
    return names | set(re.findall(r"<a id=\"([^\"]+)\"", text))


def section(text: str, title: str) -> str | None:
    """Return the text below the heading ``title`` up to the next heading of its level or above, or None."""
    lines = text.splitlines()
    begin = level = None
    for number, depth, name in headings(text):
        if begin is None:
            if name == title:
                begin, level = number, depth
        elif level is not None and depth <= level:
            return "\n".join(lines[begin : number - 1]).strip()
    return None if begin is None else "\n".join(lines[begin:]).strip()


def table_rows(text: str) -> list[tuple[int, list[str]]]:
    """Return line and cells of every table row but heads and rulers."""
    rows: list[tuple[int, list[str]]] = []
    previous_is_row = False
    for number, line in prose_lines(text):
        stripped = line.strip()
        is_row = stripped.startswith("|") and stripped.endswith("|") and len(stripped) > 1
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", stripped[1:-1])] if is_row else []
        if is_row and all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            if previous_is_row:
                rows.pop()
        elif is_row:
            rows.append((number, cells))
        previous_is_row = is_row
    return rows
