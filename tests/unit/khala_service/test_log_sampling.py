"""Which lines of a repeated trouble are written, and when their number is said."""

from __future__ import annotations

import attrs

from khala_service.log_sampling import KINDS_MAX, LINES_PER_WINDOW, WINDOW_S, LineSampler


@attrs.define
class Time:
    """A clock that stands until it is moved."""

    now_s: float = 0.0

    def __call__(self) -> float:
        """Return it."""
        return self.now_s


def line(event: str = "failed", level: str = "error", **fields: str) -> dict[str, object]:
    """Return a line as the log's steps see it."""
    return {"level": level, "source": "m", "event": event, **fields}


def counts(sampler: LineSampler, fields: dict[str, object]) -> list[int]:
    """Offer a line; return the counts that are due before it."""
    return [suppressed.count for suppressed in sampler.admit(fields)[1]]


def test_at_the_limit_and_one_beyond() -> None:
    """N lines of a window are written, the next is not; a new window begins with N again."""
    time = Time()
    sampler = LineSampler(time)
    for _ in range(2):
        admitted = [sampler.admit(line())[0] for _ in range(LINES_PER_WINDOW + 1)]
        assert admitted == [True] * LINES_PER_WINDOW + [False]
        time.now_s += WINDOW_S


def test_a_count_is_said_once_its_window_is_over() -> None:
    """With the next line of any kind, once."""
    time = Time()
    sampler = LineSampler(time)
    for _ in range(LINES_PER_WINDOW + 4):
        sampler.admit(line(reason="away"))
    time.now_s = WINDOW_S - 0.001
    assert counts(sampler, line("request", "info")) == []
    time.now_s = WINDOW_S
    is_written, [suppressed] = sampler.admit(line("request", "info"))
    assert is_written
    assert suppressed.count == 4
    assert suppressed.fields == {"level": "error", "source": "m", "event": "failed", "reason": "away"}
    assert counts(sampler, line("request", "info")) == []
    assert sampler.flush() == []


def test_a_kind_is_level_source_event_and_reason() -> None:
    """Lines that differ in one of them have a window of their own; other facts make no difference."""
    sampler = LineSampler(Time())
    for number in range(LINES_PER_WINDOW):
        assert sampler.admit(line(topic=f"t{number}"))[0]
    assert not sampler.admit(line(topic="another"))[0]
    for other in (line("other"), line(reason="r"), line(level="warning"), {**line(), "source": "n"}):
        assert sampler.admit(other)[0]


def test_what_is_no_trouble_is_always_written() -> None:
    """Lines below warning are somebody's request: never sampled, never remembered."""
    sampler = LineSampler(Time())
    assert all(sampler.admit(line(level="info"))[0] for _ in range(10 * LINES_PER_WINDOW))
    assert sampler.flush() == []


def test_memory_is_bounded() -> None:
    """INV-7: of more kinds than KINDS_MAX the oldest makes room, and its count is not lost."""
    sampler = LineSampler(Time())
    for number in range(KINDS_MAX):
        for _ in range(LINES_PER_WINDOW + 1):
            sampler.admit(line(f"e{number}"))
    assert counts(sampler, line("one more")) == [1]
    assert len(sampler.flush()) == KINDS_MAX - 1
