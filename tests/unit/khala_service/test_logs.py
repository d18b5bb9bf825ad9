"""Log lines: one JSON object each, with their context, without credentials."""

import io
import json
import logging
import socket
from collections.abc import Iterator

import pytest
import structlog
import trio

from khala_service import logs
from khala_service.log_sampling import LINES_PER_WINDOW
from khala_service.logs import bind_log_context, configure_logging, get_logger

CANARY = "khk_canary0123456789"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The configured stream."""
    text = io.StringIO()
    configure_logging("runtime", node="host-1", level="info", stream=text)
    yield text
    structlog.contextvars.clear_contextvars()
    configure_logging("runtime")


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_who_and_what(stream: io.StringIO) -> None:
    """OBS-08: ts, level, service, node, source and event are always there."""
    get_logger("a.module").info("batch_committed", topic="run:x:events", count=3)
    (line,) = _lines(stream)
    assert str(line.pop("ts")).endswith("Z")
    assert line == {
        "level": "info",
        "service": "runtime",
        "node": "host-1",
        "source": "a.module",
        "event": "batch_committed",
        "topic": "run:x:events",
        "count": 3,
    }


def test_levels(stream: io.StringIO) -> None:
    """Lines below the level are not written."""
    logger = get_logger("m")
    logger.debug("quiet")
    logger.warning("loud")
    assert [line["event"] for line in _lines(stream)] == ["loud"]


def test_secrets_are_removed_everywhere(stream: io.StringIO) -> None:
    """SEC-13: by name, by shape, in nested values, in the event, in exceptions."""
    logger = get_logger("m")
    event = f"used {CANARY}"
    logger.info(event, token="canary-a", nested={"password": "canary-b", "x": CANARY})
    try:
        raise ValueError(f"refused {CANARY}")
    except ValueError:
        logger.exception("failed")
    text = stream.getvalue()
    assert "canary" not in text
    assert "ValueError: refused ***" in text


def test_local_variables_are_not_printed(stream: io.StringIO) -> None:
    """A traceback shows code, never the values it worked on."""
    payload = "canary-payload"
    try:
        raise ValueError(len(payload))
    except ValueError:
        get_logger("m").exception("failed")
    assert "canary-payload" not in stream.getvalue().replace('payload = "canary-payload"', "")


def test_libraries_end_in_the_same_stream(stream: io.StringIO) -> None:
    """Standard logging is JSON too, redacted, with the library's name as source."""
    logging.getLogger("some.library").warning("hello %s", CANARY)
    logging.getLogger("hypercorn.error").info("Running on http://127.0.0.1:1")
    (line,) = _lines(stream)
    assert (line["source"], line["event"], line["level"]) == ("some.library", "hello ***", "warning")
    assert (line["service"], line["node"]) == ("runtime", "host-1")
    assert "ts" in line


def test_a_host_names_itself(stream: io.StringIO) -> None:
    """Without a node's id the field `node` is the host's name."""
    configure_logging("runtime", stream=stream)
    get_logger("m").info("said")
    assert [line["node"] for line in _lines(stream)] == [socket.gethostname()]


def test_a_trouble_that_repeats_is_counted(stream: io.StringIO) -> None:
    """OBS-08: the first lines of a kind are written, the others are one line with their number."""
    logger = get_logger("m")
    for number in range(LINES_PER_WINDOW + 5):
        logger.warning("publish_failed", reason="away", attempt=number, token=CANARY)
        logger.info("request", route="/x")
    logger.warning("publish_failed", reason="other")
    logs.flush_suppressed()
    lines = _lines(stream)
    failed = [line for line in lines if line.get("reason") == "away"]
    assert [line.get("attempt") for line in failed] == [*range(LINES_PER_WINDOW), None]
    said = {name: failed[-1][name] for name in ("suppressed", "level", "event", "service", "node", "source")}
    assert said == {
        "suppressed": 5,
        "level": "warning",
        "event": "publish_failed",
        "service": "runtime",
        "node": "host-1",
        "source": "m",
    }
    assert "ts" in failed[-1]
    assert sum(line["event"] == "request" for line in lines) == LINES_PER_WINDOW + 5
    assert sum(line.get("reason") == "other" for line in lines) == 1


def test_libraries_that_repeat_are_counted_too(stream: io.StringIO) -> None:
    """Whatever their arguments, for these are what differs; nothing goes to standard error instead."""
    for number in range(LINES_PER_WINDOW + 3):
        logging.getLogger("some.library").error("task %d failed", number)
    logs.flush_suppressed()
    lines = _lines(stream)
    assert len(lines) == LINES_PER_WINDOW + 1
    assert (lines[-1]["event"], lines[-1]["suppressed"]) == ("task %d failed", 3)


def test_the_count_of_a_secret_kind_is_redacted(stream: io.StringIO) -> None:
    """SEC-13: what is remembered of a suppressed line passes the same last step."""
    for _ in range(LINES_PER_WINDOW + 1):
        get_logger("m").error(f"used {CANARY}", reason=f"bearer {CANARY}")
    logs.flush_suppressed()
    assert _lines(stream)[-1]["suppressed"] == 1
    assert CANARY not in stream.getvalue()


async def test_context_follows_the_task(stream: io.StringIO) -> None:
    """What is bound in a task is on its lines and its children's, not on its siblings'."""

    async def serve(name: str) -> None:
        bind_log_context(service=name, request_id=f"r-{name}")
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as children:
            for _ in range(2):
                children.start_soon(say)

    async def say() -> None:
        await trio.lowlevel.checkpoint()
        get_logger("m").info("said")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, "control")
        nursery.start_soon(serve, "node")
    get_logger("m").info("outside")
    seen = {(line["service"], line.get("request_id")) for line in _lines(stream)}
    assert seen == {("control", "r-control"), ("node", "r-node"), ("runtime", None)}


def test_human_output(stream: io.StringIO) -> None:
    """On a terminal lines are for people; still redacted."""
    configure_logging("runtime", stream=stream, human=True)
    get_logger("m").info("started", port=1, token="canary")
    assert "started" in stream.getvalue()
    assert "canary" not in stream.getvalue()


def test_standard_output_is_never_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to the commands' data."""
    configure_logging("runtime")
    get_logger("m").warning("said")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "said" in captured.err
