"""conversion-harness-v1.json: wire, domain and back; what is invalid raises WireError and nothing else."""

from collections.abc import Callable

import pytest

from khala_contracts import codec
from khala_contracts.errors import WireError
from tests.contract.fixture_files import Row, load, rows

FIXTURE = load("conversion-harness-v1.json")


def check_refused(row: Row, decode: Callable[[], object]) -> None:
    """Check that decoding raises the WireError of the row."""
    with pytest.raises(WireError) as caught:
        decode()
    assert (caught.value.reason_code, caught.value.field) == (row["reason"], row["field"])


@pytest.mark.parametrize("row", rows(FIXTURE, "valid"), ids=lambda row: row["json"][:20])
def test_valid_messages_survive_every_form(row: Row) -> None:
    """Text to value, value to bytes, bytes to value, value to text."""
    message = codec.decode_client_message_json_untrusted(row["json"])
    assert codec.decode_client_message_untrusted(codec.encode_client_message(message)) == message
    assert codec.decode_client_message_json_untrusted(codec.encode_client_message_json(message)) == message


@pytest.mark.parametrize("row", rows(FIXTURE, "invalid"), ids=lambda row: row["name"])
def test_invalid_messages_are_refused_in_both_subprotocols(row: Row) -> None:
    """PR-10, PR-04: the same input gives the same reason and field, however often it is asked."""
    for _ in range(3):
        check_refused(row, lambda: codec.decode_client_message_json_untrusted(row["json"]))
        check_refused(row, lambda: codec.decode_client_message_untrusted(bytes.fromhex(row["binary_hex"])))


@pytest.mark.parametrize("row", rows(FIXTURE, "invalid_json"), ids=lambda row: row["name"])
def test_what_only_text_can_get_wrong(row: Row) -> None:
    """Commands, spellings, words."""
    check_refused(row, lambda: codec.decode_client_message_json_untrusted(row["json"]))


@pytest.mark.parametrize("row", rows(FIXTURE, "invalid_binary"), ids=lambda row: row["name"])
def test_what_only_bytes_can_get_wrong(row: Row) -> None:
    """Lengths, UTF-8, numbers without a name."""
    check_refused(row, lambda: codec.decode_client_message_untrusted(bytes.fromhex(row["binary_hex"])))
