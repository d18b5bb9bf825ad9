"""What stands for HTTP between publishers and runtimes: calls that may be refused, cut off, or lose their answer.

The routes, their bodies and their codes are not simulated (tests/integration/runtime covers them): a call runs
a command of the product in the runtime's own nursery, as a handler would, and the caller waits for it no
longer than its patience. Who is cut off knows nothing about the outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs
import trio

from chaos.sim.gates import Latency
from khala_service.errors import Unavailable
from runtime.actors.command_path import CommandRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from chaos.sim.gates import PortGate
    from chaos.sim.reports import Findings
    from runtime.actors.app_topic_commands import AppTopicCommands
    from runtime.actors.run_commands import RunCommands

__all__ = ["CallFailed", "FrontFaults", "RuntimeApi", "RuntimeFront"]

PATIENCE_S: Final = 15.0
_QUICK: Final = Latency(0.0003, 0.003)

T = TypeVar("T")


class CallFailed(Exception):
    """No answer; whether the command was carried out is unknown unless nobody was there."""


@attrs.define
class FrontFaults:
    """What the way between publishers and runtimes does wrong at the moment.

    Attributes:
        delay: How long a request and its answer are under way, each.
        lost_request: Probability that nobody gets the request.
        lost_answer: Probability that the command is carried out and the answer lost.
    """

    delay: Latency = _QUICK
    lost_request: float = 0.0
    lost_answer: float = 0.0


@attrs.frozen(eq=False)
class RuntimeApi:
    """What one runtime process offers while it accepts commands."""

    gate: PortGate
    nursery: trio.Nursery
    runs: RunCommands
    app_topics: AppTopicCommands


@attrs.define(eq=False)
class _Call(Generic[T]):
    done: trio.Event = attrs.field(factory=trio.Event)
    answer: T | None = None
    error: Exception | None = None


class RuntimeFront:
    """The runtimes that accept commands now."""

    def __init__(self, *, rng: Random, faults: FrontFaults, findings: Findings) -> None:
        """Draw from ``rng`` what ``faults`` leaves to chance."""
        self._rng = rng
        self._faults = faults
        self._findings = findings
        self._apis: dict[str, RuntimeApi] = {}

    def open(self, api: RuntimeApi) -> Callable[[], None]:
        """Let commands come to this process until it dies or the returned call is made."""
        name = api.gate.name
        self._apis[name] = api

        def close() -> None:
            self._apis.pop(name, None)

        api.gate.on_sever(close)
        return close

    async def call(self, command: Callable[[RuntimeApi], Awaitable[T]]) -> T:
        """Carry out a command at one of the runtimes that accept.

        Raises:
            CallFailed: No answer.
            CommandRefused, Unavailable: It was refused, as the product says it.
        """
        await trio.sleep(self._faults.delay.draw(self._rng))
        apis = list(self._apis.values())
        if not apis or self._is(self._faults.lost_request):
            message = "nobody is there"
            raise CallFailed(message)
        api = self._rng.choice(apis)
        is_lost = self._is(self._faults.lost_answer)
        call: _Call[T] = _Call()
        forget = api.gate.on_sever(call.done.set)
        api.nursery.start_soon(self._handle, api, command, call)
        with trio.move_on_after(PATIENCE_S):
            await call.done.wait()
            forget()
            await trio.sleep(self._faults.delay.draw(self._rng))
        if is_lost or (call.answer is None and call.error is None):
            message = "cut off"
            raise CallFailed(message)
        if call.error is not None:
            raise call.error
        assert call.answer is not None
        return call.answer

    def _is(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    async def _handle(
        self, api: RuntimeApi, command: Callable[[RuntimeApi], Awaitable[T]], call: _Call[T]
    ) -> None:
        try:
            call.answer = await command(api)
        except (CommandRefused, Unavailable) as error:
            call.error = error
        except Exception as error:  # noqa: BLE001 - a handler's bug is an answer 500 and a finding, not a crash
            self._findings.add(api.gate.name, f"a command crashed: {error!r}", error)
        call.done.set()
