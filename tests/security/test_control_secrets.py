"""Secrets stay where they belong: not in logs, metrics, error bodies, the audit log or any table."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.control.rig import (
    DEVICE,
    OTHER_DEVICE,
    ControlRig,
    bearer,
    make_config,
    running_control,
)
from tests.postgres_cluster import Database


@pytest.fixture
async def control(control_database: Database, tmp_path: Path) -> AsyncIterator[ControlRig]:
    """A service of its own per test."""
    async with running_control(make_config(control_database, tmp_path), control_database) as rig:
        yield rig


async def _everything_stored(control: ControlRig) -> str:
    """Return every row of every table as text, byte columns in hex."""
    tables = await control.rows(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'control' ORDER BY tablename"
    )
    assert len(tables) == 16
    rows = []
    for table in tables:
        found = await control.rows(f"SELECT t::text AS row FROM control.{table['tablename']} AS t")
        rows += [row["row"] for row in found]
    return "\n".join(rows)


async def test_no_secret_is_found_anywhere(control: ControlRig) -> None:
    """Every credential that was made, presented, mistyped or misplaced: zero hits in all outputs."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob", OTHER_DEVICE)
    key_id, secret = await control.create_key(ann, "read", "mint")
    topic = f"app:{ann.org_id}:x"
    minted = [
        (await control.mint(ann.access_token, topic)).json()["token"],
        (await control.mint(secret, topic, device_id=DEVICE)).json()["token"],
        (await control.mint(secret, topic, subject={"user_id": "u", "device_id": DEVICE})).json()["token"],
    ]
    refreshed = (
        await control.post("/api/auth/refresh", {"refresh_token": ann.refresh_token, "device_id": DEVICE})
    ).json()
    canaries = {
        "access": ann.access_token,
        "refresh": ann.refresh_token,
        "refreshed access": refreshed["access_token"],
        "successor": refreshed["refresh_token"],
        "key": secret,
        "random part of the key": secret[-52:],
        "bob's access": bob.access_token,
        "bob's refresh": bob.refresh_token,
        **{f"sync token {number}": token for number, token in enumerate(minted)},
        "node": control.config.node_credential.reveal(),
        "runtime": control.config.runtime_credential.reveal(),
        "service": control.config.service_credential.reveal(),
        "private key": control.config.signing_keys_file.read_text().partition('"d": "')[2].partition('"')[0],
        "guess": "canary-guess-7f3a",
    }
    assert all(len(canary) > 12 for canary in canaries.values())

    answers = [
        # Misplaced: in URLs, in fields of another meaning, in ids, in headers of ours.
        await control.http.get(f"/api/auth/session?token={ann.access_token}"),
        await control.http.get(f"/api/{bob.access_token}"),
        await control.http.get(f"/api/keys?org_id={secret}", headers=bearer(bob.access_token)),
        await control.post(f"/api/keys/{secret}/revoke", {}, bob.access_token),
        await control.mint(bob.access_token, secret, minted[0], canaries["guess"]),
        await control.mint(bob.access_token, topic, device_id=canaries["guess"]),
        await control.mint(canaries["guess"], topic),
        await control.mint(secret + "0", topic, device_id=DEVICE),
        await control.post(
            "/api/keys",
            {"name": "x", "org_id": bob.org_id, "rights": [secret], "topics": [secret]},
            bob.access_token,
        ),
        await control.post("/api/auth/refresh", {"refresh_token": secret, "device_id": bob.refresh_token}),
        await control.walk_sign_in("eve", bob.refresh_token),
        await control.walk_sign_in(surface=bob.access_token),
        await control.post("/api/auth/exchange", {"code": secret, "code_verifier": bob.refresh_token}),
        await control.post("/api/auth/refresh", f'{{"refresh_token": "{secret}", "{secret}": 1}}'),
        await control.post(
            "/api/sync/token", {"topics": []}, ann.access_token, **{"X-Request-Id": f"{secret} x"}
        ),
    ]
    assert {answer.status_code for answer in answers} <= {400, 401, 403, 404}
    assert (await control.walk_sign_in(bob.access_token)).headers["Content-Type"].startswith("text/html")
    await control.post(f"/api/keys/{key_id}/revoke", {}, refreshed["access_token"])
    await control.post("/api/auth/logout", {}, refreshed["access_token"])
    await control.post("/api/auth/refresh", {"refresh_token": ann.refresh_token, "device_id": DEVICE})

    outputs = {
        "log": control.log.getvalue(),
        "metrics": (await control.http.get("/metrics")).text,
        "readiness": (await control.http.get("/readyz")).text,
        "published keys": (await control.http.get("/.well-known/jwks.json")).text,
        "error bodies": "\n".join(answer.text for answer in answers),
        "error headers": "\n".join(str(answer.headers) for answer in answers),
        "tables": await _everything_stored(control),
        "configuration": repr(control.config),
    }
    hits = {
        (output, canary)
        for output, text in outputs.items()
        for canary, secret_text in canaries.items()
        if secret_text in text or secret_text.encode().hex() in text
    }
    # A refused field may be named by its path; the doubled spelling names the field as the caller wrote it.
    assert hits - {("error bodies", "key"), ("error bodies", "random part of the key")} == set()
    assert outputs["tables"].count("session.sign_in") >= 2, "the dump does hold what was stored"


async def test_no_column_for_a_password(control: ControlRig) -> None:
    """Identities are asserted by an issuer; the schema has no place for a local credential."""
    columns = await control.rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'control'"
    )
    names = {(row["table_name"], row["column_name"]) for row in columns}
    suspicious = {
        pair
        for pair in names
        if any(word in pair[1] for word in ("password", "passwd", "credential", "secret", "token", "private"))
    }
    assert suspicious == {
        ("service_keys", "secret_hash"),
        ("retired_key_secrets", "secret_hash"),
        ("refresh_tokens", "token_hash"),
        ("token_redemptions", "token_expires_at"),
    }
