"""What every command goes through: a refusal before any write, an identity, the appender.

Shared by the commands of runs and of app topics; owns no task. The rate is asked here, before anything is
queued, and decided again under the locks (core/decisions.py). Raises CommandRefused with a registered
reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from runtime.core.commands import IdempotencyKey, Request, Submission
from runtime.core.decisions import refuse_rate
from runtime.core.outcomes import Answered, Appended, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khala_contracts import reason_codes
    from khala_contracts.topics import TopicName
    from runtime.actors.appender import Appender
    from runtime.core.commands import Command
    from runtime.core.limits import RuntimeLimits
    from runtime.core.outcomes import Outcome
    from runtime.core.principals import Principal
    from runtime.core.rate_limit import RateLimiter
    from runtime.ports import AppendMetrics, Ids, JournalStore

__all__ = ["Caller", "CommandPath", "CommandRefused", "refused"]

# The scope of keys that we make for requests that come without: no principal has this name.
INTERNAL_SCOPE: Final = "~internal"


class CommandRefused(Exception):
    """A command was refused; nothing was written for it."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(refusal.reason.name)
        self.refusal = refusal


def refused(reason: reason_codes.ReasonCode, **details: str) -> CommandRefused:
    """Return the refusal of a command, to be raised."""
    return CommandRefused(Refused(reason, details))


@attrs.frozen
class Caller:
    """Who sends a command, and how it can be recognised again.

    Attributes:
        key: The caller's idempotency key; None if it sent none.
        request_id: Correlation id that is written beside the events.
    """

    principal: Principal
    key: str | None
    request_id: str


class CommandPath:
    """From an authorised command to its outcome."""

    def __init__(
        self,
        *,
        store: JournalStore,
        appender: Appender,
        limiter: RateLimiter,
        limits: RuntimeLimits,
        ids: Ids,
        metrics: AppendMetrics,
    ) -> None:
        self._store = store
        self._appender = appender
        self._limiter = limiter
        self._limits = limits
        self._ids = ids
        self._metrics = metrics

    def key(self, caller: Caller, route: str, subject: str, identity: bytes) -> IdempotencyKey:
        """Return the identity of a request: scoped by principal, route and what it is about.

        Args:
            caller: Its key, or one of ours that nobody else has.
            route: Of the command, as a template.
            subject: The run or topic in the route; "" if there is none.
            identity: Fingerprint of the request.
        """
        if caller.key is None:
            return IdempotencyKey(
                INTERNAL_SCOPE, self._ids.new("req"), identity, self._limits.internal_key_lifetime_s
            )
        scope = f"{caller.principal.principal_id} {route} {subject}"
        return IdempotencyKey(scope, caller.key, identity, self._limits.key_lifetime_s)

    async def check_rate(self, topic: TopicName, topic_class: str, count: int, key: IdempotencyKey) -> None:
        """Refuse a flood before it costs a transaction; a retry of what is committed still passes.

        Raises:
            CommandRefused: rate_limited.
            Unavailable: The key must be looked up and the database does not answer.
        """
        wait_s = self._limiter.wait_s(topic, topic_class, count, now=trio.current_time())
        if wait_s <= 0:
            return
        if key.scope == INTERNAL_SCOPE or await self._store.read_key(key.scope, key.key) is None:
            refusal = refuse_rate(topic_class, wait_s, self._limiter)
            self._metrics.refused(refusal.reason.name)
            raise CommandRefused(refusal)

    def take_rate(self, topic: TopicName, topic_class: str, count: int) -> None:
        """Count events that were committed beside the appender, which counts its own."""
        self._limiter.take(topic, topic_class, count, now=trio.current_time())

    async def submit(self, caller: Caller, key: IdempotencyKey, command: Command) -> Appended | Answered:
        """Commit one command.

        Raises:
            CommandRefused: It was refused under the locks.
            Unavailable: see Appender.submit.
        Cancellation: only stops the waiting.
        """
        (outcome,) = await self.submit_all([self.request(caller, key, command)])
        if isinstance(outcome, Refused):
            raise CommandRefused(outcome)
        assert isinstance(outcome, Appended | Answered), "a single request is never skipped"
        return outcome

    async def submit_all(self, requests: Sequence[Request]) -> list[Outcome]:
        """Commit requests in order, up to the first that is refused. Raises: as Appender.submit."""
        return list(await self._appender.submit(Submission(tuple(requests))))

    @staticmethod
    def request(caller: Caller, key: IdempotencyKey, command: Command) -> Request:
        """Return a command with its sender and identity."""
        return Request(caller.principal.principal_id, caller.request_id, key, command)
