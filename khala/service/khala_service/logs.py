"""Structured logs: one JSON object per line, with who said it and on behalf of which request.

Every line has `ts`, `level`, `service`, `source` (module), `event`; what is bound by `bind_log_context`
(request id, connection id, node) follows the trio task and its children. Libraries that use the
standard `logging` end in the same stream. Credentials are removed by `redaction.py` as the last step
before printing, exceptions included; local variables are never printed.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Final, Literal, TextIO, TypeAlias, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from khala_service.redaction import redact_mapping

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
LEVELS: Final[dict[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# Libraries that say at INFO what we say better ourselves.
_NOISY_LOGGERS: Final = ("hypercorn", "httpx", "httpcore", "asyncio", "quart", "trio-asyncio")

_EventDict: TypeAlias = MutableMapping[str, object]


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; the event is a stable lower-case name, facts are keywords."""
    return cast("FilteringBoundLogger", structlog.get_logger(source=name))


def bind_log_context(**fields: str) -> None:
    """Add fields to every line of this trio task and of the tasks it starts from now on."""
    structlog.contextvars.bind_contextvars(**fields)


def configure_logging(
    service: str,
    *,
    level: Level = "info",
    stream: TextIO | None = None,
    human: bool | None = None,
) -> None:
    """Send the logs of this process to `stream` (default: standard error).

    Args:
        service: Default of the `service` field; `bind_log_context(service=...)` overrides it, for
            the process that runs all services.
        level: Lines below it are not written.
        stream: Where lines go; None: standard error.
        human: Coloured text instead of JSON; None: only if the stream is a terminal.
    """
    target = stream if stream is not None else cast("TextIO", _CurrentStderr())
    readable = target.isatty() if human is None else human
    threshold = LEVELS[level]
    before = _configure_structlog(service, threshold, target, readable=readable)
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_foreign_source, *before],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(target, readable=readable),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def _configure_structlog(service: str, threshold: int, target: TextIO, *, readable: bool) -> list[Processor]:
    """Configure our own loggers; return the steps before the renderer."""
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        _default_service(service),
        structlog.processors.format_exc_info,
        _redact,
    ]
    structlog.configure(
        processors=[*before, _renderer(target, readable=readable)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        # Not cached: tests and `khala up` configure again after modules have made their loggers.
        cache_logger_on_first_use=False,
    )
    return before


def _renderer(target: TextIO, *, readable: bool) -> Processor:
    if readable:
        return structlog.dev.ConsoleRenderer(timestamp_key="ts", colors=target.isatty())
    return structlog.processors.JSONRenderer(ensure_ascii=False)


class _CurrentStderr:
    """Standard error as it is when a line is written; it may have been redirected meanwhile."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def _default_service(service: str) -> Processor:
    def add_service(_logger: object, _method: str, event: _EventDict) -> _EventDict:
        event.setdefault("service", service)
        return event

    return add_service


def _name_foreign_source(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    record = event["_record"]
    assert isinstance(record, logging.LogRecord)  # ProcessorFormatter puts it there
    event["source"] = record.name
    return event


def _redact(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    # structlog's own bookkeeping of foreign records (underscored keys) is removed before printing.
    kept = {key: value for key, value in event.items() if key.startswith("_")}
    said = {key: value for key, value in event.items() if not key.startswith("_")}
    return {**redact_mapping(cast("dict[object, object]", said)), **kept}


# What is said before `configure_logging`. structlog's own default writes to standard output, which
# belongs to the commands' data, and prints local variables.
_configure_structlog("khala", logging.INFO, cast("TextIO", _CurrentStderr()), readable=False)
