"""Machines: service keys and what they mint, for themselves and for an application's own users."""

import attrs
import jwt
import pytest

from control.adapters.postgres.service_keys import PostgresKeys
from control.core.service_keys import PATTERNS_MAX
from khala_contracts.sync_claims import GrantBasis, PrincipalKind, Surface, SyncClaims, from_claims_untrusted
from khala_service.adapters.postgres import open_pool
from khala_service.identifiers import SystemIds
from tests.integration.control.rig import (
    DEVICE,
    OTHER_DEVICE,
    ControlRig,
    free_port,
    refusal,
    running_control,
)


def _claims(token: str) -> SyncClaims:
    """Read a token; that it is genuine is shown elsewhere."""
    return from_claims_untrusted(jwt.decode(token, options={"verify_signature": False}))


async def test_the_secret_is_shown_once(control: ControlRig) -> None:
    """Only the answer to the creation has it; the database has its hash; the list has neither."""
    person = await control.sign_in()
    key_id, secret = await control.create_key(person, "publish", "read", topics=["run:*:events"])
    assert secret.startswith(f"khk_{key_id.removeprefix('key_')}_")
    listed = await control.get("/api/keys", person.access_token)
    assert secret not in listed.text
    (key,) = listed.json()["keys"]
    assert key["key_id"] == key_id
    assert key["rights"] == ["publish", "read"]
    assert key["topics"] == ["run:*:events"]
    assert (key["expires_at"], key["last_used_at"], key["revoked_at"]) == ("0", "0", "0")
    assert key["org_id"] == person.org_id
    by_org = await control.get(f"/api/keys?org_id={person.org_id}", person.access_token)
    assert by_org.json() == listed.json()


async def test_the_longest_names(control: ControlRig) -> None:
    """Limits count characters: eighty of four bytes each are stored, and so are 64 patterns."""
    person = await control.sign_in()
    topics = [f"app:{person.org_id}:{'x' * 61}{number:02d}" for number in range(PATTERNS_MAX)]
    name = "\U0001f511" * 80
    await control.create_key(person, "publish", "work", "read", "mint", name=name, topics=topics)
    (key,) = (await control.get("/api/keys", person.access_token)).json()["keys"]
    assert (key["name"], key["topics"]) == (name, topics)


async def test_only_administrators_of_the_org(control: ControlRig) -> None:
    """A member, a stranger and a key cannot create, list or revoke; unknown orgs look like foreign ones."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob")
    key_id, secret = await control.create_key(ann, "read")
    body = {"name": "x", "org_id": ann.org_id, "rights": ["read"]}
    for org_id in (ann.org_id, SystemIds().new("org"), "acme"):
        answer = await control.post("/api/keys", {**body, "org_id": org_id}, bob.access_token)
        assert refusal(answer) == (403, "forbidden")
    assert refusal(await control.get(f"/api/keys?org_id={ann.org_id}", bob.access_token)) == (
        403,
        "forbidden",
    )
    assert (await control.get("/api/keys", bob.access_token)).json()["keys"] == []
    for foreign in (key_id, SystemIds().new("key")):
        answer = await control.post(f"/api/keys/{foreign}/revoke", {}, bob.access_token)
        assert refusal(answer) == (404, "not_found")
    await control.rows(
        "INSERT INTO control.memberships VALUES ($1, $2, 'member', now())", ann.org_id, bob.user_id
    )
    assert refusal(await control.post("/api/keys", body, bob.access_token)) == (403, "forbidden")
    for answer in (
        await control.post("/api/keys", body, secret),
        await control.get("/api/keys", secret),
        await control.get("/api/auth/session", secret),
        await control.post("/api/auth/logout", {}, secret),
    ):
        assert refusal(answer) == (403, "forbidden")
    await control.rows("UPDATE control.memberships SET role = 'admin' WHERE user_id = $1", bob.user_id)
    assert (await control.post("/api/keys", body, bob.access_token)).status_code == 201


async def test_the_only_org_need_not_be_named(control: ControlRig) -> None:
    """Without an org the key is of the one that the caller administers; with two it must be said."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob")
    body = {"name": "x", "rights": ["read"]}
    created = await control.post("/api/keys", body, bob.access_token)
    assert created.json()["key"]["org_id"] == bob.org_id
    await control.rows(
        "INSERT INTO control.memberships VALUES ($1, $2, 'admin', now())", ann.org_id, bob.user_id
    )
    answer = await control.post("/api/keys", body, bob.access_token)
    assert refusal(answer) == (400, "invalid_argument")
    assert answer.json()["details"]["field"] == "org_id"


async def test_revoked_and_expired_keys_are_nobody(control: ControlRig) -> None:
    """An ended key, a wrong secret and an unknown key get one answer; revoking twice changes nothing."""
    person = await control.sign_in()
    topic = f"org:{person.org_id}:runs"
    key_id, secret = await control.create_key(person, "read")
    _, short = await control.create_key(person, "read", ttl_s=100)
    for live in (secret, short):
        assert (await control.mint(live, topic, device_id=DEVICE)).status_code == 200
    wrong = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    while_live = await control.mint(wrong, topic, device_id=DEVICE)
    assert refusal(while_live) == (401, "unauthenticated")
    first = await control.post(f"/api/keys/{key_id}/revoke", {}, person.access_token)
    again = await control.post(f"/api/keys/{key_id}/revoke", {}, person.access_token)
    assert first.status_code == 200
    assert first.json() == again.json()
    control.clock.offset_s = 101
    unknown = f"khk_{SystemIds().new('key').removeprefix('key_')}_{secret[-52:]}"
    while_live_body = while_live.json()
    while_live_body.pop("request_id")
    bodies = [(401, while_live_body)]
    for ended in (secret, short, wrong, unknown, "khk_", f"{secret}0"):
        answer = await control.mint(ended, topic, device_id=DEVICE)
        body = answer.json()
        body.pop("request_id")
        bodies.append((answer.status_code, body))
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0][0] == 401
    assert bodies[0][1]["code"] == "unauthenticated"


async def test_last_use_is_coarse(control: ControlRig) -> None:
    """Uses within a minute leave one time; the first use after it the next."""
    person = await control.sign_in()
    key_id, secret = await control.create_key(person, "read")

    async def use_at(offset_s: float) -> int:
        control.clock.offset_s = offset_s
        await control.mint(secret, f"org:{person.org_id}:runs", device_id=DEVICE)
        (key,) = (await control.get("/api/keys", person.access_token)).json()["keys"]
        return int(key["last_used_at"])

    first = await use_at(0)
    assert first > 0
    assert await use_at(50) == first
    # Also when several requests have read the old time and write at once.
    async with open_pool(control.config.database_dsn, application_name="test") as pool:
        await PostgresKeys(pool).note_use(key_id, now_ms=first + 59_999)
    assert await use_at(50) == first
    assert await use_at(65) >= first + 60_000


async def test_own_token_of_a_key(control: ControlRig) -> None:
    """With `read`: topics of its org that its patterns cover; never another org's, a user's, a device's."""
    person, other = await control.sign_in("ann"), await control.sign_in("bob")
    org_run = control.runtime.add_run(person.user_id, person.org_id)
    own_worker = control.runtime.add_worker(person.user_id, person.org_id)
    _, every = await control.create_key(person, "read")
    _, narrow = await control.create_key(
        person, "read", topics=[f"app:{person.org_id}:builds", f"org:{person.org_id}:ops", "worker:*:events"]
    )
    _, publish_only = await control.create_key(person, "publish")
    builds, runs = f"app:{person.org_id}:builds", f"org:{person.org_id}:runs"
    ops = f"org:{person.org_id}:ops"

    answer = await control.mint(every, org_run, builds, runs, device_id=DEVICE)
    assert answer.status_code == 200, answer.text
    claims = _claims(answer.json()["token"])
    assert {(grant.basis, grant.org_id) for grant in claims.grants} == {(GrantBasis.KEY, person.org_id)}
    assert claims.principal_kind is PrincipalKind.SERVICE
    assert claims.principal_id.startswith("key_")
    assert claims.user_id == person.user_id
    assert claims.device_id == DEVICE
    assert claims.surface is Surface.SERVICE
    again = await control.mint(every, runs, device_id=DEVICE)
    assert _claims(again.json()["token"]).session_id == claims.session_id
    elsewhere = await control.mint(every, runs, device_id=OTHER_DEVICE)
    assert _claims(elsewhere.json()["token"]).session_id != claims.session_id

    assert (await control.mint(narrow, builds, ops, own_worker, device_id=DEVICE)).status_code == 200
    for secret, topic in [
        (every, ops),
        (every, own_worker),
        (every, control.runtime.add_run(person.user_id)),
        (every, control.runtime.add_run(other.user_id, other.org_id)),
        (every, f"org:{other.org_id}:runs"),
        (every, f"user:{person.user_id}:runs"),
        (every, f"device:{DEVICE}:inbox"),
        (narrow, runs),
        (narrow, org_run),
        (narrow, f"app:{person.org_id}:builds2"),
        (narrow, control.runtime.add_worker(other.user_id, person.org_id)),
        (publish_only, builds),
    ]:
        answer = await control.mint(secret, topic, device_id=DEVICE)
        assert refusal(answer) == (403, "forbidden"), topic
    assert refusal(await control.mint(every, runs)) == (400, "invalid_argument")


async def test_tokens_for_an_applications_own_users(control: ControlRig) -> None:
    """With `mint`: a derived session per user and device, within the key's topics and org."""
    person = await control.sign_in()
    orders = f"app:{person.org_id}:orders"
    _, backend = await control.create_key(person, "mint", topics=[orders])
    _, reader = await control.create_key(person, "read")
    subject = {"user_id": "customer 42", "device_id": OTHER_DEVICE}
    answer = await control.mint(backend, orders, subject=subject)
    assert answer.status_code == 200, answer.text
    claims = _claims(answer.json()["token"])
    assert claims.principal_kind is PrincipalKind.DERIVED
    assert claims.user_id != person.user_id
    assert claims.device_id == OTHER_DEVICE
    assert claims.surface is Surface.WEB
    assert [(grant.basis, grant.topic) for grant in claims.grants] == [(GrantBasis.KEY, orders)]
    again = _claims((await control.mint(backend, orders, subject=subject)).json()["token"])
    assert (again.user_id, again.session_id) == (claims.user_id, claims.session_id)
    assert again.jti != claims.jti
    phone = {**subject, "device_id": DEVICE}
    third = _claims((await control.mint(backend, orders, subject=phone)).json()["token"])
    assert third.user_id == claims.user_id
    assert third.session_id != claims.session_id

    for secret, asked in [
        (backend, f"app:{person.org_id}:other"),
        (backend, f"user:{claims.user_id}:runs"),
        (backend, f"device:{OTHER_DEVICE}:inbox"),
        (reader, orders),
    ]:
        answer = await control.mint(secret, asked, subject=subject)
        assert refusal(answer) == (403, "forbidden"), asked
    for wrong in [
        {"user_id": "", "device_id": DEVICE},
        {"user_id": "x" * 257, "device_id": DEVICE},
        {"user_id": "a\nb", "device_id": DEVICE},
        {"user_id": "a", "device_id": "phone"},
    ]:
        answer = await control.mint(backend, orders, subject=wrong)
        assert refusal(answer) == (400, "invalid_argument"), wrong
    answer = await control.mint(backend, orders, subject=subject, device_id=DEVICE)
    assert refusal(answer) == (400, "invalid_argument")
    # A key without `read` cannot mint for itself.
    assert refusal(await control.mint(backend, orders, device_id=DEVICE)) == (403, "forbidden")


async def test_users_of_two_orgs_are_two_users(control: ControlRig) -> None:
    """The same external id under two orgs, and a development login of that name, are three users."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob")
    user_ids = {ann.user_id}
    for person in (ann, bob):
        topic = f"app:{person.org_id}:x"
        _, secret = await control.create_key(person, "mint")
        answer = await control.mint(secret, topic, subject={"user_id": "ann", "device_id": DEVICE})
        user_ids.add(_claims(answer.json()["token"]).user_id)
    assert len(user_ids) == 3


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"name": " x"}, "name"),
        ({"name": "a\u0000b"}, "name"),
        ({"rights": []}, "rights"),
        ({"rights": ["read", "read"]}, "rights[1]"),
        ({"rights": ["admin"]}, "rights[0]"),
        ({"ttl_s": 10 * 366 * 24 * 3600 + 1}, "ttl_s"),
        ({"topics": ["run:*:events", "run:*:events"]}, "topics[1]"),
        ({"topics": ["run:*:events"] * (PATTERNS_MAX + 1)}, "topics"),
    ],
)
async def test_what_a_key_cannot_be(control: ControlRig, fields: dict[str, object], field: str) -> None:
    """Each field one beyond its limit is refused by name, and nothing is stored."""
    person = await control.sign_in()
    body = {"name": "x" * 80, "org_id": person.org_id, "rights": ["read"], **fields}
    answer = await control.post("/api/keys", body, person.access_token)
    assert refusal(answer) == (400, "invalid_argument")
    assert answer.json()["details"]["field"] == field
    assert (await control.get("/api/keys", person.access_token)).json()["keys"] == []


async def test_patterns_that_could_never_grant(control: ControlRig) -> None:
    """Another org's, a user's, a device's, or no topic at all: said at creation, not at the first mint."""
    person, other = await control.sign_in("ann"), await control.sign_in("bob")
    body = {"name": "x", "org_id": person.org_id, "rights": ["read"]}
    for pattern in (f"org:{other.org_id}:runs", "user:*:runs", "device:*:inbox", f"app:{other.org_id}:*"):
        answer = await control.post("/api/keys", {**body, "topics": [pattern]}, person.access_token)
        assert refusal(answer) == (403, "forbidden"), pattern
        assert answer.json()["details"] == {"topic": pattern}
    for text in ("run:*", "run:**:events", "run:run_*:events", "*", "", "run:*:events:*", "runs"):
        answer = await control.post("/api/keys", {**body, "topics": [text]}, person.access_token)
        assert refusal(answer) == (400, "topic_invalid"), text


async def test_keys_per_org_at_the_limit(control: ControlRig) -> None:
    """The configured number of keys can be made, one more cannot; revoked ones count."""
    config = attrs.evolve(control.config, keys_per_org_max=2, port=free_port())
    async with running_control(config, control.database) as limited:
        person = await limited.sign_in("eve")
        key_id, _ = await limited.create_key(person, "read")
        await limited.create_key(person, "read")
        await limited.post(f"/api/keys/{key_id}/revoke", {}, person.access_token)
        body = {"name": "x", "org_id": person.org_id, "rights": ["read"]}
        answer = await limited.post("/api/keys", body, person.access_token)
        assert refusal(answer) == (403, "limit_exceeded")
        assert answer.json()["details"] == {"limit": "2"}
