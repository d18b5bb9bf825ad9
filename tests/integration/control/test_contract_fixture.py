"""The live service against proto/fixtures/control-auth-session-v1.json, field by field."""

import json
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import jwt
import trio

from control.adapters.http.requests import BODY_MAX_BYTES
from khala_contracts import http_messages as m
from tests.integration.control.rig import DEVICE, JSON, OTHER_DEVICE, ControlRig, Document, bearer, refusal
from tests.postgres_cluster import ROOT

_FIXTURE: Final = json.loads((ROOT / "proto/fixtures/control-auth-session-v1.json").read_text("utf-8"))
_BODIES: Final[dict[str, Document]] = {body["name"]: body["body"] for body in _FIXTURE["bodies"]}


def _shape(value: object) -> object:
    """Return a document with types in place of values; a list is the shape that its items share."""
    if isinstance(value, dict):
        return {name: _shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    # int64 travels as text: a number of digits is not just any text.
    is_number = isinstance(value, str) and value.isdecimal()
    return "digits" if is_number else type(value).__name__


def _matches(live: Document, name: str) -> None:
    assert _shape(live) == _shape(_BODIES[name]), name


async def test_every_body_has_the_fixtures_fields(control: ControlRig) -> None:
    """Requests of the fixture are accepted as they are, ids aside; answers have its fields and types."""
    signed_in = (await control.walk_sign_in()).json()
    _matches(signed_in, "signed in")
    session = signed_in["session"]
    assert refusal(await control.post("/api/auth/exchange", _BODIES["exchange a code"])) == (
        401,
        "unauthenticated",
    )
    org_id, device_id = session["orgs"][0]["org_id"], session["device_id"]

    refresh = {**_BODIES["refresh"], "refresh_token": signed_in["refresh_token"], "device_id": device_id}
    refreshed = (await control.post("/api/auth/refresh", refresh)).json()
    _matches(refreshed, "signed in")
    token = refreshed["access_token"]
    _matches((await control.get("/api/auth/sessions", token)).json(), "sessions")

    run_topic = control.runtime.add_run(session["user_id"])
    ask = {**_BODIES["ask for a sync token"], "topics": [run_topic, f"org:{org_id}:runs"]}
    minted = (await control.post("/api/sync/token", ask, token)).json()
    minted["grants"].sort(key=lambda grant: grant["basis"], reverse=True)
    _matches(minted, "sync token")
    claims = jwt.decode(minted["token"], options={"verify_signature": False})
    expected = _FIXTURE["sync_token_claims"]
    assert _shape({**claims, "grants": []}) == _shape({**expected, "grants": []})
    by_basis = {grant["basis"]: set(grant) for grant in claims["grants"]}
    assert by_basis == {grant["basis"]: set(grant) for grant in expected["grants"]}

    created = await control.post("/api/keys", {**_BODIES["create a key"], "org_id": org_id}, token)
    _matches(created.json(), "key created")
    key_id, secret = created.json()["key"]["key_id"], created.json()["secret"]
    _matches((await control.get("/api/keys", token)).json(), "keys")
    resolve = {**_BODIES["who is this"], "credential": secret}
    runtime = control.config.runtime_credential.reveal()
    resolved = await control.post("/internal/v1/principals/resolve", resolve, runtime)
    principal, known = resolved.json(), dict(_BODIES["it is"])
    assert _shape(principal) == _shape(known)
    _matches((await control.post(f"/api/keys/{key_id}/revoke", {}, token)).json(), "key revoked")

    mint_key = {"name": "backend", "org_id": org_id, "rights": ["mint"], "topics": [], "ttl_s": 0}
    backend = (await control.post("/api/keys", mint_key, token)).json()["secret"]
    own = {**_BODIES["ask for a user of one's own"], "topics": [f"app:{org_id}:build-log"]}
    _matches({**(await control.post("/api/sync/token", own, backend)).json()}, "sync token")

    now_ms = int(control.clock.now() * 1000)
    (redemption,) = _BODIES["redeem"]["redemptions"][:1]
    redemption = {
        **redemption,
        "jti": minted["jti"],
        "session_id": session["session_id"],
        "principal_id": session["user_id"],
        "user_id": session["user_id"],
        "device_id": device_id,
        "token_expires_at": str(now_ms + 1000),
        "token_issued_at": str(now_ms),
    }
    node = control.config.node_credential.reveal()
    redeemed = await control.post("/internal/v1/sync-tokens/redeem", {"redemptions": [redemption]}, node)
    assert redeemed.json() == {"results": _BODIES["redeemed"]["results"][:1]}

    logged_out = await control.post("/api/auth/logout", _BODIES["log out"], token)
    assert logged_out.json() == _BODIES["logged out"]
    compat = (await control.http.get("/api/compat")).json()
    assert set(compat) == set(_BODIES["compatibility"])


async def test_orgs_and_what_their_members_may(control: ControlRig) -> None:
    """Making an org, its members, and what one of them may do, in the fixture's bodies."""
    owner, other = await control.sign_in("olga"), await control.sign_in("max", OTHER_DEVICE)
    token = owner.access_token
    made = (await control.post("/api/orgs", _BODIES["make an org"], token)).json()
    _matches({"orgs": [made]}, "orgs")
    _matches((await control.get("/api/orgs", token)).json(), "orgs")
    put = {**_BODIES["put a member"], "user_id": other.user_id}
    path = f"/api/orgs/{made['org_id']}/members"
    _matches({"members": [(await control.post(path, put, token)).json()]}, "members")
    _matches((await control.get(path, token)).json(), "members")
    may = {**_BODIES["may it"], "org_id": made["org_id"]}
    answer = await control.post("/api/policy/evaluate", may, other.access_token)
    assert answer.json() == _BODIES["it may"]
    gone = await control.http.delete(f"{path}/{other.user_id}", headers=bearer(token))
    assert gone.json() == _BODIES["member removed"]


async def test_what_ends_and_who_hears_of_it(control: ControlRig) -> None:
    """Sessions by device, users of one's own, and the log of all three kinds that nodes read."""
    person, other = await control.sign_in("ann"), await control.sign_in("bob", OTHER_DEVICE)
    ended = await control.post(
        "/api/auth/sessions/revoke",
        {**_BODIES["end a device's sessions"], "device_id": DEVICE},
        person.access_token,
    )
    _matches(ended.json(), "sessions ended")
    key_id, secret = await control.create_key(other, "mint")
    subject = _BODIES["end a user of one's own"]
    minted = await control.mint(secret, f"app:{other.org_id}:x", subject=subject)
    assert minted.status_code == 200, minted.text
    _matches((await control.post("/api/auth/revoke-subject", subject, secret)).json(), "sessions ended")
    await control.post(f"/api/keys/{key_id}/revoke", {}, other.access_token)
    org = (await control.post("/api/orgs", {"name": "acme"}, other.access_token)).json()["org_id"]
    member = {"user_id": person.user_id, "role": "member"}
    await control.post(f"/api/orgs/{org}/members", member, other.access_token)
    await control.http.delete(f"/api/orgs/{org}/members/{person.user_id}", headers=bearer(other.access_token))
    node = control.config.node_credential.reveal()
    log = (await control.get("/internal/v1/revocations?after=0", node)).json()
    known = _BODIES["what was revoked"]
    assert _shape(log) == _shape(known)
    by_kind = {row["kind"]: _shape(row) for row in known["revocations"]}
    assert {row["kind"]: _shape(row) for row in log["revocations"]} == by_kind


async def test_a_rotated_key(control: ControlRig) -> None:
    """The fixture's request, and its answer."""
    person = await control.sign_in()
    key_id, secret = await control.create_key(person, "read", topics=["run:*:events"], ttl_s=1_000)
    await control.mint(secret, f"org:{person.org_id}:runs", device_id=DEVICE)
    rotated = await control.post(f"/api/keys/{key_id}/rotate", _BODIES["rotate a key"], person.access_token)
    _matches(rotated.json(), "key rotated")


async def test_what_nodes_note_and_operators_read(control: ControlRig) -> None:
    """The fixture's batch is taken as it is; the log is read in the fixture's form."""
    assert control.config.admin_token is not None
    batch, node = _BODIES["what a node noted"], control.config.node_credential.reveal()
    written = await control.post("/internal/v1/audit", batch, node)
    assert written.json() == _BODIES["noted"]
    log = (await control.get("/internal/v1/audit?limit=1", control.config.admin_token.reveal())).json()
    known = dict(_BODIES["the log"])
    assert {**log, "rows": []} == {**known, "rows": [], "next_after": log["rows"][0]["audit_id"]}
    assert _shape(log["rows"]) == _shape(known["rows"])
    assert log["rows"][0]["detail"]["topic"] == batch["events"][0]["topic"]


def test_every_body_is_held_against_the_service() -> None:
    """A body that no test of this file names is a promise that nobody checks; the first one is kept for old decoders."""
    source = Path(__file__).read_text("utf-8")
    assert {name for name in _BODIES if f'"{name}"' not in source} == {" ".join(("sign", "in", "by", "name"))}


async def test_both_forms_of_a_body_are_one(control: ControlRig) -> None:
    """Binary requests are answered in binary, with the same content as JSON."""
    signed_in = (await control.walk_sign_in()).json()
    binary = m.RefreshRequest(
        refresh_token=signed_in["refresh_token"], device_id=signed_in["session"]["device_id"]
    ).SerializeToString()
    headers = {"Content-Type": "application/x-protobuf"}
    answer = await control.http.post("/api/auth/refresh", content=binary, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-protobuf"
    as_json = {**headers, "Accept": "application/json"}
    again = await control.http.post("/api/auth/refresh", content=binary, headers=as_json)
    _matches(again.json(), "signed in")
    assert again.json()["refresh_token"] == m.SessionTokens.FromString(answer.content).refresh_token
    text = await control.http.post(
        "/api/auth/refresh", content=binary, headers={"Content-Type": "text/plain"}
    )
    assert refusal(text) == (415, "unsupported_media_type")
    in_binary = await control.walk_sign_in(accept="application/x-protobuf")
    assert m.SessionTokens.FromString(in_binary.content).session.login == "ann"


async def test_a_body_too_large(control: ControlRig) -> None:
    """One byte above the limit of a body is refused before it is parsed; a full one is read."""
    url = str(control.http.base_url.join("/api/auth/refresh"))
    full = b"{" + b" " * (BODY_MAX_BYTES - 2) + b"}"
    # The answer may come before the whole body went out, which the blocking client takes more calmly.
    for content, expected in ((full, (401, "reauth_required")), (full + b" ", (413, "payload_too_large"))):
        post = partial(httpx.post, url, content=content, headers=JSON, trust_env=False)
        assert refusal(await trio.to_thread.run_sync(post)) == expected
