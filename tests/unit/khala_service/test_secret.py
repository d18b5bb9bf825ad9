"""Secrets do not print themselves."""

from pathlib import Path

import pytest

from khala_service.secret import SECRET_FILE_MAX_BYTES, Secret, read_secret_file


def test_nothing_but_reveal_shows_the_value() -> None:
    """SEC-13: every way of printing gives ***."""
    secret = Secret("canary-41")
    assert secret.reveal() == "canary-41"
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r}", f"{[secret]}", "%s" % secret):  # noqa: UP031
        assert "canary" not in text
        assert "***" in text


def test_equality_and_hash() -> None:
    """Equal by value, never equal to the bare text."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert bool(Secret("a"))
    assert not bool(Secret(""))


def test_file_size_limit(tmp_path: Path) -> None:
    """The limit itself is accepted, one byte more is refused."""
    file = tmp_path / "secret"
    file.write_text("x" * SECRET_FILE_MAX_BYTES)
    assert len(read_secret_file(file).reveal()) == SECRET_FILE_MAX_BYTES
    file.write_text("x" * (SECRET_FILE_MAX_BYTES + 1))
    with pytest.raises(ValueError, match="too large"):
        read_secret_file(file)
