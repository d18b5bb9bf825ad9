"""Unit tests of khala.cli.wording."""

from __future__ import annotations

import pytest

from khala.cli.wording import bytes_text, count_text, duration_text, printable, relative_time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.04, "40 ms"),
        (1, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3_599, "60 min"),
        (3_600, "1 h"),
        (86_399, "24 h"),
        (86_400, "1 d"),
        (7 * 86_400, "7 d"),
    ],
)
def test_a_duration_has_its_largest_unit(seconds: float, text: str) -> None:
    """The unit changes exactly where a whole one fits."""
    assert duration_text(seconds) == text


def test_times_are_relative_to_now() -> None:
    """Past and future differ in words, and what is within two seconds is now."""
    assert relative_time(1_000, 1_300) == "5 min ago"
    assert relative_time(1_300, 1_000) == "in 5 min"
    assert relative_time(1_000, 1_001.9) == "just now"
    assert relative_time(1_000, 1_002) == "2 s ago"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1_023, "1023 bytes"),
        (1_024, "1 KiB"),
        (1_536, "1.5 KiB"),
        (256 * 1_024, "256 KiB"),
        (32 * 1024 * 1024, "32 MiB"),
        (5 * 1024**4, "5120 GiB"),
    ],
)
def test_a_size_has_its_largest_unit(size: int, text: str) -> None:
    """Powers of 1,024, one decimal only where it says something."""
    assert bytes_text(size) == text


def test_counts_agree_with_their_noun() -> None:
    """One event, two events, thousands with commas."""
    assert count_text(1, "event") == "1 event"
    assert count_text(0, "event") == "0 events"
    assert count_text(12_000, "event") == "12,000 events"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\r\n", "\n"),
        ("over\rwritten", "over\\x0dwritten"),
        ("\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("\x07", "\\x07"),
        ("a\u202eb", "a\\x202eb"),
        ("\ud800", "\\xd800"),
        ("héllo ✓ 日本", "héllo ✓ 日本"),
    ],
)
def test_no_untrusted_text_steers_a_terminal(text: str, shown: str) -> None:
    """Escape sequences and direction overrides are shown, not obeyed; lines and tabs stay."""
    assert printable(text) == shown
