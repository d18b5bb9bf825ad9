"""json.json: documents that the strict mapping takes or refuses."""

from typing import cast

import pytest

from khala_contracts.errors import WireError
from khala_contracts.strict_json import parse_strict, print_json
from tests.contract.fixture_files import Row, load, message_classes, rows

FIXTURE = load("json.json")
CLASSES = message_classes()


def text_of(row: Row) -> str:
    """Return the document of a row."""
    if "text" in row:
        return row["text"]
    return "".join(part * times for part, times in cast("list[tuple[str, int]]", row["text_repeat"]))


@pytest.mark.parametrize("row", rows(FIXTURE, "valid"), ids=lambda row: row["name"])
def test_valid_documents(row: Row) -> None:
    """They print as the file says, and that is a fixed point."""
    message = parse_strict(row["text"], CLASSES[row["message"]])
    assert print_json(message) == row["printed"]
    assert parse_strict(row["printed"].encode(), CLASSES[row["message"]]) == message


@pytest.mark.parametrize("row", rows(FIXTURE, "invalid"), ids=lambda row: row["name"])
def test_invalid_documents(row: Row) -> None:
    """PR-11: malformed_message with the field, as text and as bytes."""
    text = text_of(row)
    forms: list[str | bytes] = [text]
    if text.isascii() or "surrogate" not in row["name"]:
        forms.append(text.encode())
    for form in forms:
        with pytest.raises(WireError) as caught:
            parse_strict(form, CLASSES[row["message"]])
        assert (caught.value.reason_code, caught.value.field) == ("malformed_message", row["field"])


@pytest.mark.parametrize("row", rows(FIXTURE, "invalid_bytes"), ids=lambda row: row["name"])
def test_documents_that_are_not_utf_8(row: Row) -> None:
    """JSON is exchanged in UTF-8."""
    with pytest.raises(WireError) as caught:
        parse_strict(bytes.fromhex(row["hex"]), CLASSES[row["message"]])
    assert caught.value.reason_code == "malformed_message"
