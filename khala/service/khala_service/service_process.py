"""The life of one deployable service: configuration, signals, drain, exit status. Every process has the same.

The first SIGTERM or SIGINT drains: not ready first, what is in flight is finished, status 0. The
second hurries: everything is dropped and the process is gone within ``HURRY_S``, whatever hangs. A process
that was started with ``--until-stdin-closes`` takes the end of its standard input for the first: a
supervisor that was killed leaves no service behind. SIGHUP reads again what can be (`reloading.py`); for a
process that a terminal started it says that the terminal is gone, and drains. Nothing is started and nothing is waited for that
would need an init process, so a service may be process 1 of a container.

Exit status: 0 ended as asked, 1 failed or hurried, 2 wrong usage, 78 refused configuration (EX_CONFIG of
sysexits.h: whoever restarts services must not restart this one).
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol, TextIO, TypeVar

import attrs
import trio
from attrs.validators import in_

from khala_service.adapters.asyncio_bridge import open_asyncio_loop
from khala_service.adapters.postgres_migrations import MigrationDrift, MigrationFailed, MigrationFilesInvalid
from khala_service.config import ConfigRefused, described
from khala_service.errors import Unavailable
from khala_service.garbage import collect_by_the_clock, settle_collector
from khala_service.logs import configure_logging, get_logger
from khala_service.reloading import reload_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = [
    "ENDING_SIGNALS",
    "EXIT_FAILED",
    "EXIT_REFUSED",
    "LoggingConfig",
    "Serve",
    "report_failure",
    "run_service",
    "service_environ",
]

EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 78
# Ctrl-C, the usual request to end, and the closing of the terminal (which Windows does not have) or a
# request to reload.
ENDING_SIGNALS: Final = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)
# OPS-12 allows 2 s from the second signal to the end.
HURRY_S: Final = 1.5
# What clients are told (khala_client.settings) is not an unknown key of the services of that name.
CLIENT_VARIABLES: Final = frozenset({"KHALA_CONTROL_URL", "KHALA_RUNTIME_URL"})

E_co = TypeVar("E_co", covariant=True)
E_contra = TypeVar("E_contra", contravariant=True)
E = TypeVar("E")

_log = get_logger(__name__)


@attrs.frozen(kw_only=True)
class LoggingConfig:
    """Section ``logging``, the same for every service."""

    level: Literal["debug", "info", "warning", "error"] = attrs.field(
        default="info",
        validator=in_(("debug", "info", "warning", "error")),
        metadata=described("Lines below it are not written."),
    )


class Serve(Protocol[E_co]):
    """A service: serves until ``drain`` is set and it has drained; started with where it listens."""

    def __call__(self, *, drain: trio.Event, task_status: trio.TaskStatus[E_co]) -> Awaitable[None]:
        """Serve, inside ``open_asyncio_loop``."""


def service_environ(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that services read: a shell set up for clients may start one, too."""
    given = os.environ if environ is None else environ
    return {name: value for name, value in given.items() if name not in CLIENT_VARIABLES}


def run_service(
    name: str,
    prepare: Callable[[], tuple[LoggingConfig, Serve[E]]],
    *,
    ports_of: Callable[[E], tuple[int, ...]],
    is_leashed: bool = False,
) -> int:
    """Run a service from its configuration to its end and return the exit status.

    Once it listens, its ports are the one line on standard output; logs go to standard error.

    Args:
        name: The service, in logs.
        prepare: Reads the configuration and returns what to serve; may raise ConfigRefused.
        ports_of: The ports among what the service is started with.
        is_leashed: Whether the end of standard input is a request to end.
    """
    configure_logging(name, stream=_LastingStderr(), human=sys.stderr.isatty())
    signals = _Signals()
    try:
        logging, serve = prepare()
        configure_logging(name, level=logging.level, stream=_LastingStderr(), human=sys.stderr.isatty())

        def announce(endpoints: E) -> None:
            sys.stdout.write(" ".join(map(str, ports_of(endpoints))) + "\n")
            sys.stdout.flush()
            settle_collector()

        life = _Life(signals, is_leashed=is_leashed, has_terminal=sys.stdin.isatty())
        return trio.run(partial(life.run, serve, announce))
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - the end of the process is its report
        return report_failure(error)
    finally:
        signals.ignore()


def report_failure(error: BaseException) -> int:
    """Print why the process cannot go on, one line per reason, and return its exit status.

    A mistake of ours is logged with its trace.
    """
    leaves = _leaves_of(error)
    if leaves and all(isinstance(leaf, ConfigRefused) for leaf in leaves):
        lines = [line for leaf in leaves if isinstance(leaf, ConfigRefused) for line in leaf.errors]
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        return EXIT_REFUSED
    if all(isinstance(leaf, _FAILURES) for leaf in leaves):
        sys.stderr.write("".join(f"{type(leaf).__name__}: {leaf}\n" for leaf in leaves))
        return EXIT_FAILED
    _log.critical("crashed", exc_info=error)
    return EXIT_FAILED


_FAILURES: Final = (MigrationDrift, MigrationFailed, MigrationFilesInvalid, Unavailable, OSError)


def _leaves_of(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in _leaves_of(inner)]


class _Signals:
    """The requests to end, from the first line of the process to its last.

    Race: a signal while the interpreter starts or ends would kill the process, with a status of its own.
      ours:      reads its configuration ... serves ... has drained, ends with status 0
      somebody:       SIGTERM                                     SIGTERM
    The first is remembered until somebody takes it, the second changes nothing any more.
    """

    def __init__(self) -> None:
        # What whoever started us ignores (nohup, a shell's background job) stays ignored.
        self.taken = [number for number in ENDING_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self.early: list[int] = []
        for number in self.taken:
            signal.signal(number, lambda number, _frame: self.early.append(number))

    def ignore(self) -> None:
        """The process is ending already."""
        for number in self.taken:
            signal.signal(number, signal.SIG_IGN)


class _Life:
    """One run of a service."""

    def __init__(self, signals: _Signals, *, is_leashed: bool, has_terminal: bool) -> None:
        self._signals = signals
        self._reload_signal = None if has_terminal else getattr(signal, "SIGHUP", None)
        self._is_leashed = is_leashed
        self._drain = trio.Event()
        self._is_hurried = False

    async def run(self, serve: Serve[E], announce: Callable[[E], None]) -> int:
        """Serve until asked to end; return the exit status."""
        async with trio.open_nursery() as watching:
            # First: a signal that comes while the service starts is a request like any other.
            await watching.start(self._take_signals, watching.cancel_scope)
            watching.start_soon(collect_by_the_clock)
            if self._is_leashed:
                watching.start_soon(self._watch_stdin)
            async with open_asyncio_loop():
                await serve(drain=self._drain, task_status=_Announcing(announce))
            watching.cancel_scope.cancel()
        _log.info("stopped", hurried=self._is_hurried)
        return EXIT_FAILED if self._is_hurried else 0

    async def _take_signals(
        self, everything: trio.CancelScope, *, task_status: trio.TaskStatus[None]
    ) -> None:
        with trio.open_signal_receiver(*self._signals.taken) as signals:
            task_status.started()
            for number in self._signals.early:
                self._take(number, everything)
            async for number in signals:
                self._take(number, everything)

    def _take(self, number: int, everything: trio.CancelScope) -> None:
        name = signal.Signals(number).name
        if number == self._reload_signal:
            _log.info("reloading", signal=name)
            reload_all()
        elif self._drain.is_set():
            _log.warning("hurried", signal=name)
            self._is_hurried = True
            _end_without_fail(HURRY_S)
            everything.cancel()
        else:
            _log.info("draining", signal=name)
            self._drain.set()

    async def _watch_stdin(self) -> None:
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
            while await stdin.receive_some():
                continue
        _log.warning("draining", reason="supervisor_gone")
        self._drain.set()


class _Announcing(trio.TaskStatus[E_contra]):
    """Tells the world where the service listens."""

    def __init__(self, announce: Callable[[E_contra], None]) -> None:
        self.announce = announce

    def started(self, value: E_contra | None = None) -> None:
        """Say it."""
        assert value is not None, "a service is started with where it listens"
        self.announce(value)


def _end_without_fail(after_s: float) -> None:
    """End the process after ``after_s``, even if its loop never gets a turn again."""
    timer = threading.Timer(after_s, os._exit, (EXIT_FAILED,))
    timer.daemon = True
    timer.start()


class _LastingStderr(io.TextIOBase, TextIO):
    """Standard error that nobody may be reading any more: a lost log line ends no service."""

    def write(self, text: str) -> int:
        try:
            return sys.stderr.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()
