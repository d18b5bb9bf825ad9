"""The producers of a world: they make runs, append with keys of their own, and try again until answered.

One task for each step, so appends to one topic may meet. What was acknowledged is kept for the verdict; an
answer that should have been the original one, or a refusal, is judged here.
"""

from __future__ import annotations

import hashlib
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import trio

from chaos.sim.runtime_front import CallFailed
from chaos.transcripts import AckLine
from khala_contracts import http_messages as m
from khala_contracts import kinds, reason_codes
from khala_contracts.sync_claims import PrincipalKind
from khala_contracts.topics import TopicName, format_app
from khala_service.errors import Unavailable
from runtime.actors.command_path import Caller, CommandRefused
from runtime.actors.run_commands import Transition
from runtime.core.events import EventColumns
from runtime.core.outcomes import Appended, Refused, Skipped
from runtime.core.principals import Principal
from runtime.core.run_fields import NewRunFields
from runtime.core.run_state_machine import RunState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chaos.sim.gates import Note
    from chaos.sim.reports import Findings
    from chaos.sim.runtime_front import RuntimeApi, RuntimeFront
    from chaos.sim.steps import Step
    from khala_contracts.reason_codes import ReasonCode
    from khala_service.identifiers import SystemIds

__all__ = ["KIND", "Producers"]

T = TypeVar("T")

# How long a producer tries; every fault is over much earlier.
PATIENCE_S: Final = 60.0
KIND: Final = "thought"
APP_KIND: Final = "custom"
_FAR_FUTURE_S: Final = 4e9
# Refusals after which the same request with the same key may pass.
_TRY_AGAIN: Final = frozenset(
    {reason_codes.RATE_LIMITED.name, reason_codes.UNAVAILABLE.name, reason_codes.SUPERSEDED.name}
)


@attrs.define
class Target:
    """A topic that is written to, once it exists.

    Attributes:
        topic: None until its run was made.
        run_id: Of a run's topic.
        acked: Appends that were answered: key, events, expected_seq, first seq.
    """

    name: str
    owner: int
    is_org: bool
    topic: TopicName | None = None
    run_id: str | None = None
    is_finishing: bool = False
    is_finished: bool = False
    acked: list[tuple[str, EventColumns, int | None, int]] = attrs.field(factory=list)
    last_seq: int = 0


class Producers:
    """Everybody who writes."""

    def __init__(
        self,
        front: RuntimeFront,
        *,
        users: dict[int, str],
        org_id: str,
        ids: SystemIds,
        rng: Random,
        note: Note,
        findings: Findings,
    ) -> None:
        """Write through ``front``; ``users`` are the ids of the users by number."""
        self._front = front
        self._users = users
        self._org_id = org_id
        self._ids = ids
        self._rng = rng
        self._note = note
        self._findings = findings
        self.targets: dict[str, Target] = {}
        self.acks: list[AckLine] = []
        # Virtual time of the acknowledgement of each position.
        self.acked_at: dict[tuple[str, int], float] = {}
        self.waiting = 0

    def add_app(self, name: str) -> None:
        """Know an app topic; it begins with its first event."""
        self.targets[name] = Target(name, 1, is_org=True, topic=format_app(self._org_id, name))

    async def make_run(self, name: str, owner: int, *, is_org: bool) -> None:
        """Make a run, however often that takes."""
        target = self.targets[name] = Target(name, owner, is_org)
        fields = NewRunFields(name, "sim", "", {}, self._org_id if is_org else "")
        answer = await self._until_answered(
            f"make-{name}", lambda api: api.runs.create(self._caller(owner, f"make-{name}"), fields)
        )
        if answer is None:
            return
        made = m.CreateRunResponse.FromString(answer)
        target.run_id, target.topic = made.run.run_id, TopicName(made.ack.topic)
        self._keep(f"make-{name}", made.ack.event_id, target.topic, made.ack.seq, made.ack.chain, None)
        self._note("producers", "made a run", name=name, topic=target.topic)

    async def carry_out(self, step: Step) -> None:
        """Do what an ``append.*`` or ``run.*`` step says."""
        target = self.targets.get(step.who)
        if target is None or target.topic is None:
            return
        rng = Random(step.seed)
        self.waiting += 1
        try:
            match step.kind:
                case "append.single":
                    await self._append(target, f"k{step.number}", self._events(target, step, rng, 1))
                case "append.batch" | "append.many":
                    count = 2 + int(step.amount * (60 if step.kind == "append.many" else 10))
                    await self._append(target, f"k{step.number}", self._events(target, step, rng, count))
                case "append.burst":
                    await self._append_burst(target, step, rng)
                case "append.stream":
                    await self._append_stream(target, step, rng)
                case "append.expected":
                    await self._append_expected(target, step, rng)
                case "append.repeat":
                    await self._repeat(target, rng)
                case "append.conflict":
                    await self._conflict(target, step, rng)
                case "run.finish":
                    await self._transition(target, step, RunState.SUCCEEDED)
                case "run.pause":
                    await self._transition(target, step, RunState.PAUSED)
                    await self._transition(target, step, RunState.RUNNING)
                case _:
                    raise AssertionError(step.kind)
        finally:
            self.waiting -= 1

    async def probe(self, target: Target, number: int) -> int | None:
        """Append one event when all is quiet; return its seq, None if the topic takes none any more."""
        rng = Random(number)
        events = self._columns(target, [self._text(f"probe-{target.name}-{number}", rng)])
        return await self._append(target, f"probe-{target.name}-{number}", events)

    # -- steps ---------------------------------------------------------------------------------------

    async def _append(
        self, target: Target, key: str, events: EventColumns, *, expected_seq: int | None = None
    ) -> int | None:
        def command(api: RuntimeApi) -> Awaitable[Appended]:
            return self._command(api, target, key, events, expected_seq)

        may_refuse = None if expected_seq is None else reason_codes.SEQ_CONFLICT
        outcome = await self._until_answered(key, command, target=target, may_refuse=may_refuse)
        if outcome is None:
            return None
        return self._keep_appended(target, key, events, outcome, expected_seq=expected_seq)

    async def _append_burst(self, target: Target, step: Step, rng: Random) -> None:
        """Several requests at once: the appender commits them together."""
        async with trio.open_nursery() as nursery:
            for index in range(2 + int(step.amount * 6)):
                key = f"k{step.number}.{index}"
                events = self._columns(target, [self._text(key, rng)])
                nursery.start_soon(self._append, target, key, events)

    async def _append_stream(self, target: Target, step: Step, rng: Random) -> None:
        """A chunk of a streaming body: a key for each event, in order."""
        keys = [f"k{step.number}.{index}" for index in range(2 + int(step.amount * 8))]
        events = [(key, self._columns(target, [self._text(key, rng)])) for key in keys]

        async def command(api: RuntimeApi) -> list[object]:
            caller = self._caller(target.owner, None)
            assert target.run_id is not None
            run = await api.runs.authorize_append(caller.principal, target.run_id)
            return list(await api.runs.append_keyed(caller, run, events))

        while events:
            outcomes = await self._until_answered(f"k{step.number}", command, target=target)
            if outcomes is None:
                return
            done = 0
            for (key, columns), outcome in zip(events, outcomes, strict=True):
                if isinstance(outcome, Appended):
                    self._keep_appended(target, key, columns, outcome)
                    done += 1
                elif isinstance(outcome, Refused):
                    if outcome.reason.name not in _TRY_AGAIN:
                        self._judge_refusal(key, outcome, target)
                        return
                    break
                else:
                    assert isinstance(outcome, Skipped)
            events = events[done:]
            await trio.sleep(0.3)

    async def _append_expected(self, target: Target, step: Step, rng: Random) -> None:
        expected = target.last_seq
        events = self._events(target, step, rng, 1)
        seq = await self._append(target, f"k{step.number}", events, expected_seq=expected)
        if seq is not None and seq != expected + 1:
            self._findings.add(
                "producers", f"expected_seq {expected} was accepted at {seq} of {target.topic}"
            )

    async def _repeat(self, target: Target, rng: Random) -> None:
        if not target.acked:
            return
        key, events, expected_seq, seq = rng.choice(target.acked)
        again = await self._append(target, key, events, expected_seq=expected_seq)
        if again != seq:
            self._findings.add("producers", f"key {key} was answered {seq}, then {again}, of {target.topic}")

    async def _conflict(self, target: Target, step: Step, rng: Random) -> None:
        if not target.acked:
            return
        key, *_ = rng.choice(target.acked)
        other = self._events(target, step, rng, 1)
        seq = await self._until_answered(
            key,
            lambda api: self._command(api, target, key, other, None),
            target=target,
            may_refuse=reason_codes.IDEMPOTENCY_CONFLICT,
        )
        if seq is not None:
            self._findings.add("producers", f"key {key} was accepted with another body, of {target.topic}")

    async def _transition(self, target: Target, step: Step, state: RunState) -> None:
        key = f"k{step.number}.{state.value}"
        run_id = target.run_id
        if run_id is None:
            return
        target.is_finishing = target.is_finishing or state.is_terminal
        wanted = Transition(state, "because", 0 if state.is_terminal else None, "")
        answer = await self._until_answered(
            key,
            lambda api: api.runs.transition(self._caller(target.owner, key), run_id, wanted),
            target=target,
            may_refuse=reason_codes.INVALID_TRANSITION,
        )
        if answer is not None:
            ack = m.TransitionRunResponse.FromString(answer).ack
            self._keep(key, ack.event_id, TopicName(ack.topic), ack.seq, ack.chain, None)
            target.last_seq = max(target.last_seq, ack.seq)
            target.is_finished = target.is_finished or state.is_terminal

    # -- one command -----------------------------------------------------------------------------------

    def _caller(self, owner: int, key: str | None) -> Caller:
        user_id = self._users[owner]
        roles = {self._org_id: "member"}
        principal = Principal(
            PrincipalKind.PERSON, user_id, user_id, roles, frozenset(), (), "dev_00000000", _FAR_FUTURE_S
        )
        return Caller(principal, key, "request")

    async def _command(
        self, api: RuntimeApi, target: Target, key: str, events: EventColumns, expected_seq: int | None
    ) -> Appended:
        caller = self._caller(target.owner, key)
        if target.run_id is not None:
            return await api.runs.append(caller, target.run_id, events, expected_seq=expected_seq)
        place = api.app_topics.authorize_append(caller.principal, self._org_id, target.name)
        return await api.app_topics.append(caller, place, events, expected_seq=expected_seq)

    async def _until_answered(
        self,
        key: str,
        command: Callable[[RuntimeApi], Awaitable[T]],
        *,
        target: Target | None = None,
        may_refuse: ReasonCode | None = None,
    ) -> T | None:
        """Return the answer of a command; None if it was refused for good, or nobody answered in time."""
        give_up_at = trio.current_time() + PATIENCE_S
        wait_s = 0.1
        while trio.current_time() < give_up_at:
            try:
                return await self._front.call(command)
            except CallFailed:
                pause_s = wait_s
            except Unavailable as error:
                pause_s = max(wait_s, error.retry_after_s)
            except CommandRefused as error:
                refusal = error.refusal
                if refusal.reason.name not in _TRY_AGAIN:
                    self._judge_refusal(key, refusal, target, may_refuse=may_refuse)
                    return None
                pause_s = max(wait_s, refusal.retry_after_ms / 1000)
            await trio.sleep(pause_s * (0.5 + self._rng.random()))
            wait_s = min(wait_s * 2, 2.0)
        self._findings.add("producers", f"{key} had no answer in {PATIENCE_S} s")
        return None

    def _judge_refusal(
        self, key: str, refusal: Refused, target: Target | None, *, may_refuse: ReasonCode | None = None
    ) -> None:
        reason = refusal.reason
        self._note("producers", "is refused", key=key, reason=reason.name)
        has_ended = reason == reason_codes.RUN_FINISHED and target is not None and target.is_finishing
        if reason != may_refuse and not has_ended:
            self._findings.add("producers", f"{key} was refused: {reason.name} {dict(refusal.details)}")

    # -- what is kept ----------------------------------------------------------------------------------

    def _keep_appended(
        self,
        target: Target,
        key: str,
        events: EventColumns,
        outcome: Appended,
        *,
        expected_seq: int | None = None,
    ) -> int:
        (part,) = outcome.parts
        target.last_seq = max(target.last_seq, part.last_seq)
        target.acked.append((key, events, expected_seq, part.first_seq))
        for index, (event_id, seq, chain) in enumerate(part.acks()):
            payload = hashlib.sha256(events.payloads[index]).digest()
            self._keep(f"{target.name}/{key}/{index}", event_id, part.topic, seq, chain, payload)
        return part.first_seq

    def _keep(
        self, key: str, event_id: str, topic: TopicName, seq: int, chain: bytes, payload: bytes | None
    ) -> None:
        self.acks.append(AckLine(key, event_id, topic, seq, chain, payload))
        self.acked_at.setdefault((topic, seq), trio.current_time())
        self._note("producers", "is acknowledged", key=key, topic=topic, seq=seq)

    # -- events ----------------------------------------------------------------------------------------

    def _events(self, target: Target, step: Step, rng: Random, count: int) -> EventColumns:
        return self._columns(target, [self._text(f"{step.number}.{index}", rng) for index in range(count)])

    @staticmethod
    def _text(name: str, rng: Random) -> str:
        """Return a text that no other event has, of 10 to 900 characters."""
        return f"{name}:" + "x" * rng.choice((1, 20, 60, 200, 900))

    def _columns(self, target: Target, texts: list[str]) -> EventColumns:
        if target.run_id is None:
            kind, topic_class = APP_KIND, "app"
            payloads = [kinds.encode_payload(topic_class, kind, {"name": text}) for text in texts]
        else:
            kind, topic_class = KIND, "run_events"
            payloads = [kinds.encode_payload(topic_class, kind, {"text": text}) for text in texts]
        count = len(texts)
        return EventColumns(
            tuple(self._ids.new("evt") for _ in texts), (kind,) * count, tuple(payloads), (1,) * count
        )
