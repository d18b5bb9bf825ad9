"""A key's secret is replaced while both work, and what stands on the key does not notice."""

from typing import Any

import jwt
import pytest

from control.core.service_keys import (
    ENDED_SECRETS_MAX,
    OVERLAP_DEFAULT_S,
    OVERLAP_MAX_S,
    RETIRED_SECRETS_MAX,
)
from khala_service.identifiers import SystemIds
from tests.integration.control.rig import DEVICE, ControlRig, Document, Person, refusal


async def rotate(control: ControlRig, person: Person, key_id: str, **fields: object) -> Document:
    """Rotate a key; return the answer."""
    answer = await control.post(f"/api/keys/{key_id}/rotate", fields, person.access_token)
    assert answer.status_code == 200, answer.text
    document: Document = answer.json()
    return document


async def status(control: ControlRig, person: Person, secret: str) -> int:
    """Return the status of a mint with a secret."""
    return (await control.mint(secret, f"org:{person.org_id}:runs", device_id=DEVICE)).status_code


async def cause_of_last_refusal(control: ControlRig) -> str:
    """Return what the log says of the last refusal, and nobody else is told."""
    (row,) = await control.rows(
        "SELECT reason FROM control.audit_log WHERE outcome = 'refused' ORDER BY audit_id DESC LIMIT 1"
    )
    return str(row["reason"])


async def test_both_secrets_work_until_the_overlap_ends(control: ControlRig) -> None:
    """The new one at once, the old one for the overlap and not a millisecond longer; id and rights stay."""
    person = await control.sign_in()
    key_id, old = await control.create_key(
        person, "read", topics=["run:*:events", f"org:{person.org_id}:runs"]
    )
    before = (await control.get("/api/keys", person.access_token)).json()["keys"][0]
    rotated = await rotate(control, person, key_id, overlap_s=100)
    new = rotated["secret"]
    assert new != old
    assert new.startswith(f"khk_{key_id.removeprefix('key_')}_")
    key = rotated["key"]
    changed = {name for name in key if key[name] != before[name]}
    assert changed == {"rotated_at", "old_secret_ends_at"}
    ends_at_ms = int(key["old_secret_ends_at"])
    assert ends_at_ms - int(key["rotated_at"]) == 100_000
    listed = await control.get("/api/keys", person.access_token)
    assert {name: listed.json()["keys"][0][name] for name in changed} == {name: key[name] for name in changed}
    assert old not in listed.text
    assert new not in listed.text

    assert [await status(control, person, secret) for secret in (old, new)] == [200, 200]
    control.clock.offset_s = 101
    assert [await status(control, person, secret) for secret in (old, new)] == [401, 200]
    assert await cause_of_last_refusal(control) == "unauthenticated:key_secret_replaced"
    wrong = new[:-1] + ("0" if new[-1] != "0" else "1")
    assert await status(control, person, wrong) == 401
    assert await cause_of_last_refusal(control) == "unauthenticated:key_secret_wrong"


async def test_sessions_go_on(control: ControlRig) -> None:
    """What was minted with the old secret, and what is with the new one, is one session."""
    person = await control.sign_in()
    key_id, old = await control.create_key(person, "read", "mint")
    new = (await rotate(control, person, key_id))["secret"]
    topic = f"app:{person.org_id}:x"
    subject = {"user_id": "customer", "device_id": DEVICE}

    def session_of(answer: Any) -> str:
        return str(jwt.decode(answer.json()["token"], options={"verify_signature": False})["sid"])

    for fields in ({"subject": subject}, {"device_id": DEVICE}):
        sessions = {session_of(await control.mint(secret, topic, **fields)) for secret in (old, new)}
        assert len(sessions) == 1


async def test_without_an_overlap_every_earlier_secret_ends(control: ControlRig) -> None:
    """0 is for a leak: neither the last one nor one before it, whose overlap still ran, works any more."""
    person = await control.sign_in()
    key_id, first = await control.create_key(person, "read")
    second = (await rotate(control, person, key_id, overlap_s=1_000))["secret"]
    assert await status(control, person, first) == 200
    third = (await rotate(control, person, key_id, overlap_s=0))["secret"]
    assert [await status(control, person, secret) for secret in (first, second, third)] == [401, 401, 200]


async def test_a_rotation_whose_answer_was_lost_is_asked_for_again(control: ControlRig) -> None:
    """The secret that everybody uses survives it; so many at once, and no more, go on working."""
    person = await control.sign_in()
    key_id, used = await control.create_key(person, "read")
    secrets = [used]
    secrets += [(await rotate(control, person, key_id))["secret"] for _ in range(RETIRED_SECRETS_MAX)]
    assert [await status(control, person, secret) for secret in secrets] == [200] * len(secrets)
    answer = await control.post(f"/api/keys/{key_id}/rotate", {}, person.access_token)
    assert refusal(answer) == (403, "limit_exceeded")
    assert await status(control, person, secrets[-1]) == 200
    # Whoever says 0 is not kept waiting, and neither is the next one after the overlap.
    last = (await rotate(control, person, key_id, overlap_s=0))["secret"]
    assert [await status(control, person, secret) for secret in (*secrets, last)] == [401] * len(secrets) + [
        200
    ]
    await rotate(control, person, key_id)
    control.clock.offset_s = OVERLAP_DEFAULT_S + 1
    assert await status(control, person, last) == 401


async def test_a_script_that_rotates_all_day_leaves_few_secrets(control: ControlRig) -> None:
    """Every use of the key reads them all: of those that have ended the last few stay, to say what they were."""
    person = await control.sign_in()
    key_id, first = await control.create_key(person, "read")
    for _ in range(3 * ENDED_SECRETS_MAX):
        last = (await rotate(control, person, key_id, overlap_s=0))["secret"]
    assert len(await control.rows("SELECT * FROM control.retired_key_secrets")) <= ENDED_SECRETS_MAX + 1
    assert [await status(control, person, secret) for secret in (first, last)] == [401, 200]
    # Those that still work are never among the forgotten.
    kept = (await rotate(control, person, key_id))["secret"]
    await rotate(control, person, key_id)
    assert [await status(control, person, secret) for secret in (last, kept)] == [200, 200]


async def test_revocation_and_expiry_end_every_secret(control: ControlRig) -> None:
    """One row for the nodes, and neither secret works; the expiry is the key's, whichever secret it is."""
    person = await control.sign_in()
    key_id, old = await control.create_key(person, "read")
    new = (await rotate(control, person, key_id))["secret"]
    assert (await control.post(f"/api/keys/{key_id}/revoke", {}, person.access_token)).status_code == 200
    assert [await status(control, person, secret) for secret in (old, new)] == [401, 401]
    rows = await control.rows("SELECT kind, key_id FROM control.revocations")
    assert rows == [{"kind": "key", "key_id": key_id}]

    short_id, short = await control.create_key(person, "read", ttl_s=100)
    short_new = (await rotate(control, person, short_id, overlap_s=1_000))["secret"]
    long_id, long = await control.create_key(person, "read", ttl_s=100)
    kept = await rotate(control, person, long_id, overlap_s=50, ttl_s=1_000)
    assert int(kept["key"]["expires_at"]) - int(kept["key"]["rotated_at"]) == 1_000_000
    control.clock.offset_s = 101
    answers = [await status(control, person, secret) for secret in (short, short_new, long, kept["secret"])]
    assert answers == [401, 401, 401, 200]


async def test_the_runtime_believes_an_old_secret_no_longer_than_it_works(control: ControlRig) -> None:
    """The answer to `resolve` ends with the overlap."""
    person = await control.sign_in()
    key_id, old = await control.create_key(person, "publish")
    rotated = await rotate(control, person, key_id, overlap_s=60)
    runtime = control.config.runtime_credential.reveal()
    body = {"credential": old}
    resolved = (await control.post("/internal/v1/principals/resolve", body, runtime)).json()
    assert resolved["principal_id"] == key_id
    assert resolved["expires_at"] == rotated["key"]["old_secret_ends_at"]
    body = {"credential": rotated["secret"]}
    assert int(
        (await control.post("/internal/v1/principals/resolve", body, runtime)).json()["expires_at"]
    ) > int(resolved["expires_at"])


async def test_who_may_rotate_what(control: ControlRig) -> None:
    """Admins of the key's org; unknown, foreign and ended keys, and the key itself, get nothing."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob")
    key_id, secret = await control.create_key(ann, "read")
    for foreign in (key_id, SystemIds().new("key")):
        answer = await control.post(f"/api/keys/{foreign}/rotate", {}, bob.access_token)
        assert refusal(answer) == (404, "not_found")
    assert refusal(await control.post(f"/api/keys/{key_id}/rotate", {}, secret)) == (403, "forbidden")
    assert refusal(await control.post(f"/api/keys/{key_id}/rotate", {})) == (401, "unauthenticated")
    assert refusal(await control.post("/api/keys/key_1/rotate", {}, ann.access_token)) == (
        400,
        "invalid_argument",
    )
    assert await status(control, ann, secret) == 200
    ended_id, ended = await control.create_key(ann, "read", ttl_s=100)
    control.clock.offset_s = 101
    answer = await control.post(f"/api/keys/{ended_id}/rotate", {"ttl_s": 1_000}, ann.access_token)
    assert refusal(answer) == (400, "invalid_argument")
    assert await status(control, ann, ended) == 401


@pytest.mark.parametrize(
    ("fields", "is_taken"),
    [
        ({"overlap_s": OVERLAP_MAX_S}, True),
        ({"overlap_s": OVERLAP_MAX_S + 1}, False),
        ({"ttl_s": 2**32 - 1}, False),
    ],
)
async def test_bounds_of_a_rotation(control: ControlRig, fields: dict[str, object], is_taken: bool) -> None:
    """At the limit and one beyond; a refused rotation leaves the secret as it was."""
    person = await control.sign_in()
    key_id, secret = await control.create_key(person, "read")
    answer = await control.post(f"/api/keys/{key_id}/rotate", fields, person.access_token)
    assert answer.status_code == (200 if is_taken else 400)
    assert await status(control, person, secret) == 200
    assert (answer.status_code == 200) == bool(
        await control.rows("SELECT * FROM control.retired_key_secrets")
    )


async def test_a_rotation_is_audited_and_no_secret_is_anywhere(control: ControlRig) -> None:
    """A row with who and which key; the secrets are in no row and no log."""
    person = await control.sign_in()
    key_id, old = await control.create_key(person, "read")
    new = (await rotate(control, person, key_id))["secret"]
    (row,) = await control.rows(
        "SELECT user_id, key_id, outcome FROM control.audit_log WHERE action = 'key.rotate'"
    )
    assert row == {"user_id": person.user_id, "key_id": key_id, "outcome": "done"}
    written = control.log.getvalue() + str(await control.rows("SELECT * FROM control.audit_log"))
    written += str(await control.rows("SELECT * FROM control.service_keys"))
    for secret in (old, new):
        assert secret not in written
