"""Credentials are found by name and by shape; everything else stays readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala_service.redaction import (
    _SECRET_SHAPES,
    REDACTED,
    is_secret_key,
    redact_mapping,
    redact_text,
    redact_value,
)

# Parts of secrets, whole and broken, and what may stand between them.
PARTS = (
    *("kha_", "khk_", "KHA_", "abcdefgh", "12345678", "eyJ", "eyJhbGciOiJ", ".", "bearer", "BeArEr ", "bear"),
    *(
        "://",
        "u:p",
        "@",
        "?",
        "&",
        "token=",
        "Key=",
        "code",
        "=",
        "x",
        " ",
        "\n",
        '"',
        "_",
        "-",
        "\u0130",
        "\u017f",
    ),
)


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "access_token",
        "Authorization",
        "Set-Cookie",
        "client_secret",
        "password",
        "DB_PASSWORD",
        "owner_dsn",
        "credentials",
        "api_key",
        "ticket",
    ],
)
def test_secret_keys(key: str) -> None:
    """A field that is named like a secret is one."""
    assert is_secret_key(key)
    assert redact_mapping({key: "canary"}) == {key: REDACTED}
    assert redact_mapping({key: ["canary"]}) == {key: REDACTED}


@pytest.mark.parametrize(
    "key", ["token_expires_at", "token_id", "secret_file", "key_id", "topic", "tokenize", "ticket_count"]
)
def test_harmless_keys(key: str) -> None:
    """What says something about a secret stays."""
    assert not is_secret_key(key)
    assert redact_mapping({key: "plain"}) == {key: "plain"}


def test_numbers_stay() -> None:
    """A number under a secret name is a length or a time."""
    assert redact_mapping({"token": 5, "secret": None}) == {"token": 5, "secret": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key khk_AbCd-12345678 used", "key *** used"),
        ("khs_0123456789abcdef", "***"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: ***"),
        ("eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2ln", "***"),
        ("postgresql://khala_runtime:s3cret@127.0.0.1:5432/khala", "postgresql://***@127.0.0.1:5432/khala"),
        ("GET /x?token=abc&limit=5", "GET /x?***&limit=5"),
        ("run_01fwhe4yddfk4scvajq9ww84cz at seq 5", "run_01fwhe4yddfk4scvajq9ww84cz at seq 5"),
    ],
)
def test_shapes(text: str, expected: str) -> None:
    """A value that looks like a credential is replaced wherever it stands."""
    assert redact_text(text) == expected


@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
def test_the_first_look_hides_nothing(text: str) -> None:
    """Text that a first look lets through has nothing that a shape would find."""
    expected = text
    for shape in _SECRET_SHAPES:
        expected = shape.sub(REDACTED, expected)
    assert redact_text(text) == expected


def test_structures() -> None:
    """Mappings and lists are walked, bytes never shown, depth bounded."""
    value = {"a": [{"token": "x", "n": 1}], "payload": b"canary", "t": ("Bearer abcdef",), 3: object}
    assert redact_mapping(value) == {
        "a": [{"token": REDACTED, "n": 1}],
        "payload": "<6 bytes>",
        "t": [REDACTED],
        "3": "<class 'object'>",
    }
    endless: list[object] = []
    endless.append(endless)
    assert "..." in str(redact_value(endless))
