"""Structured logs: one JSON object per line, with who said it and on behalf of which request.

Every line has `ts`, `level`, `service`, `node` (a node's id, elsewhere the host's name), `source`
(module), `event`; what is bound by `bind_log_context` (request id, connection id) follows the trio task
and its children. Libraries that use the standard `logging` end in the same stream. A warning or error
that repeats is written a few times and then counted (`log_sampling.py`). Credentials are removed by
`redaction.py` as the last step before printing, exceptions included; local variables are never printed.
"""

import atexit
import logging
import socket
import sys
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Final, Literal, TextIO, TypeAlias, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from khala_service.log_sampling import LineSampler
from khala_service.redaction import redact_mapping

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
LEVELS: Final[dict[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# What is remembered of a library's message, to recognise it when it repeats.
_FOREIGN_KIND_MAX_CHARS: Final = 200
# Libraries that say at INFO what we say better ourselves.
_NOISY_LOGGERS: Final = (
    "hypercorn",
    "httpx",
    "httpcore",
    "asyncio",
    "quart",
    "trio-asyncio",
    "websockets",
)

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
    node: str | None = None,
    level: Level = "info",
    stream: TextIO | None = None,
    human: bool | None = None,
) -> None:
    """Send the logs of this process to `stream` (default: standard error).

    Args:
        service: Default of the `service` field; `bind_log_context(service=...)` overrides it, for
            the process that runs all services.
        node: Default of the `node` field; None: the host's name.
        level: Lines below it are not written.
        stream: Where lines go; None: standard error.
        human: Coloured text instead of JSON; None: only if the stream is a terminal.
    """
    target = stream if stream is not None else cast("TextIO", _CurrentStderr())
    readable = target.isatty() if human is None else human
    threshold = LEVELS[level]
    pipeline = _configure_structlog(
        {"service": service, "node": node or socket.gethostname()}, threshold, target, readable=readable
    )
    handler = logging.StreamHandler(target)
    handler.addFilter(pipeline.admit_foreign)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_foreign_source, *pipeline.before, *pipeline.after],
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


class _Pipeline:
    """The steps of a line, and in their middle the decision whether it is written."""

    def __init__(self, defaults: Mapping[str, str], target: TextIO, *, readable: bool) -> None:
        self._sampler = LineSampler(time.monotonic)
        self._defaults = defaults
        self._target = target
        self._render = _renderer(target, readable=readable)
        self.before: list[Processor] = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            self._add_defaults,
        ]
        self.after: list[Processor] = [
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            _redact,
        ]

    @property
    def steps(self) -> list[Processor]:
        """All of it, for our own loggers."""
        return [*self.before, self._admit, *self.after, self._render]

    def admit_foreign(self, record: logging.LogRecord) -> bool:
        """Decide about a line of a library; a filter of the handler, where dropping is allowed."""
        context = structlog.contextvars.get_contextvars()
        kind = {
            "level": record.levelname.lower(),
            "source": record.name,
            # Without its arguments, so that equal troubles look equal.
            "event": str(record.msg)[:_FOREIGN_KIND_MAX_CHARS],
        }
        return self._decide({**self._defaults, **context, **kind})

    def flush(self) -> None:
        """Write the counts that no later line has brought out."""
        for suppressed in self._sampler.flush():
            self._write({**suppressed.fields, "suppressed": suppressed.count})

    def _add_defaults(self, _logger: object, _method: str, event: _EventDict) -> _EventDict:
        for name, value in self._defaults.items():
            event.setdefault(name, value)
        return event

    def _admit(self, _logger: object, _method: str, event: _EventDict) -> _EventDict:
        if not self._decide(event):
            raise structlog.DropEvent
        return event

    def _decide(self, fields: Mapping[str, object]) -> bool:
        is_written, due = self._sampler.admit(fields)
        for suppressed in due:
            self._write({**suppressed.fields, "suppressed": suppressed.count})
        return is_written

    def _write(self, event: _EventDict) -> None:
        line: object = event
        for step in (*self.after, self._render):
            line = step(None, "warning", cast("_EventDict", line))
        self._target.write(f"{line}\n")
        self._target.flush()


# The pipeline of this process; `configure_logging` replaces it.
_pipeline: _Pipeline | None = None


def _configure_structlog(
    defaults: Mapping[str, str], threshold: int, target: TextIO, *, readable: bool
) -> _Pipeline:
    """Configure our own loggers."""
    global _pipeline  # one process, one log
    _pipeline = pipeline = _Pipeline(defaults, target, readable=readable)
    structlog.configure(
        processors=pipeline.steps,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        # Not cached: tests and `khala up` configure again after modules have made their loggers.
        cache_logger_on_first_use=False,
    )
    return pipeline


@atexit.register
def flush_suppressed() -> None:
    """Write the counts of repeated lines that no later line has brought out. At exit by itself."""
    if _pipeline is not None:
        # Whoever owned the stream may have closed it by now.
        with suppress(OSError, ValueError):
            _pipeline.flush()


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
_configure_structlog(
    {"service": "khala", "node": socket.gethostname()},
    logging.INFO,
    cast("TextIO", _CurrentStderr()),
    readable=False,
)
