"""The text of each statement, read once from queries/*.sql."""

from __future__ import annotations

from typing import Final

from khala_service.adapters.postgres import load_queries

_PACKAGE: Final = "runtime.adapters.postgres.queries"

READ_TOPICS: Final = load_queries(_PACKAGE, "read_topics")
READ_RUN: Final = load_queries(_PACKAGE, "read_run")
LIST_RUNS: Final = load_queries(_PACKAGE, "list_runs")
READ_EVENTS: Final = load_queries(_PACKAGE, "read_events")
READ_KEY: Final = load_queries(_PACKAGE, "read_key")
LOCK_BATCH: Final = load_queries(_PACKAGE, "lock_batch")
APPEND: Final = load_queries(_PACKAGE, "append")
FINISH_BATCH: Final = load_queries(_PACKAGE, "finish_batch")
LOCK_CHECKPOINTS: Final = load_queries(_PACKAGE, "lock_checkpoints")
READ_SUMMARIES: Final = load_queries(_PACKAGE, "read_summaries")
READ_SOURCE_EVENTS: Final = load_queries(_PACKAGE, "read_source_events")
APPLY_RUN_SUMMARIES: Final = load_queries(_PACKAGE, "apply_run_summaries")
WRITE_CHECKPOINTS: Final = load_queries(_PACKAGE, "write_checkpoints")
FIND_BEHIND: Final = load_queries(_PACKAGE, "find_behind")
LIST_SUMMARIES: Final = load_queries(_PACKAGE, "list_summaries")
TRANSFER_RUN: Final = load_queries(_PACKAGE, "transfer_run")
TRANSFER_HEADS: Final = load_queries(_PACKAGE, "transfer_heads")
READ_MESSAGES: Final = load_queries(_PACKAGE, "read_messages")
TAKE_GENERATION: Final = "SELECT runtime.take_generation_v1($1)"
READ_GENERATION: Final = "SELECT g.generation FROM runtime.generation AS g"
ENSURE_LINEAGE: Final = "SELECT id, reason, parent FROM runtime.ensure_lineage_v1($1)"
DELETE_EXPIRED_KEYS: Final = "SELECT runtime.delete_expired_keys_v1($1)"
