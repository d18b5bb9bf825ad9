"""The functions of the runtime's migrations as coroutines: lock_batch_v1, append_v1, finish_batch_v1.

They lock in the order that all writers keep (runtime/adapters/postgres/migrations/0003_commands.sql): the
generation row, shared; idempotency keys, sorted; rows of runs by id; names of new runs; topic heads by their
bytes. Each lock may wait. What they would write is staged in the transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from chaos.sim.database_session import GENERATION, refuse_nul
from chaos.sim.database_tables import KeyRow, RunRow, TopicDraft, TopicRow
from khala_contracts.chain import chain_start
from khala_contracts.codec import EntryTemplate
from runtime.core.journal_calls import AppendResult, Locked, StoredKey
from runtime.core.run_state_machine import RunState
from runtime.ports import EventRow, Superseded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.sim.database_session import Transaction
    from khala_contracts.topics import TopicName
    from runtime.core.commands import TopicTarget
    from runtime.core.journal_calls import AppendCall, FinishCall, KeyId, LockCall

__all__ = ["Drafts", "append", "finish_batch", "hold_generation", "lock_batch", "lock_heads", "name_key"]

US_PER_S: Final = 1_000_000


@attrs.define(eq=False)
class Drafts:
    """What one transaction has found and staged so far, beside its locks.

    Attributes:
        heads: Heads that it has locked, with what it adds to them.
        new_runs: Runs that it inserts.
        taken_keys: Keys that are its own now; their answers are not known yet.
    """

    heads: dict[TopicName, TopicDraft] = attrs.field(factory=dict)
    new_runs: dict[str, RunRow] = attrs.field(factory=dict)
    taken_keys: dict[KeyId, int] = attrs.field(factory=dict)


def name_key(owner_user_id: str, name: str) -> tuple[str, ...]:
    """Return the entry of the unique index over names."""
    return ("runs_name", owner_user_id, name)


async def hold_generation(transaction: Transaction, generation: int) -> None:
    """Lock the generation row against a take-over.

    Raises:
        Superseded: Another process has taken over.
    """
    await transaction.lock(GENERATION, is_shared=True)
    if transaction.database.tables.generation != generation:
        raise Superseded


async def lock_batch(transaction: Transaction, drafts: Drafts, call: LockCall, *, generation: int) -> Locked:
    """Take every lock that a batch needs and return what its decisions are made on."""
    tables = transaction.database.tables
    now_us = transaction.database.now_us()
    await hold_generation(transaction, generation)
    for scope, key in call.keys:
        refuse_nul(scope, key)
    known: dict[KeyId, StoredKey] = {}
    for key_id in sorted(call.keys, key=_bytes_of):
        await transaction.lock(("key", *key_id))
        row = tables.keys.get(key_id)
        if row is not None and row.expires_at_us > now_us:
            known[key_id] = StoredKey(row.fingerprint, row.answer)
        else:
            drafts.taken_keys[key_id] = now_us + call.keys[key_id].lifetime_s * US_PER_S
    states: dict[str, RunState] = {}
    for run_id in sorted(call.run_ids):
        if run_id in tables.runs:
            await transaction.lock(("run", run_id))
            states[run_id] = tables.runs[run_id].state
    holders = await _insert_runs(transaction, drafts, call, known, now_us)
    head_seqs = await lock_heads(
        transaction, drafts, call.targets, is_made=lambda target: target.run_id is None
    )
    return Locked(
        known_keys=known,
        run_states=states,
        name_holders=holders,
        head_seqs=head_seqs,
        locked_at_us=now_us,
    )


async def _insert_runs(
    transaction: Transaction, drafts: Drafts, call: LockCall, known: dict[KeyId, StoredKey], now_us: int
) -> dict[str, str]:
    tables = transaction.database.tables
    holders: dict[str, str] = {}
    taken: dict[tuple[str, str], str] = {}
    wanted = [new.command.facts for new in call.new_runs if new.key not in known]
    for facts in sorted(wanted, key=lambda facts: (facts.owner_user_id, facts.name, facts.run_id)):
        refuse_nul(facts.name, facts.agent, facts.source)
        name = facts.owner_user_id, facts.name
        holder = facts.run_id
        if facts.name:
            await transaction.lock(name_key(*name))
            holder = taken.setdefault(name, tables.names.get(name, facts.run_id))
        holders[facts.run_id] = holder
        if holder == facts.run_id:
            drafts.new_runs[facts.run_id] = RunRow(facts, RunState.RUNNING, now_us)
    return holders


async def lock_heads(
    transaction: Transaction,
    drafts: Drafts,
    targets: Iterable[TopicTarget],
    *,
    is_made: object = True,
) -> dict[TopicName, int]:
    """Lock heads by the bytes of their topics, making those that are missing.

    Args:
        transaction: The transaction.
        drafts: Gets a draft of each.
        targets: Distinct topics.
        is_made: Whether a missing head is made: a bool, or a function of the target.

    Returns:
        Each head as it is; a missing one that is not made is absent.
    """
    tables = transaction.database.tables
    found: dict[TopicName, int] = {}
    for target in sorted(targets, key=lambda target: target.topic.encode()):
        topic = target.topic
        if topic not in drafts.heads:
            makes = is_made(target) if callable(is_made) else is_made
            if topic not in tables.topics and not makes:
                continue
            await transaction.lock(("head", topic))
            drafts.heads[topic] = _draft(tables.topics.get(topic), target)
        found[topic] = drafts.heads[topic].head_seq
    return found


def _draft(row: TopicRow | None, target: TopicTarget) -> TopicDraft:
    if row is None:
        return TopicDraft(
            target.topic,
            target.topic_class,
            target.owner_user_id,
            target.org_id,
            0,
            chain_start(target.topic),
            0,
        )
    return TopicDraft(
        row.topic, row.topic_class, row.owner_user_id, row.org_id, row.head_seq, row.chains[-1],
        row.bytes_totals[-1],
    )  # fmt: skip


async def append(
    transaction: Transaction, drafts: Drafts, call: AppendCall, *, generation: int
) -> AppendResult:
    """Allocate seqs under the heads' locks, follow the chain, stage log and journal; see append_v1."""
    await hold_generation(transaction, generation)
    refuse_nul(*call.actors, *call.request_ids)
    await lock_heads(transaction, drafts, call.targets)
    # Under the locks, so that it ascends with seq.
    now_us = transaction.database.now_us()
    heads = [drafts.heads[target.topic] for target in call.targets]
    seqs_before = [head.head_seq for head in heads]
    chains_before = [head.head_chain for head in heads]
    chains: list[bytes] = []
    at = 0
    for head, count in zip(heads, call.event_counts, strict=True):
        template = EntryTemplate(head.topic)
        added = len(head.events)
        for index in range(at, at + count):
            event = EventRow(
                call.event_ids[index], head.head_seq + 1, call.kinds[index], call.payloads[index],
                call.schema_versions[index], call.actors[index], call.request_ids[index], now_us,
            )  # fmt: skip
            key = None if call.compaction_keys is None else call.compaction_keys[index]
            chains.append(head.add(event, key, template))
        at += count
        _stage_head(transaction, head, added)
    return AppendResult(seqs_before, chains_before, b"".join(chains), now_us)


def _stage_head(transaction: Transaction, head: TopicDraft, start: int) -> None:
    tables, added = transaction.database.tables, slice(start, len(head.events))

    def write() -> None:
        row = tables.topics.get(head.topic)
        if row is None:
            row = TopicRow(head.topic, head.topic_class, head.owner_user_id, head.org_id)
            tables.topics[head.topic] = row
        assert head.events[start].seq == row.head_seq + 1, "the head was locked"
        row.events += head.events[added]
        row.entries += head.entries[added]
        row.chains += head.chains[added]
        row.bytes_totals += head.bytes_totals[added]
        row.compaction_keys += head.compaction_keys[added]

    transaction.stage(write)


def finish_batch(transaction: Transaction, drafts: Drafts, call: FinishCall) -> None:
    """Stage the answers, the new runs and the new states of runs; see finish_batch_v1."""
    tables = transaction.database.tables

    def write() -> None:
        for run_id, run in drafts.new_runs.items():
            tables.runs[run_id] = run
            if run.facts.name:
                tables.names[run.facts.owner_user_id, run.facts.name] = run_id
        for update in call.run_updates:
            tables.runs[update.run_id].state = update.state
            tables.runs[update.run_id].finished_at_us = update.finished_at_us
        for key_id, stored in call.answers.items():
            if stored is not None and key_id in drafts.taken_keys:
                tables.keys[key_id] = KeyRow(stored.fingerprint, stored.answer, drafts.taken_keys[key_id])

    transaction.stage(write)


def _bytes_of(key_id: KeyId) -> tuple[bytes, bytes]:
    scope, key = key_id
    return scope.encode(), key.encode()
