"""Gives a run another owner: ``POST /v1/runs/{id}/transfer`` (ADR-0013).

Called by the HTTP adapter's handler, one task per request; owns no task. Beside the appender, because the
transaction also moves what is derived from the owner: the head row that nodes judge their subscriptions by,
and the lists of runs (INV-29). It is the one retry owner of that transaction; the request's key makes
running it again safe. Control is asked whether the new owner is a member of the run's org, before any lock.

A former owner loses what the owner alone may: nodes end subscriptions at their next position check, and
the run directory forgets the run, so that the next append is judged by the new owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from khala_contracts import reason_codes
from khala_contracts.ids import is_id
from khala_service.errors import DatabaseError, SerializationTrouble, Unavailable
from khala_service.logs import get_logger
from runtime.actors.command_path import CommandRefused, refused
from runtime.actors.writer import RETRY_FIRST_S, RETRY_MAX_S, SUPERSEDED
from runtime.core.decisions import RUN_CLASS
from runtime.core.fingerprint import fingerprint_parts
from runtime.core.outcomes import Answered, Refused
from runtime.core.projection_step import list_targets, user_list
from runtime.core.projections import ProjectionFailed
from runtime.core.run_transfer import RunTransfer, TransferOrder, decide_repeat, decide_right
from runtime.ports import Superseded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from khala_contracts.topics import TopicName
    from runtime.actors.command_path import Caller, CommandPath
    from runtime.actors.run_directory import RunDirectory
    from runtime.core.limits import RuntimeLimits
    from runtime.ports import (
        AppendMetrics,
        Authority,
        CommitListener,
        Ids,
        JournalStore,
        MembershipDirectory,
        RunRecord,
        TransferStore,
    )

__all__ = ["RunTransfers"]

_ROUTE: Final = "POST /v1/runs/{run_id}/transfer"
_NO_MEMBER: Final = "a member of the run's org"
_NO_ORG: Final = "nobody: the run belongs to no org"

_log = get_logger(__name__)


class RunTransfers:
    """The command that changes owners."""

    def __init__(
        self,
        path: CommandPath,
        *,
        store: JournalStore,
        transfers: TransferStore,
        members: MembershipDirectory,
        directory: RunDirectory,
        relay: CommitListener,
        authority: Callable[[], Authority | None],
        supersede: Callable[[], None],
        tell_heads: Callable[[Collection[TopicName]], Awaitable[None]],
        limits: RuntimeLimits,
        ids: Ids,
        metrics: AppendMetrics,
    ) -> None:
        self._path = path
        self._store = store
        self._transfers = transfers
        self._members = members
        self._directory = directory
        self._relay = relay
        self._authority = authority
        self._supersede = supersede
        self._tell_heads = tell_heads
        self._limits = limits
        self._ids = ids
        self._metrics = metrics

    async def transfer(self, caller: Caller, run_id: str, owner_user_id: str) -> bytes:
        """Give a run to another member of its org and return the encoded TransferRunResponse.

        Raises:
            CommandRefused: not_found; forbidden for who sees the run but neither owns it nor
                administers its org; rate_limited, by the rate of the run's topic; invalid_argument for an
                owner who is no member; name_taken if the new owner has a run of that name;
                idempotency_conflict.
            Unavailable: control or the database does not answer; ``outcome_unknown`` if the run may
                have its new owner.
        Cancellation: the transaction is rolled back, or has been committed and is found by the nodes.
        """
        if not is_id("run", run_id):
            raise refused(reason_codes.NOT_FOUND)
        key = self._path.key(caller, _ROUTE, run_id, fingerprint_parts(_ROUTE, [owner_user_id]))
        if caller.key is not None:
            # Before the right: who gave a run away may ask again what became of it.
            stored = await self._store.read_key(key.scope, key.key)
            if stored is not None:
                return _message(decide_repeat(stored, key))
        record = await self._store.read_run(run_id)
        refusal = decide_right(caller.principal, None if record is None else record.facts)
        if refusal is not None:
            raise CommandRefused(refusal)
        assert record is not None, "what does not exist is refused"
        await self._path.check_rate(record.facts.topic, RUN_CLASS, 1, key)
        await self._check_owner(record, owner_user_id)
        order = TransferOrder(caller.principal, run_id, owner_user_id, caller.request_id, key)
        try:
            outcome, is_untold = await self._try_until_known(order)
        finally:
            # Also when nobody knows what became of it: asking the database again is never wrong.
            self._directory.forget(run_id)
        if is_untold:
            lists = [*list_targets(owner_user_id, record.facts.org_id), user_list(record.facts.owner_user_id)]
            await self._tell_heads({record.facts.topic, *(target.topic for target in lists)})
        return _message(outcome)

    async def _check_owner(self, record: RunRecord, owner_user_id: str) -> None:
        org_id = record.facts.org_id
        if org_id is None:
            raise refused(reason_codes.INVALID_ARGUMENT, field="owner_user_id", problem=_NO_ORG)
        is_member = is_id("usr", owner_user_id) and await self._members.is_member(org_id, owner_user_id)
        if not is_member:
            raise refused(reason_codes.INVALID_ARGUMENT, field="owner_user_id", problem=_NO_MEMBER)

    async def _try_until_known(self, order: TransferOrder) -> tuple[Answered | Refused, bool]:
        """Return what became of it, and whether it was committed without anybody being told (INV-20).

        Raises:
            CommandRefused, Unavailable: see `transfer`.
        """
        give_up_at = trio.current_time() + self._limits.commit_deadline_s
        delay_s = RETRY_FIRST_S
        is_unknown = False
        while True:
            transfer = RunTransfer(order, new_event_id=lambda: self._ids.new("evt"))
            try:
                with trio.fail_at(give_up_at):
                    await self._attempt(transfer)
            except trio.TooSlowError:
                raise Unavailable("commit_deadline", outcome_unknown=is_unknown) from None
            except (Unavailable, SerializationTrouble) as error:
                reason = error.reason if isinstance(error, Unavailable) else f"database_{error.sqlstate}"
                is_unknown |= isinstance(error, Unavailable) and error.outcome_unknown
                if trio.current_time() + delay_s >= give_up_at:
                    raise Unavailable(reason, outcome_unknown=is_unknown) from error
                await trio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MAX_S)
            except CommandRefused as error:
                if is_unknown:
                    raise Unavailable(error.refusal.reason.name, outcome_unknown=True) from error
                raise
            else:
                assert transfer.outcome is not None, "every ending of a transfer has an outcome"
                return transfer.outcome, is_unknown and transfer.is_repeat

    async def _attempt(self, transfer: RunTransfer) -> None:
        authority = self._authority()
        if authority is None:
            raise Unavailable("not_serving")
        started = trio.current_time()
        try:
            await self._transfers.run_transfer(transfer, generation=authority.generation)
        except Superseded:
            self._supersede()
            raise CommandRefused(SUPERSEDED) from None
        except (DatabaseError, ProjectionFailed) as error:
            _log.error("transfer_failed", run=transfer.run_id, problem=str(error))
            raise refused(reason_codes.INTERNAL) from error
        # No await from here: what is committed is handed on, also if we are cancelled.
        self._relay.offer(transfer.committed, lineage=authority.lineage)
        for topic in transfer.committed:
            if topic.topic_class == RUN_CLASS:
                self._path.take_rate(topic.topic, RUN_CLASS, len(topic.kinds))
        if isinstance(transfer.outcome, Refused):
            self._metrics.refused(transfer.outcome.reason.name)
        self._metrics.committed(
            requests=1,
            events=sum(len(topic.kinds) for topic in transfer.committed),
            duplicates=int(transfer.is_repeat),
            duration_s=trio.current_time() - started,
        )


def _message(outcome: Answered | Refused) -> bytes:
    if isinstance(outcome, Refused):
        raise CommandRefused(outcome)
    return outcome.message
