"""What has ended stays ended: after a restart, on a device that was set up anew, in a race for one token."""

from pathlib import Path

import attrs
import trio

from tests.integration.control.rig import (
    DEVICE,
    OTHER_DEVICE,
    ControlRig,
    Document,
    free_port,
    make_config,
    refusal,
    running_control,
)
from tests.postgres_cluster import Database


async def test_what_was_revoked_stays_so_after_a_restart(control: ControlRig) -> None:
    """CT-20: access, refresh and sync tokens and a key, all from before: refused by the process that comes after."""
    person, bystander = await control.sign_in("ann"), await control.sign_in("bob", OTHER_DEVICE)
    key_id, secret = await control.create_key(bystander, "read")
    topic = f"user:{person.user_id}:runs"
    minted = (await control.mint(person.access_token, topic)).json()
    body = {"scope": "REVOKE_SCOPE_ALL"}
    assert (await control.post("/api/auth/sessions/revoke", body, person.access_token)).status_code == 200
    assert (await control.post(f"/api/keys/{key_id}/revoke", {}, bystander.access_token)).status_code == 200
    seen = await control.rows("SELECT seq, kind FROM control.revocations ORDER BY seq")
    config = attrs.evolve(control.config, port=free_port())
    async with running_control(config, control.database) as again:
        assert refusal(await again.get("/api/auth/session", person.access_token)) == (401, "reauth_required")
        assert refusal(await again.mint(person.access_token, topic)) == (401, "reauth_required")
        refresh = {"refresh_token": person.refresh_token, "device_id": DEVICE}
        assert refusal(await again.post("/api/auth/refresh", refresh)) == (401, "reauth_required")
        runs = f"org:{bystander.org_id}:runs"
        assert refusal(await again.mint(secret, runs, device_id=DEVICE)) == (401, "unauthenticated")
        now_ms = int(again.clock.now() * 1000)
        redemption = {
            "jti": minted["jti"],
            "connection_id": "con_1",
            "node_id": "nod_1",
            "session_id": person.session_id,
            "principal_id": person.user_id,
            "user_id": person.user_id,
            "device_id": DEVICE,
            "token_expires_at": str(now_ms + 60_000),
            "token_issued_at": str(now_ms),
        }
        assert await again.redeem(redemption) == ["revoked"]
        log = await again.get("/internal/v1/revocations?after=0", again.config.node_credential.reveal())
        assert [row["seq"] for row in log.json()["revocations"]] == [str(row["seq"]) for row in seen]
        assert (await again.get("/api/auth/session", bystander.access_token)).status_code == 200


async def test_a_device_that_was_set_up_anew(control: ControlRig) -> None:
    """CT-22: a new install is a new device; the old one is in the list and can be ended from the new one."""
    old, new = await control.sign_in("ann"), await control.sign_in("ann", OTHER_DEVICE)
    rows = await control.rows("SELECT device_id FROM control.devices WHERE user_id = $1", old.user_id)
    assert {row["device_id"] for row in rows} == {DEVICE, OTHER_DEVICE}
    listed = (await control.get("/api/auth/sessions", new.access_token)).json()["sessions"]
    assert [session["device_id"] for session in listed] == [OTHER_DEVICE, DEVICE]
    body = {"scope": "REVOKE_SCOPE_DEVICE", "device_id": DEVICE}
    ended = await control.post("/api/auth/sessions/revoke", body, new.access_token)
    assert ended.json()["session_ids"] == [old.session_id]
    assert refusal(await control.get("/api/auth/session", old.access_token)) == (401, "reauth_required")
    assert (await control.get("/api/auth/session", new.access_token)).status_code == 200


async def test_two_users_of_one_device(control: ControlRig) -> None:
    """CT-22: sessions, tokens and namespaces are each one's own; ending one's device does not touch the other."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob")
    assert ann.user_id != bob.user_id
    assert refusal(await control.mint(bob.access_token, f"user:{ann.user_id}:runs")) == (403, "forbidden")
    body = {"scope": "REVOKE_SCOPE_DEVICE", "device_id": DEVICE}
    ended = await control.post("/api/auth/sessions/revoke", body, ann.access_token)
    assert ended.json()["session_ids"] == [ann.session_id]
    assert (await control.get("/api/auth/session", bob.access_token)).status_code == 200
    inbox = f"device:{DEVICE}:inbox"
    assert refusal(await control.mint(bob.access_token, inbox)) == (403, "forbidden")


async def test_fifty_refreshes_without_a_grace(control_database: Database, tmp_path: Path) -> None:
    """SEC-01 with refresh_grace_s = 0: one success; every other one is a reuse, which ends the whole family."""
    config = attrs.evolve(make_config(control_database, tmp_path), refresh_grace_s=0)
    async with running_control(config, control_database) as control:
        person = await control.sign_in()
        answers: list[tuple[int, Document]] = []

        async def refresh() -> None:
            body = {"refresh_token": person.refresh_token, "device_id": DEVICE}
            answer = await control.post("/api/auth/refresh", body)
            answers.append((answer.status_code, answer.json()))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(refresh)
        assert sorted(status for status, _ in answers) == [200] + [401] * 49
        (successor,) = [document["refresh_token"] for status, document in answers if status == 200]
        body = {"refresh_token": successor, "device_id": DEVICE}
        assert refusal(await control.post("/api/auth/refresh", body)) == (401, "reauth_required")
        rows = await control.rows("SELECT kind, session_id FROM control.revocations")
        assert rows == [{"kind": "session", "session_id": person.session_id}]
        causes = await control.rows(
            "SELECT DISTINCT reason FROM control.audit_log WHERE action = 'session.refresh' AND outcome = 'refused'"
        )
        assert "reauth_required:refresh_token_reused" in {row["reason"] for row in causes}


async def test_fifty_refreshes_within_the_grace(control: ControlRig) -> None:
    """SEC-01: one rotation, and all that succeed have the same successor; later, the old token ends the family."""
    person = await control.sign_in()
    body = {"refresh_token": person.refresh_token, "device_id": DEVICE}
    successors: set[str] = set()

    async def refresh() -> None:
        answer = await control.post("/api/auth/refresh", body)
        assert answer.status_code == 200
        successors.add(answer.json()["refresh_token"])

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(refresh)
    assert len(successors) == 1
    control.clock.offset_s = control.config.refresh_grace_s + 1
    assert refusal(await control.post("/api/auth/refresh", body)) == (401, "reauth_required")
    body = {"refresh_token": successors.pop(), "device_id": DEVICE}
    assert refusal(await control.post("/api/auth/refresh", body)) == (401, "reauth_required")


async def test_a_token_of_one_device_on_another(control: ControlRig) -> None:
    """SEC-02: refused as `device_mismatch`, and still good for its own device."""
    person = await control.sign_in()
    body = {"refresh_token": person.refresh_token, "device_id": OTHER_DEVICE}
    answer = await control.post("/api/auth/refresh", body)
    assert refusal(answer) == (401, "reauth_required")
    (row,) = await control.rows(
        "SELECT reason FROM control.audit_log WHERE request_id = $1", answer.headers["X-Request-Id"]
    )
    assert row["reason"] == "reauth_required:device_mismatch"
    assert (await control.post("/api/auth/refresh", {**body, "device_id": DEVICE})).status_code == 200
