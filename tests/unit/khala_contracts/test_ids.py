"""Form of identifiers."""

import pytest

from khala_contracts.ids import ID_PREFIXES, format_id, is_device_id, is_id


def test_the_form_is_prefix_and_26_lower_case_base32_characters() -> None:
    """RFC 9562's example value has the id that the documents show."""
    value = bytes.fromhex("017F22E279B07CC398C4DC0C0C07398F")
    assert format_id("run", value) == "run_01fwhe4ydgfk1shh6w1g60eecf"


@pytest.mark.parametrize("value", [bytes(16), b"\xff" * 16, bytes(range(16))])
def test_every_value_has_its_own_text_and_is_an_id(value: bytes) -> None:
    """16 bytes round-trip through the alphabet, at both ends of the range."""
    text = format_id("evt", value)
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    number = 0
    for character in text.removeprefix("evt_"):
        number = number * 32 + alphabet.index(character)
    assert number.to_bytes(16, "big") == value
    assert is_id("evt", text)
    assert len(text) == 30


def test_ids_ascend_as_their_bytes_do() -> None:
    """UUIDv7 values keep their order as text."""
    values = [number.to_bytes(16, "big") for number in (0, 1, 31, 32, 2**64, 2**127, 2**128 - 1)]
    texts = [format_id("run", value) for value in values]
    assert texts == sorted(texts)


@pytest.mark.parametrize("prefix", ["", "RUN", "run_", "abc"])
def test_an_unregistered_prefix_is_refused(prefix: str) -> None:
    """No id is made or recognised outside the registry."""
    with pytest.raises(ValueError, match="unknown id prefix"):
        format_id(prefix, bytes(16))
    assert not is_id(prefix, f"{prefix}_{'0' * 26}")


@pytest.mark.parametrize("length", [0, 15, 17])
def test_only_16_bytes_make_an_id(length: int) -> None:
    """15 and 17 bytes are our mistake."""
    with pytest.raises(ValueError, match="16 bytes"):
        format_id("run", bytes(length))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run_",
        "run_" + "0" * 25,
        "run_" + "0" * 27,
        "usr_" + "0" * 26,
        "Run_" + "0" * 26,
        "run_8" + "0" * 25,
        "run_" + "0" * 25 + "i",
        "run_" + "0" * 25 + "U",
        "run_" + "0" * 25 + "\n",
        "run_" + "0" * 26 + "\n",
        " run_" + "0" * 26,
        "run_" + "\u0660" * 26,
    ],
)
def test_anything_else_is_not_an_id(text: str) -> None:
    """Wrong prefix, length, case, alphabet, a 129th bit, white space, foreign digits."""
    assert not is_id("run", text)


def test_the_seven_public_prefixes_are_registered() -> None:
    """SPEC section 2."""
    assert {"usr", "org", "run", "wrk", "ses", "evt", "key"} <= ID_PREFIXES.keys()


@pytest.mark.parametrize("body", ["a" * 8, "0" * 64, "abcdefgh12345678"])
def test_device_ids_have_8_to_64_characters(body: str) -> None:
    """Both ends of the range are valid."""
    assert is_device_id("dev_" + body)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dev_",
        "dev_" + "a" * 7,
        "dev_" + "a" * 65,
        "dev_abcdefgH",
        "dev_abcdefg_",
        "abcdefgh",
        "dev_abcdefgh\n",
    ],
)
def test_other_device_ids_are_refused(text: str) -> None:
    """One below, one above, capitals, punctuation, no prefix, a line break."""
    assert not is_device_id(text)
