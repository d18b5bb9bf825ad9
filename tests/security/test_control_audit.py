"""The audit log: every act and refusal has exactly one row, and the service cannot change what it wrote."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import trio

from control.actors.audit_trail import AuditTrail
from control.adapters.metrics import PrometheusMeters
from control.adapters.postgres.audit import PostgresAudit
from control.core.audit import Action
from control.core.refusals import unauthenticated
from khala_service.adapters.postgres import open_pool
from khala_service.metrics import MetricsRegistry
from tests.integration.control.rig import DEVICE, ControlRig, ShiftedClock, make_config, running_control
from tests.postgres_cluster import Database

# What the service may do beyond reading and inserting; everything else on these tables is refused.
CHANGEABLE = {
    "users": set(),
    "identities": set(),
    "orgs": set(),
    "memberships": {"role"},
    "devices": {"last_seen_at"},
    "service_keys": {"expires_at", "last_used_at", "revoked_at", "revoked_by", "rotated_at", "secret_hash"},
    "retired_key_secrets": {"ends_at"},
    "sessions": {"expires_at", "revoked_at", "revoked_reason", "revoked_by"},
    "refresh_tokens": {"used_at", "successor_hash", "sealed_successor"},
    "pending_sign_ins": set(),
    "sign_in_codes": set(),
    "revocation_head": {"head_seq", "floor_seq"},
    "revocations": set(),
    "token_redemptions": {"redeemed_at"},
    "audit_log": set(),
    "schema_migrations": set(),
}
DELETABLE = {
    "retired_key_secrets",
    "memberships",
    "pending_sign_ins",
    "sign_in_codes",
    "sessions",
    "refresh_tokens",
    "revocations",
    "token_redemptions",
}


@pytest.fixture
async def control(control_database: Database, tmp_path: Path) -> AsyncIterator[ControlRig]:
    """A service of its own per test."""
    async with running_control(make_config(control_database, tmp_path), control_database) as rig:
        yield rig


async def test_each_act_and_refusal_has_one_row(control: ControlRig) -> None:
    """The script's rows, in order, with who, what, and the request's own id."""
    person = await control.sign_in()
    ids = [
        "script.refresh",
        "script.create",
        "script.mint",
        "script.denied",
        "script.revoke",
        "script.logout",
    ]
    header = [{"X-Request-Id": request_id} for request_id in ids]
    body = {"refresh_token": person.refresh_token, "device_id": DEVICE}
    await control.post("/api/auth/refresh", body, **header[0])
    key_body = {"name": "ci", "org_id": person.org_id, "rights": ["read"]}
    created = await control.post("/api/keys", key_body, person.access_token, **header[1])
    key_id = created.json()["key"]["key_id"]
    topics = {"topics": [f"user:{person.user_id}:runs"]}
    minted = await control.post("/api/sync/token", topics, person.access_token, **header[2])
    another = "1" if person.org_id.endswith("0") else "0"
    denied = {"topics": [f"org:{person.org_id[:-1]}{another}:runs"]}
    await control.post("/api/sync/token", denied, person.access_token, **header[3])
    await control.post(f"/api/keys/{key_id}/revoke", {}, person.access_token, **header[4])
    await control.post("/api/auth/logout", {}, person.access_token, **header[5])

    rows = await control.rows(
        "SELECT request_id, action, outcome, reason, user_id, session_id, key_id, org_id, jti, device_id"
        " FROM control.audit_log WHERE request_id LIKE 'script.%' ORDER BY audit_id"
    )
    assert [(row["request_id"], row["action"], row["outcome"]) for row in rows] == [
        ("script.refresh", "session.refresh", "done"),
        ("script.create", "key.create", "done"),
        ("script.mint", "sync_token.mint", "done"),
        ("script.denied", "sync_token.mint", "refused"),
        ("script.revoke", "key.revoke", "done"),
        ("script.logout", "session.logout", "done"),
    ]
    assert {row["user_id"] for row in rows} == {person.user_id}
    assert {row["session_id"] for row in rows} == {person.session_id}
    assert {row["device_id"] for row in rows} == {DEVICE}
    assert rows[1]["key_id"] == rows[4]["key_id"] == key_id
    assert rows[1]["org_id"] == person.org_id
    assert rows[2]["jti"] == minted.json()["jti"]
    assert rows[3]["reason"] == "forbidden:topic_forbidden"
    (sign_in,) = await control.rows("SELECT * FROM control.audit_log WHERE action = 'session.sign_in'")
    assert sign_in["outcome"] == "done"


async def test_a_flood_of_refusals_is_bounded_and_counted(control: ControlRig) -> None:
    """Of 500 refusals 20 get rows; one more row says that 480 did not. Nothing is lost silently."""
    clock, metrics = ShiftedClock(), MetricsRegistry("test", process_metrics=False)
    async with open_pool(control.config.database_dsn, application_name="test") as pool:
        trail = AuditTrail(PostgresAudit(pool), clock, PrometheusMeters(metrics), rate_per_s=0.0, burst=20)
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(_refuse, trail, number)
        await trail.write_summary(request_id="flood.summary")
        await trail.write_summary(request_id="flood.nothing")
    rows = await control.rows(
        "SELECT action, detail->>'count' AS count, request_id FROM control.audit_log"
        " WHERE request_id LIKE 'flood.%' ORDER BY audit_id"
    )
    assert [row["action"] for row in rows].count("sync_token.mint") == 20
    assert (rows[-1]["action"], rows[-1]["count"], rows[-1]["request_id"]) == (
        "audit.refusals_suppressed",
        "480",
        "flood.summary",
    )
    assert metrics.sample("khala_control_audit_suppressed_total") == 480


async def _refuse(trail: AuditTrail, number: int) -> None:
    await trail.note_refusal(
        Action.TOKEN_MINT, unauthenticated("no_credential"), request_id=f"flood.{number}"
    )


def test_the_service_may_change_only_what_it_must(control_database: Database) -> None:
    """As khala_control: 42501 for every UPDATE of another column, every DELETE and TRUNCATE not listed."""
    states = asyncio.run(_try_all(control_database))
    wrong = {
        statement: state
        for statement, (state, is_allowed) in states.items()
        if (state == "42501") == is_allowed
    }
    assert wrong == {}
    assert len(states) > 80


async def _try_all(database: Database) -> dict[str, tuple[str, bool]]:
    connection = await asyncpg.connect(database.dsn("khala_control"))
    try:
        columns = await connection.fetch(
            "SELECT c.relname AS table, a.attname AS column FROM pg_attribute AS a"
            " JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'control' AND c.relkind = 'r' AND a.attnum > 0"
        )
        assert {row["table"] for row in columns} == set(CHANGEABLE)
        tried: dict[str, bool] = {}
        for row in columns:
            table, column = row["table"], row["column"]
            statement = f"UPDATE control.{table} SET {column} = {column}"  # names from the catalog
            # An identity column can be set by nobody, which PostgreSQL says before it looks at rights.
            if (table, column) != ("audit_log", "audit_id"):
                tried[statement] = column in CHANGEABLE[table]
        for table in CHANGEABLE:
            tried[f"DELETE FROM control.{table}"] = table in DELETABLE  # names from the list above
            tried[f"TRUNCATE control.{table}"] = False
            tried[f"ALTER TABLE control.{table} DISABLE TRIGGER ALL"] = False
        now = "INSERT INTO control.audit_log (action, outcome, reason, request_id, detail, {0}) VALUES ('x', 'done', '', 'r', '{{}}', {1})"
        tried[now.format("occurred_at", "now()")] = False
        tried[now.format("user_id", "NULL")] = True
        return {
            statement: (await _sqlstate(connection, statement), is_allowed)
            for statement, is_allowed in tried.items()
        }
    finally:
        connection.terminate()


async def _sqlstate(connection: "asyncpg.Connection[asyncpg.Record]", statement: str) -> str:
    """Return the SQLSTATE of a statement, empty if it was allowed; nothing is kept."""
    try:
        async with connection.transaction():
            await connection.execute(statement)
            raise _NotKeptError
    except _NotKeptError:
        return ""
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)


class _NotKeptError(Exception):
    """Rolls the statement back."""
