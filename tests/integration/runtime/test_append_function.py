"""runtime.append_v1: the same bytes and chains as the contracts in Python, and what it refuses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import asyncpg
import pytest

from khala_contracts import chain as chains
from khala_contracts.codec import EntryTemplate, decode_entries, encode_varint
from khala_contracts.frames import ERASED_KIND
from tests.contract.fixture_files import load, rows
from tests.integration.runtime.raw_append import RawEvent, append_raw, connected

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AbstractAsyncContextManager

    from tests.contract.fixture_files import Row
    from tests.postgres_cluster import Database

TOPIC = "run:run_01fwhe4yddfk4scvajq9ww84cz:events"
OTHER = "run:run_01fwhe4yddfk4scvajq9ww84d0:events"
FIXTURE = load("chain.json")
HISTORIES = cast("list[dict[str, object]]", FIXTURE["histories"])


def run(work: Coroutine[object, object, None]) -> None:
    """Run one conversation with the server; these tests need no trio."""
    asyncio.run(work)


def service(database: Database) -> AbstractAsyncContextManager[asyncpg.Connection[asyncpg.Record]]:
    """Connect as the service's role."""
    return connected(database.dsn("khala_runtime"))


def links_of(history: dict[str, object]) -> list[Row]:
    """Return the links of a golden history."""
    return cast("list[Row]", history["links"])


def test_golden_starts(runtime_database: Database) -> None:
    """chain(0) of one topic of each class, as the first append sees it."""

    async def scenario() -> None:
        async with service(runtime_database) as connection:
            for row in rows(FIXTURE, "starts"):
                appended = await append_raw(connection, (row["topic"], [RawEvent("e")]))
                assert appended["chains_before"][0].hex() == row["chain_hex"]

    run(scenario())


@pytest.mark.parametrize(
    "history",
    [history for history in HISTORIES if not history["erased_frames"]],
    ids=lambda history: str(history["name"]),
)
def test_golden_chains(runtime_database: Database, history: dict[str, object]) -> None:
    """Every link of the golden histories comes out of PostgreSQL, in one call and in one per event."""

    async def scenario() -> None:
        async with service(runtime_database) as connection:
            links = links_of(history)
            assert all(row["kind"] != ERASED_KIND for row in links)
            events = [
                RawEvent(
                    f"e{row['seq']}",
                    row["kind"],
                    bytes.fromhex(row["payload_hex"]),
                    int(row["schema_version"]),
                )
                for row in links
            ]
            topic = str(history["topic"])
            transaction = connection.transaction()
            await transaction.start()
            at_once = (await append_raw(connection, (topic, events)))["chains"]
            await transaction.rollback()
            one_by_one = b""
            for event in events:
                one_by_one += (await append_raw(connection, (topic, [event])))["chains"]
            wanted = b"".join(bytes.fromhex(row["chain_hex"]) for row in links)
            assert at_once == one_by_one == wanted
            journal = await connection.fetch(
                "SELECT chain FROM runtime.journal WHERE topic = $1 ORDER BY seq", topic
            )
            assert b"".join(row["chain"] for row in journal) == wanted

    run(scenario())


@pytest.mark.parametrize("head_seq", [0, 126, 16_382, 2**21 - 2, 2**28 - 2, 2**35 - 2, 2**56 - 2, 2**62])
def test_entries_equal_the_codec(runtime_database: Database, head_seq: int) -> None:
    """Journal entries are byte for byte what the codec makes, at every width of every varint."""
    payloads = [b"", b"x", b"y" * 127, b"z" * 128, b"q" * 16_383, b"r" * 16_384, b"\x00\xff" * 131_072]
    events = [
        RawEvent(f"e{index}", kind, payload, version)
        for index, (payload, kind, version) in enumerate(
            zip(
                payloads,
                ["thought", "k" * 64, "a", "b.c", "d", "e", "f"],
                [1, 2, 127, 128, 16_384, 3, 2**32 - 1],
                strict=True,
            )
        )
    ]

    async def scenario() -> None:
        async with service(runtime_database) as connection:
            transaction = connection.transaction()
            await append_raw(connection, (TOPIC, [RawEvent("first")]))
            async with connected(runtime_database.superuser_dsn) as owner:
                await owner.execute("DELETE FROM runtime.journal")
                await owner.execute("DELETE FROM runtime.events")
                await owner.execute(
                    "UPDATE runtime.topic_heads SET head_seq = $1, head_bytes_total = 5", head_seq
                )
            await transaction.start()
            appended = await append_raw(connection, (TOPIC, events))
            await transaction.commit()
            template = EntryTemplate(TOPIC)
            wanted = [
                template.entry(head_seq + 1 + index, event.kind, event.payload, event.schema_version)
                for index, event in enumerate(events)
            ]
            journal = await connection.fetch("SELECT * FROM runtime.journal ORDER BY seq")
            assert [row["entry"] for row in journal] == wanted
            assert [frame.seq for frame in decode_entries(b"".join(wanted))] == [
                row["seq"] for row in journal
            ]
            totals, total = [], 5
            for entry in wanted:
                total += len(entry)
                totals.append(total)
            assert [row["bytes_total"] for row in journal] == totals
            head = await connection.fetchrow("SELECT * FROM runtime.topic_heads")
            assert head is not None
            assert (head["head_seq"], head["head_bytes_total"]) == (head_seq + len(events), total)
            assert head["head_chain"] == journal[-1]["chain"] == appended["chains"][-32:]
            chain = appended["chains_before"][0]
            for row, event in zip(journal, events, strict=True):
                chain = chains.chain_next(chain, row["seq"], event.schema_version, event.kind, event.payload)
                assert row["chain"] == chain

    run(scenario())


def test_varints(runtime_database: Database) -> None:
    """Both branches of the varint agree with the codec at every boundary up to 2^63 - 1."""
    values = sorted({0, 1, 2**63 - 1} | {2**n + d for n in range(7, 63) for d in (-1, 0, 1)})

    async def scenario() -> None:
        async with connected(runtime_database.superuser_dsn) as owner:
            got = await owner.fetch(
                "SELECT runtime.varint_v1(v) AS short, runtime.long_varint_v1(v) AS long"
                " FROM unnest($1::bigint[]) WITH ORDINALITY AS u (v, n) ORDER BY n",
                values,
            )
            assert [row["short"] for row in got] == [encode_varint(value) for value in values]
            assert [row["long"] for row in got] == [encode_varint(value) for value in values]

    run(scenario())


def test_several_topics_in_one_call(runtime_database: Database) -> None:
    """Results are aligned with the arguments whatever their order; heads, log and journal agree."""

    async def scenario() -> None:
        async with service(runtime_database) as connection:
            await append_raw(connection, (OTHER, [RawEvent("a", payload=b"1")]))
            appended = await append_raw(
                connection,
                (OTHER, [RawEvent("b", payload=b"2"), RawEvent("c", payload=b"3")]),
                (TOPIC, [RawEvent("d", payload=b"4", compaction_key="k")]),
            )
            assert appended["seqs_before"] == [1, 0]
            first = chains.chain_next(chains.chain_start(OTHER), 1, 1, "thought", b"1")
            assert appended["chains_before"] == [first, chains.chain_start(TOPIC)]
            second = chains.chain_next(first, 2, 1, "thought", b"2")
            third = chains.chain_next(second, 3, 1, "thought", b"3")
            fourth = chains.chain_next(chains.chain_start(TOPIC), 1, 1, "thought", b"4")
            assert appended["chains"] == second + third + fourth
            log = await connection.fetch(
                "SELECT e.topic, e.seq, e.event_id, e.committed_at, j.committed_at AS journal_time,"
                " j.compaction_key FROM runtime.events AS e JOIN runtime.journal AS j USING (topic, seq)"
                " ORDER BY e.event_id"
            )
            assert [(row["topic"], row["seq"], row["event_id"]) for row in log] == [
                (OTHER, 1, "a"), (OTHER, 2, "b"), (OTHER, 3, "c"), (TOPIC, 1, "d"),
            ]  # fmt: skip
            assert all(row["committed_at"] == row["journal_time"] for row in log)
            assert {row["committed_at"] for row in log[1:]} == {appended["committed_at"]}
            assert [row["compaction_key"] for row in log] == [None, None, None, "k"]

    run(scenario())


@pytest.mark.parametrize(
    ("sqlstate", "topics", "generation"),
    [
        ("KH001", [(TOPIC, [RawEvent("e")])], 1),
        ("KH002", [(TOPIC, [])], 0),
        ("KH002", [(TOPIC, [RawEvent("e")]), (OTHER, [])], 0),
        ("KH002", [], 0),
        ("23505", [(TOPIC, [RawEvent("e")]), (TOPIC, [RawEvent("f")])], 0),
        ("23514", [(TOPIC, [RawEvent("e", kind="")])], 0),
        ("23514", [(TOPIC, [RawEvent("e", kind="k" * 128)])], 0),
        ("23514", [(TOPIC, [RawEvent("e", schema_version=0)])], 0),
        ("23514", [(TOPIC, [RawEvent("e", schema_version=2**32)])], 0),
    ],
)
def test_refusals_write_nothing(
    runtime_database: Database,
    sqlstate: str,
    topics: list[tuple[str, list[RawEvent]]],
    generation: int,
) -> None:
    """Another generation, counts that do not match, a topic twice, a kind without a length byte."""

    async def scenario() -> None:
        async with service(runtime_database) as connection:
            with pytest.raises(asyncpg.PostgresError) as refused:
                await append_raw(connection, *topics, generation=generation)
            assert refused.value.sqlstate == sqlstate
            for table in ("events", "journal", "topic_heads"):
                assert await connection.fetchval(f"SELECT count(*) FROM runtime.{table}") == 0

    run(scenario())


def test_names_compare_as_bytes(runtime_database: Database) -> None:
    """Every column that names something is ordered by its bytes, whatever the database's locale."""

    async def scenario() -> None:
        async with service(runtime_database) as connection:
            collations = await connection.fetch(
                "SELECT c.relname, a.attname, co.collname FROM pg_attribute AS a"
                " JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " LEFT JOIN pg_collation AS co ON co.oid = a.attcollation"
                " WHERE n.nspname = 'runtime' AND c.relkind IN ('r', 'p') AND a.attname IN ('topic', 'key', 'scope', 'run_id')"
            )
            assert len(collations) > 10
            assert {row["collname"] for row in collations} == {"C"}

    run(scenario())
