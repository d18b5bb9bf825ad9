"""Orgs, members and policy over HTTP on a real database."""

import trio

from tests.integration.control.rig import OTHER_DEVICE, ControlRig, Document, Person, refusal


async def _make_org(control: ControlRig, person: Person, name: str = "acme") -> str:
    answer = await control.post("/api/orgs", {"name": name}, person.access_token)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["org_id"])


async def _put(
    control: ControlRig, actor: Person, org_id: str, user_id: str, role: str
) -> tuple[int, Document]:
    body = {"user_id": user_id, "role": role}
    answer = await control.post(f"/api/orgs/{org_id}/members", body, actor.access_token)
    return answer.status_code, answer.json()


async def _remove(control: ControlRig, actor: Person, org_id: str, user_id: str) -> int:
    path = f"/api/orgs/{org_id}/members/{user_id}"
    answer = await control.http.delete(path, headers={"Authorization": f"Bearer {actor.access_token}"})
    return answer.status_code


async def _membership_rows(control: ControlRig) -> list[tuple[str, str]]:
    answer = await control.get("/internal/v1/revocations?after=0", control.config.node_credential.reveal())
    return [
        (row["org_id"], row["user_id"])
        for row in answer.json()["revocations"]
        if row["kind"] == "REVOCATION_KIND_MEMBERSHIP"
    ]


async def test_the_life_of_a_membership(control: ControlRig) -> None:
    """Added, promoted, demoted, removed: the next mint and the log of revocations follow each step."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob", OTHER_DEVICE)
    org_id = await _make_org(control, ann)
    runs, ops = f"org:{org_id}:runs", f"org:{org_id}:ops"
    assert refusal(await control.mint(bob.access_token, runs)) == (403, "forbidden")

    status, member = await _put(control, ann, org_id, bob.user_id, "member")
    assert (status, member["role"], member["login"]) == (200, "member", "bob")
    assert (await control.mint(bob.access_token, runs)).status_code == 200
    assert refusal(await control.mint(bob.access_token, ops)) == (403, "forbidden")
    assert await _membership_rows(control) == []

    await _put(control, ann, org_id, bob.user_id, "admin")
    assert (await control.mint(bob.access_token, ops)).status_code == 200
    assert await _membership_rows(control) == []

    await _put(control, ann, org_id, bob.user_id, "member")
    assert refusal(await control.mint(bob.access_token, ops)) == (403, "forbidden")
    assert await _membership_rows(control) == [(org_id, bob.user_id)]

    assert await _remove(control, ann, org_id, bob.user_id) == 200
    assert refusal(await control.mint(bob.access_token, runs)) == (403, "forbidden")
    assert await _membership_rows(control) == [(org_id, bob.user_id)] * 2
    assert await _remove(control, ann, org_id, bob.user_id) == 404
    actions = await control.rows(
        "SELECT action FROM control.audit_log WHERE org_id = $1 AND outcome = 'done' ORDER BY audit_id",
        org_id,
    )
    assert [row["action"] for row in actions] == [
        "org.create", "member.put", "member.put", "member.put", "member.remove",
    ]  # fmt: skip


async def test_a_strangers_org_looks_like_none(control: ControlRig) -> None:
    """Reading and changing somebody else's org answer like an org that does not exist."""
    ann, eve = await control.sign_in("ann"), await control.sign_in("eve", OTHER_DEVICE)
    org_id = await _make_org(control, ann)
    for wanted in (org_id, f"org_{'0' * 26}", "nothing"):
        answer = await control.get(f"/api/orgs/{wanted}/members", eve.access_token)
        assert refusal(answer) == (404, "not_found")
        assert (await _put(control, eve, wanted, eve.user_id, "owner"))[0] == 404
        assert await _remove(control, eve, wanted, ann.user_id) == 404
    members = (await control.get(f"/api/orgs/{org_id}/members", ann.access_token)).json()["members"]
    assert [(member["user_id"], member["role"]) for member in members] == [(ann.user_id, "owner")]
    orgs = (await control.get("/api/orgs", eve.access_token)).json()["orgs"]
    assert [org["org_id"] for org in orgs] == [eve.org_id]


async def test_the_last_owner_stays_also_in_a_race(control: ControlRig) -> None:
    """Of two owners who both leave at the same moment, one remains."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob", OTHER_DEVICE)
    for number in range(5):
        org_id = await _make_org(control, ann, f"acme-{number}")
        await _put(control, ann, org_id, bob.user_id, "owner")
        statuses: list[int] = []

        async def leave(person: Person, org_id: str, statuses: list[int]) -> None:
            statuses.append(await _remove(control, person, org_id, person.user_id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, ann, org_id, statuses)
            nursery.start_soon(leave, bob, org_id, statuses)
        assert sorted(statuses) == [200, 400]
        owners = await control.rows(
            "SELECT count(*) AS count FROM control.memberships WHERE org_id = $1 AND role = 'owner'", org_id
        )
        assert owners == [{"count": 1}]


async def test_who_is_added_must_exist(control: ControlRig) -> None:
    """An unknown user is not found, a text that is no id is refused by its field."""
    ann = await control.sign_in("ann")
    org_id = await _make_org(control, ann)
    status, body = await _put(control, ann, org_id, f"usr_{'0' * 26}", "member")
    assert (status, body["code"]) == (404, "not_found")
    status, body = await _put(control, ann, org_id, "bob", "member")
    assert (status, body["details"]["field"]) == (400, "user_id")
    status, body = await _put(control, ann, org_id, ann.user_id, "root")
    assert (status, body["details"]["field"]) == (400, "role")


async def test_policy_answers_for_people_and_keys(control: ControlRig) -> None:
    """The role of now decides; a key is a member of its org; nobody is no error."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob", OTHER_DEVICE)
    _, secret = await control.create_key(ann, "read")

    async def ask(credential: str, org_id: str, action: str) -> tuple[bool, str]:
        answer = await control.post("/api/policy/evaluate", {"org_id": org_id, "action": action}, credential)
        assert answer.status_code == 200, answer.text
        return answer.json()["allowed"], answer.json()["role"]

    assert await ask(ann.access_token, ann.org_id, "keys.manage") == (True, "owner")
    assert await ask(bob.access_token, ann.org_id, "org.read") == (False, "")
    assert await ask(secret, ann.org_id, "runs.read") == (True, "member")
    assert await ask(secret, ann.org_id, "keys.manage") == (False, "member")
    answer = await control.post(
        "/api/policy/evaluate", {"org_id": ann.org_id, "action": "fly"}, ann.access_token
    )
    assert refusal(answer) == (400, "invalid_argument")


async def test_a_key_has_no_say_in_members(control: ControlRig) -> None:
    """Orgs are people's affair."""
    ann = await control.sign_in("ann")
    _, secret = await control.create_key(ann, "publish", "work", "read", "mint")
    body = {"user_id": ann.user_id, "role": "member"}
    assert refusal(await control.post("/api/orgs", {"name": "x"}, secret)) == (403, "forbidden")
    answer = await control.post(f"/api/orgs/{ann.org_id}/members", body, secret)
    assert refusal(answer) == (403, "forbidden")


async def test_the_runtime_asks_about_one_member(control: ControlRig) -> None:
    """Role of a member; not_found for everybody else and for orgs that do not exist; for the runtime alone."""
    ann, bob = await control.sign_in("ann"), await control.sign_in("bob")
    runtime = control.config.runtime_credential.reveal()
    found = await control.get(f"/internal/v1/orgs/{ann.org_id}/members/{ann.user_id}", runtime)
    assert (found.status_code, found.json()["role"]) == (200, "owner")
    for org_id, user_id in (
        (ann.org_id, bob.user_id),
        (bob.org_id, ann.user_id),
        (f"org_{1:026d}", ann.user_id),
        (ann.org_id, f"usr_{1:026d}"),
    ):
        answer = await control.get(f"/internal/v1/orgs/{org_id}/members/{user_id}", runtime)
        assert refusal(answer) == (404, "not_found")
    for credential in (ann.access_token, control.config.node_credential.reveal(), None):
        answer = await control.get(f"/internal/v1/orgs/{ann.org_id}/members/{ann.user_id}", credential)
        assert refusal(answer) == (401, "unauthenticated")
