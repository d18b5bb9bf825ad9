"""The three calls of one batch as values: what is locked, appended and finished.

Pure. `JournalStore.commit_batch` (ports.py) carries them out in one transaction; the SQL functions of
the same names are in adapters/postgres/migrations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from khala_contracts.topics import TopicName
    from runtime.core.commands import CreateRun, IdempotencyKey, TopicTarget
    from runtime.core.run_state_machine import RunState

__all__ = [
    "AppendCall",
    "AppendResult",
    "FinishCall",
    "KeyId",
    "LockCall",
    "Locked",
    "NewRun",
    "RunUpdate",
    "StoredKey",
]

# Identity of an idempotency key: its scope, then the key itself.
KeyId = tuple[str, str]


@attrs.frozen
class NewRun:
    """A run to be inserted if its request's key is new."""

    key: KeyId
    command: CreateRun


@attrs.frozen
class LockCall:
    """Everything that a batch must lock before it decides. Distinct within each field."""

    keys: Mapping[KeyId, IdempotencyKey]
    run_ids: tuple[str, ...]
    new_runs: tuple[NewRun, ...]
    targets: tuple[TopicTarget, ...]


@attrs.frozen
class StoredKey:
    """What is remembered under a key: the fingerprint of its request, and the encoded answer."""

    fingerprint: bytes
    answer: bytes = attrs.field(repr=False)


@attrs.frozen
class Locked:
    """The state that decisions are made on; it cannot change until the transaction ends.

    Attributes:
        known_keys: Keys that were used before; all others now belong to this transaction.
        run_states: By run id; a run that does not exist is absent.
        name_holders: By id of each new run whose key is new: its own id if it was inserted, else
            the id of the run that has its name.
        head_seqs: By topic; absent for the topic of a run that does not exist.
        locked_at_us: Unix microseconds, the database's clock; creation time of new runs.
    """

    known_keys: Mapping[KeyId, StoredKey]
    run_states: Mapping[str, RunState]
    name_holders: Mapping[str, str]
    head_seqs: Mapping[TopicName, int]
    locked_at_us: int


@attrs.frozen
class AppendCall:
    """Columns for append_v1; see there. Events are grouped by topic, in the order of `targets`."""

    targets: tuple[TopicTarget, ...]
    event_counts: list[int]
    event_ids: list[str]
    kinds: list[str]
    payloads: list[bytes] = attrs.field(repr=False)
    schema_versions: list[int]
    actors: list[str]
    request_ids: list[str]
    # What each record of a state topic is about; None: all of them are of logs.
    compaction_keys: list[str | None] | None = None


@attrs.frozen
class AppendResult:
    """What append_v1 returns; aligned with the call."""

    seqs_before: list[int]
    chains_before: list[bytes]
    # 32 bytes for each event, joined, in the order of the call.
    chains: bytes = attrs.field(repr=False)
    committed_at_us: int


@attrs.frozen
class RunUpdate:
    """New state of a run; `finished_at_us` iff the state is terminal."""

    run_id: str
    state: RunState
    finished_at_us: int | None


@attrs.frozen
class FinishCall:
    """What is written after the events, in the same transaction.

    Attributes:
        answers: What to remember, by key of this transaction; None forgets the key of a refused
            request. Keys that were known before are not touched, whatever is said of them here.
        run_updates: At most one for each run.
    """

    answers: Mapping[KeyId, StoredKey | None]
    run_updates: tuple[RunUpdate, ...]
