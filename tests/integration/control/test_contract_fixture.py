"""The live service against proto/fixtures/control-auth-session-v1.json, field by field."""

import json
from functools import partial
from typing import Final

import httpx
import jwt
import trio

from control.adapters.http.requests import BODY_MAX_BYTES
from tests.integration.control.rig import JSON, ControlRig, Document, refusal
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
    answer = await control.post("/api/auth/dev/sign-in", _BODIES["sign in"])
    signed_in = answer.json()
    _matches(signed_in, "signed in")
    session = signed_in["session"]
    assert session["login"] == _BODIES["sign in"]["login"]
    assert session["surface"] == _BODIES["sign in"]["surface"]
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


async def test_both_forms_of_a_body_are_one(control: ControlRig) -> None:
    """Binary requests are answered in binary, with the same content as JSON."""
    binary = bytes.fromhex(
        next(body["binary_hex"] for body in _FIXTURE["bodies"] if body["name"] == "sign in")
    )
    headers = {"Content-Type": "application/x-protobuf"}
    answer = await control.http.post("/api/auth/dev/sign-in", content=binary, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-protobuf"
    as_json = {**headers, "Accept": "application/json"}
    again = await control.http.post("/api/auth/dev/sign-in", content=binary, headers=as_json)
    _matches(again.json(), "signed in")
    text = await control.http.post(
        "/api/auth/dev/sign-in", content=binary, headers={"Content-Type": "text/plain"}
    )
    assert refusal(text) == (415, "unsupported_media_type")


async def test_a_body_too_large(control: ControlRig) -> None:
    """One byte above the limit of a body is refused before it is parsed; a full one is read."""
    url = str(control.http.base_url.join("/api/auth/refresh"))
    full = b"{" + b" " * (BODY_MAX_BYTES - 2) + b"}"
    # The answer may come before the whole body went out, which the blocking client takes more calmly.
    for content, expected in ((full, (401, "reauth_required")), (full + b" ", (413, "payload_too_large"))):
        post = partial(httpx.post, url, content=content, headers=JSON, trust_env=False)
        assert refusal(await trio.to_thread.run_sync(post)) == expected
