"""Sync tokens: what is granted, what is refused, and what the token says."""

import time
from typing import Any

import jwt
import pytest
import trio

from control.adapters.runtime_owners import TIMEOUT_S
from khala_contracts.sync_claims import GrantBasis, PrincipalKind, Surface, SyncClaims, from_claims_untrusted
from khala_service.identifiers import SystemIds
from tests.integration.control.rig import DEVICE, OTHER_DEVICE, ControlRig, Person, refusal


async def _claims(control: ControlRig, token: str) -> SyncClaims:
    """Verify a token with the published keys, as any third party would."""
    keys = (await control.get("/.well-known/jwks.json")).json()["keys"]
    kid = jwt.get_unverified_header(token)["kid"]
    key = jwt.PyJWK(next(key for key in keys if key["kid"] == kid))
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=["EdDSA"],
        audience="khala",
        issuer="khala-control",
        options={"require": ["exp", "iat", "jti"]},
    )
    return from_claims_untrusted(claims)


def _own_topics(person: Person, control: ControlRig) -> dict[str, tuple[GrantBasis, str | None]]:
    """Return topics of every class that a person may read, with the right."""
    user_id, org_id = person.user_id, person.org_id
    return {
        control.runtime.add_run(user_id): (GrantBasis.OWNER, None),
        control.runtime.add_run("", org_id): (GrantBasis.ORG_MEMBER, org_id),
        control.runtime.add_worker(user_id): (GrantBasis.OWNER, None),
        f"user:{user_id}:runs": (GrantBasis.OWNER, None),
        f"user:{user_id}:codex": (GrantBasis.OWNER, None),
        f"user:{user_id}:notifications": (GrantBasis.OWNER, None),
        f"org:{org_id}:runs": (GrantBasis.ORG_MEMBER, org_id),
        f"org:{org_id}:workers": (GrantBasis.ORG_MEMBER, org_id),
        f"org:{org_id}:ops": (GrantBasis.ORG_ADMIN, org_id),
        f"device:{DEVICE}:inbox": (GrantBasis.DEVICE, None),
        f"app:{org_id}:builds": (GrantBasis.ORG_MEMBER, org_id),
    }


async def test_every_class_of_ones_own(control: ControlRig) -> None:
    """The token grants exactly what was asked, each topic by its right, and its claims are complete."""
    person = await control.sign_in()
    expected = _own_topics(person, control)
    answer = await control.mint(person.access_token, *expected, device_id=DEVICE)
    assert answer.status_code == 200, answer.text
    claims = await _claims(control, answer.json()["token"])
    assert {grant.topic: (grant.basis, grant.org_id) for grant in claims.grants} == expected
    assert [grant.topic for grant in claims.grants] == sorted(expected)
    assert claims.session_id == person.session_id
    assert claims.device_id == DEVICE
    assert claims.user_id == claims.principal_id == person.user_id
    assert claims.org_ids == (person.org_id,)
    assert claims.principal_kind is PrincipalKind.PERSON
    assert claims.surface is Surface.WEB
    assert claims.jti == answer.json()["jti"]
    assert claims.expires_at_s - claims.issued_at_s == 300
    assert abs(claims.issued_at_s - time.time()) < 5
    assert answer.json()["expires_at"] == str(claims.expires_at_s * 1000)
    granted = {(grant["topic"], grant["basis"], grant["org_id"]) for grant in answer.json()["grants"]}
    assert granted == {
        (topic, f"GRANT_BASIS_{basis.value.upper()}", org_id or "")
        for topic, (basis, org_id) in expected.items()
    }
    # One question to the runtime, about its topics only.
    assert [set(topics) for topics in control.runtime.asked] == [
        {topic for topic in expected if topic.startswith(("run:", "worker:"))}
    ]


async def test_one_foreign_topic_among_five(control: ControlRig) -> None:
    """All or nothing: the foreign topic is named, no token is made, and the log says who asked."""
    person, other = await control.sign_in("ann"), await control.sign_in("bob")
    own = list(_own_topics(person, control))[:4]
    for foreign in (
        control.runtime.add_run(other.user_id),
        control.runtime.add_run(other.user_id, other.org_id),
        control.runtime.add_worker(other.user_id, person.org_id),
        f"user:{other.user_id}:runs",
        f"org:{other.org_id}:runs",
        f"org:{other.org_id}:ops",
        f"app:{other.org_id}:builds",
        f"device:{OTHER_DEVICE}:inbox",
    ):
        answer = await control.mint(person.access_token, *own[:2], foreign, *own[2:])
        assert refusal(answer) == (403, "forbidden"), foreign
        assert answer.json()["details"] == {"topic": foreign}
        assert "token" not in answer.json()
        rows = await control.rows(
            "SELECT reason, user_id, jti FROM control.audit_log WHERE request_id = $1",
            answer.headers["X-Request-Id"],
        )
        assert rows == [{"reason": "forbidden:topic_forbidden", "user_id": person.user_id, "jti": None}]


async def test_foreign_and_unknown_look_the_same(control: ControlRig) -> None:
    """Whether a run, user or org exists cannot be told from the answer."""
    person, other = await control.sign_in("ann"), await control.sign_in("bob")
    ids = SystemIds()
    pairs = [
        (control.runtime.add_run(other.user_id), f"run:{ids.new('run')}:events"),
        (control.runtime.add_worker(other.user_id), f"worker:{ids.new('wrk')}:events"),
        (f"user:{other.user_id}:runs", f"user:{ids.new('usr')}:runs"),
        (f"org:{other.org_id}:runs", f"org:{ids.new('org')}:runs"),
        (f"app:{other.org_id}:x", f"app:{ids.new('org')}:x"),
    ]
    for foreign, unknown in pairs:
        bodies = []
        for topic in (foreign, unknown):
            answer = await control.mint(person.access_token, topic)
            body = answer.json()
            assert body["details"].pop("topic") == topic
            body.pop("request_id")
            bodies.append((answer.status_code, body))
        assert bodies[0] == bodies[1]


async def test_counts_and_repeats_of_topics(control: ControlRig) -> None:
    """0, 257 and 10,000 topics, a wildcard and a repeat are 400 with the field; 256 are granted."""
    person = await control.sign_in()
    apps = [f"app:{person.org_id}:a{number}" for number in range(257)]
    assert (await control.mint(person.access_token, *apps[:256])).status_code == 200
    for topics in ([], apps, [f"app:{person.org_id}:b{number}" for number in range(10_000)]):
        answer = await control.mint(person.access_token, *topics)
        assert refusal(answer) == (400, "invalid_argument")
        assert answer.json()["details"] == {"field": "topics", "problem": "1..256"}
    repeated = await control.mint(person.access_token, *apps[:3], apps[0])
    assert refusal(repeated) == (400, "invalid_argument")
    assert repeated.json()["details"]["field"] == "topics[3]"
    for wildcard in ("run:*:events", "*", f"org:{person.org_id}:*", f"app:{person.org_id}:>"):
        answer = await control.mint(person.access_token, apps[0], wildcard)
        assert refusal(answer) == (400, "topic_invalid"), wildcard
        assert answer.json()["details"]["field"] == "topics[1]"
        assert wildcard not in answer.text


@pytest.mark.parametrize(
    ("asked", "lifetime_s"), [(0, 300), (60, 60), (900, 900), (59, None), (901, None), (4294967295, None)]
)
async def test_lifetime_at_its_bounds(control: ControlRig, asked: int, lifetime_s: int | None) -> None:
    """60..900 s, 0 for the default of 300; one beyond either bound is refused."""
    person = await control.sign_in()
    answer = await control.mint(person.access_token, f"user:{person.user_id}:runs", ttl_s=asked)
    if lifetime_s is None:
        assert refusal(answer) == (400, "invalid_argument")
        assert answer.json()["details"]["field"] == "ttl_s"
        return
    claims = await _claims(control, answer.json()["token"])
    assert claims.expires_at_s - claims.issued_at_s == lifetime_s


async def test_never_longer_than_the_session(control: ControlRig) -> None:
    """A token ends with its session at the latest; with less than 60 s left one signs in again."""
    person = await control.sign_in()
    lifetime_s = 30 * 24 * 3600
    control.clock.offset_s = lifetime_s - 120
    body = {"refresh_token": person.refresh_token, "device_id": DEVICE}
    token = (await control.post("/api/auth/refresh", body)).json()["access_token"]
    answer = await control.mint(token, f"user:{person.user_id}:runs")
    assert int(answer.json()["expires_at"]) <= int(person.session["expires_at"])
    control.clock.offset_s = lifetime_s - 50
    answer = await control.mint(token, f"user:{person.user_id}:runs")
    assert refusal(answer) == (401, "reauth_required")


async def test_rights_are_those_of_this_moment(control: ControlRig) -> None:
    """Left the org, given the run away, session ended: the very next mint is refused."""
    person = await control.sign_in()
    org_topic, run_topic = f"org:{person.org_id}:runs", control.runtime.add_run(person.user_id)
    assert (await control.mint(person.access_token, org_topic, run_topic)).status_code == 200
    control.runtime.owners[run_topic] = (SystemIds().new("usr"), "")
    assert refusal(await control.mint(person.access_token, run_topic)) == (403, "forbidden")
    await control.rows("UPDATE control.memberships SET role = 'member' WHERE user_id = $1", person.user_id)
    assert (await control.mint(person.access_token, org_topic)).status_code == 200
    ops = await control.mint(person.access_token, f"org:{person.org_id}:ops")
    assert refusal(ops) == (403, "forbidden")
    await control.rows("DELETE FROM control.memberships WHERE user_id = $1", person.user_id)
    assert refusal(await control.mint(person.access_token, org_topic)) == (403, "forbidden")
    await control.post("/api/auth/logout", {}, person.access_token)
    own = await control.mint(person.access_token, f"user:{person.user_id}:runs")
    assert refusal(own) == (401, "reauth_required")


async def test_context_of_a_person_is_its_session(control: ControlRig) -> None:
    """Another device, another surface, a subject: a person cannot mint beyond its own session."""
    person = await control.sign_in()
    topic = f"user:{person.user_id}:runs"
    subject = {"user_id": "u1", "device_id": OTHER_DEVICE}
    for fields in ({"device_id": OTHER_DEVICE}, {"surface": "SURFACE_SERVICE"}, {"subject": subject}):
        answer = await control.mint(person.access_token, topic, **fields)
        assert refusal(answer) == (403, "forbidden"), fields
    assert refusal(await control.post("/api/sync/token", {"topics": [topic]})) == (401, "unauthenticated")


async def test_runtime_away_or_slow(control: ControlRig) -> None:
    """Without the runtime's answer nothing about runs is granted; the rest is, and all within 3 s."""
    person = await control.sign_in()
    run_topic, user_topic = control.runtime.add_run(person.user_id), f"user:{person.user_id}:runs"
    control.runtime.answers_after_s = 60
    with trio.fail_after(TIMEOUT_S + 1):
        answer = await control.mint(person.access_token, run_topic)
    assert refusal(answer) == (503, "unavailable")
    assert answer.json()["retry_after_ms"] > 0
    assert answer.json()["details"] == {}
    assert (await control.mint(person.access_token, user_topic)).status_code == 200


async def test_strict_bodies(control: ControlRig) -> None:
    """Unknown, doubled, null and doubly spelled fields are refused with their path."""
    person = await control.sign_in()
    for body in (
        '{"topics": [], "scope": "all"}',
        '{"topics": [], "topics": []}',
        '{"topics": null}',
        '{"ttl_s": 60, "ttlS": 60}',
        '{"topics": "x"}',
        "[]",
        "{",
    ):
        answer = await control.post("/api/sync/token", body, person.access_token)
        assert refusal(answer) == (400, "malformed_message"), body
