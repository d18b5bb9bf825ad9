"""principals/resolve: what the runtime learns of a bearer."""

import time

from tests.integration.control.rig import DEVICE, ControlRig, Document, refusal


async def _resolve(control: ControlRig, credential: str) -> tuple[int, Document]:
    answer = await control.post(
        "/internal/v1/principals/resolve",
        {"credential": credential},
        control.config.runtime_credential.reveal(),
    )
    return answer.status_code, answer.json()


async def test_a_person(control: ControlRig) -> None:
    """Identity, session and the orgs of this moment; believable no longer than the token."""
    person = await control.sign_in()
    status, principal = await _resolve(control, person.access_token)
    assert status == 200
    assert principal["kind"] == "PRINCIPAL_KIND_PERSON"
    assert principal["principal_id"] == principal["user_id"] == person.user_id
    assert principal["session_id"] == person.session_id
    assert principal["device_id"] == DEVICE
    assert principal["orgs"] == person.session["orgs"]
    assert 0 < int(principal["expires_at"]) / 1000 - time.time() <= 931
    await control.rows("DELETE FROM control.memberships WHERE user_id = $1", person.user_id)
    assert (await _resolve(control, person.access_token))[1]["orgs"] == []


async def test_a_key(control: ControlRig) -> None:
    """Its org, rights and patterns; it acts for its creator; its use is noted."""
    person = await control.sign_in()
    key_id, secret = await control.create_key(
        person, "work", "publish", topics=["run:*:events", f"app:{person.org_id}:x"], ttl_s=600
    )
    status, principal = await _resolve(control, secret)
    assert status == 200
    assert principal["kind"] == "PRINCIPAL_KIND_SERVICE"
    assert principal["principal_id"] == key_id
    assert principal["user_id"] == person.user_id
    assert [org["org_id"] for org in principal["orgs"]] == [person.org_id]
    assert principal["rights"] == ["publish", "work"]
    assert principal["topics"] == ["run:*:events", f"app:{person.org_id}:x"]
    assert 0 < int(principal["expires_at"]) / 1000 - time.time() <= 600
    (key,) = (await control.get("/api/keys", person.access_token)).json()["keys"]
    assert int(key["last_used_at"]) > 0


async def test_every_failure_is_one_answer(control: ControlRig) -> None:
    """Expired, revoked, forged, spent, unknown: 401 unauthenticated, the cause in the log only."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob")
    key_id, secret = await control.create_key(ann, "read")
    await control.post("/api/auth/logout", {}, bob.access_token)
    await control.post(f"/api/keys/{key_id}/revoke", {}, ann.access_token)
    control.clock.offset_s = 1000
    bodies = []
    for credential in ("", "x", ann.access_token, bob.access_token, secret, ann.refresh_token, "k" * 5000):
        status, body = await _resolve(control, credential)
        body.pop("request_id")
        bodies.append((status, body))
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0][0] == 401
    assert bodies[0][1]["code"] == "unauthenticated"
    rows = await control.rows(
        "SELECT reason FROM control.audit_log WHERE action = 'principal.resolve' ORDER BY audit_id"
    )
    assert [row["reason"].partition(":")[2] for row in rows] == [
        "no_credential",
        "access_malformed",
        "access_expired",
        "access_expired",
        "key_ended",
        "access_malformed",
        "credential_too_long",
    ]


async def test_the_bearer_is_looked_for_in_one_place(control: ControlRig) -> None:
    """A token in the URL or a cookie is no credential."""
    person = await control.sign_in()
    for path in ("token", "access_token"):
        answer = await control.http.get(f"/api/auth/session?{path}={person.access_token}")
        assert refusal(answer) == (401, "unauthenticated")
    answer = await control.http.get("/api/auth/session", headers={"Cookie": f"token={person.access_token}"})
    assert refusal(answer) == (401, "unauthenticated")
