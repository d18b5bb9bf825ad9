"""Some forty ways to forge, mangle or misuse an access token; each gets one answer and one audit row."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from control.adapters.signing_keys import KeyRing, load_key_ring
from control.core.access_tokens import AccessClaims, to_claims
from control.core.refusals import Refused
from khala_service.identifiers import SystemIds
from tests.integration.control.rig import (
    DEVICE,
    OTHER_DEVICE,
    ControlRig,
    Person,
    make_config,
    refusal,
    running_control,
)
from tests.postgres_cluster import Database

Claims = dict[str, Any]
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
NOW_S: Final = 1_800_000_000


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@attrs.frozen
class Forge:
    """Everything that an attacker with control's file in hand could try, and what it would start from."""

    claims: Claims
    private: Ed25519PrivateKey
    kid: str

    def sign(self, claims: Claims | None = None, **header: object) -> str:
        """Sign with control's own key."""
        return jwt.encode(
            self.claims if claims is None else claims,
            self.private,
            algorithm="EdDSA",
            headers={"kid": self.kid, **header},
        )

    def without(self, name: str) -> str:
        """Sign without one claim."""
        return self.sign({key: value for key, value in self.claims.items() if key != name})

    def with_claim(self, name: str, value: object) -> str:
        """Sign with one claim changed, also to what a library would not write."""
        return self.raw(self.header, payload=json.dumps({**self.claims, name: value}).encode())

    def raw(self, header: object, *, payload: bytes | None = None, good_signature: bool = True) -> str:
        """Put a token together by hand."""
        head = _encode(header if isinstance(header, bytes) else json.dumps(header).encode())
        body = _encode(payload if payload is not None else json.dumps(self.claims).encode())
        signature = self.private.sign(f"{head}.{body}".encode()) if good_signature else b"\x00" * 64
        return f"{head}.{body}.{_encode(signature)}"

    def hmac_with(self, key: bytes) -> str:
        """Sign by HS256 with bytes that everybody knows."""
        head = _encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": self.kid}).encode())
        body = _encode(json.dumps(self.claims).encode())
        digest = hmac.new(key, f"{head}.{body}".encode(), hashlib.sha256).digest()
        return f"{head}.{body}.{_encode(digest)}"

    @property
    def header(self) -> Claims:
        """The header that control writes."""
        return {"alg": "EdDSA", "typ": "JWT", "kid": self.kid}


def _foreign(forge: Forge, algorithm: str, key: PrivateKey) -> str:
    return jwt.encode(forge.claims, key, algorithm=algorithm, headers={"kid": forge.kid})


def _tampered(forge: Forge) -> str:
    head, _, signature = forge.sign().split(".")
    claims = {**forge.claims, "sub": SystemIds().new("usr")}
    return f"{head}.{_encode(json.dumps(claims).encode())}.{signature}"


FORGERIES: Final[dict[str, Callable[[Forge], str]]] = {
    "alg none": lambda f: jwt.encode(f.claims, "", algorithm="none", headers={"kid": f.kid}),
    "alg none, no signature part": lambda f: f.raw({**f.header, "alg": "none"}).rpartition(".")[0] + ".",
    "alg None": lambda f: f.raw({**f.header, "alg": None}),
    "alg missing": lambda f: f.raw({"kid": f.kid, "typ": "JWT"}),
    "alg in lower case": lambda f: f.raw({**f.header, "alg": "eddsa"}),
    "HS256 with the public key, raw": lambda f: f.hmac_with(f.private.public_key().public_bytes_raw()),
    "HS256 with the public key, PEM": lambda f: f.hmac_with(
        f.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ),
    "HS256 with the kid": lambda f: f.hmac_with(f.kid.encode()),
    "RS256": lambda f: _foreign(f, "RS256", rsa.generate_private_key(65537, 2048)),
    "ES256": lambda f: _foreign(f, "ES256", ec.generate_private_key(ec.SECP256R1())),
    "another Ed25519 key": lambda f: _foreign(f, "EdDSA", Ed25519PrivateKey.generate()),
    "unknown kid": lambda f: f.sign(kid="other"),
    "kid missing": lambda f: f.raw({"alg": "EdDSA", "typ": "JWT"}),
    "kid a number": lambda f: f.raw({**f.header, "kid": 1}),
    "kid a list": lambda f: f.raw({**f.header, "kid": [f.kid]}),
    "own key in the header": lambda f: f.raw({**f.header, "jwk": {"kty": "OKP"}}),
    "key by URL": lambda f: f.raw({**f.header, "jku": "http://127.0.0.1/keys"}),
    "critical extension": lambda f: f.raw({**f.header, "crit": ["x"], "x": 1}),
    "unencoded payload": lambda f: f.raw({**f.header, "b64": False}),
    "signature of zeros": lambda f: f.raw(f.header, good_signature=False),
    "payload changed": _tampered,
    "signature cut": lambda f: f.sign()[:-4],
    "signature missing": lambda f: f.sign().rpartition(".")[0],
    "truncated": lambda f: f.sign()[:40],
    "two parts more": lambda f: f.sign() + ".a.b",
    "not base64": lambda f: "!!." + f.sign().partition(".")[2],
    "header no object": lambda f: f.raw([1, 2]),
    "header of nested brackets": lambda f: f.raw(b"[" * 2_000),
    "payload no object": lambda f: f.raw(f.header, payload=b'"x"'),
    "payload of nested brackets": lambda f: f.raw(f.header, payload=b"[" * 2_000),
    "payload not JSON": lambda f: f.raw(f.header, payload=b"\xff\xfe"),
    "64 KiB": lambda f: f.with_claim("x", "x" * 48 * 1024),
    "empty": lambda _: ".",
    "wrong issuer": lambda f: f.with_claim("iss", "khala-contro1"),
    "issuer a list": lambda f: f.with_claim("iss", [f.claims["iss"]]),
    "wrong audience": lambda f: f.with_claim("aud", "khala"),
    "audience a list": lambda f: f.with_claim("aud", ["khala-api", "khala"]),
    "not yet valid": lambda f: f.with_claim("nbf", f.claims["nbf"] + 60),
    "issued in the future": lambda f: f.with_claim("iat", f.claims["iat"] + 60),
    "a day long": lambda f: f.with_claim("exp", f.claims["iat"] + 86_400),
    "expires before it begins": lambda f: f.with_claim("exp", f.claims["iat"]),
    "expiry as text": lambda f: f.with_claim("exp", str(f.claims["exp"])),
    "expiry a fraction": lambda f: f.with_claim("exp", f.claims["exp"] + 0.5),
    "expiry true": lambda f: f.with_claim("exp", True),
    "subject a number": lambda f: f.with_claim("sub", 7),
    "subject another user": lambda f: f.with_claim("sub", SystemIds().new("usr")),
    "subject a key": lambda f: f.with_claim("sub", SystemIds().new("key")),
    "another device": lambda f: f.with_claim("device_id", OTHER_DEVICE),
    "malformed device": lambda f: f.with_claim("device_id", "dev_1"),
    "malformed session": lambda f: f.with_claim("sid", "ses_1"),
    "malformed jti": lambda f: f.with_claim("jti", ""),
    **{
        f"without {name}": (lambda f, name=name: f.without(name))  # type: ignore[misc]  # binds the name
        for name in ("iss", "aud", "sub", "sid", "device_id", "jti", "iat", "nbf", "exp")
    },
}


@pytest.fixture
async def control(control_database: Database, tmp_path: Path) -> AsyncIterator[ControlRig]:
    """A service whose key ring the test can read."""
    async with running_control(make_config(control_database, tmp_path), control_database) as rig:
        yield rig


def _forge_from(control: ControlRig, person: Person) -> Forge:
    (key,) = json.loads(control.config.signing_keys_file.read_text())
    private = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(key["d"] + "="))
    claims = jwt.decode(person.access_token, options={"verify_signature": False})
    return Forge(claims, private, key["kid"])


async def test_each_forgery_gets_the_one_answer(control: ControlRig) -> None:
    """401 unauthenticated, the same body for all, no stack trace, and a row that says why."""
    person = await control.sign_in()
    forge = _forge_from(control, person)
    good = await control.get("/api/auth/session", forge.sign())
    assert good.status_code == 200, "the forge makes genuine tokens, so that each case is wrong in one thing"
    bodies = {}
    for name, make in FORGERIES.items():
        token = make(forge)
        answer = await control.post(
            "/internal/v1/principals/resolve",
            {"credential": token},
            control.config.runtime_credential.reveal(),
        )
        body = answer.json()
        request_id = body.pop("request_id")
        bodies[name] = (answer.status_code, body)
        rows = await control.rows(
            "SELECT outcome, reason FROM control.audit_log WHERE request_id = $1", request_id
        )
        assert [row["outcome"] for row in rows] == ["refused"], name
        assert rows[0]["reason"].startswith("unauthenticated:"), (name, rows)
    assert len(bodies) >= 55
    expected = bodies["alg none"]
    assert expected[0] == 401
    assert {name: body for name, body in bodies.items() if body != expected} == {}
    assert "Traceback" not in control.log.getvalue()


async def test_forgeries_at_the_front_door(control: ControlRig) -> None:
    """The same at a public route, as far as a header can carry the token."""
    forge = _forge_from(control, await control.sign_in())
    answers = set()
    for name, make in FORGERIES.items():
        if name != "64 KiB":
            answers.add(refusal(await control.get("/api/auth/session", make(forge))))
    assert answers == {(401, "unauthenticated")}


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """A ring of one key."""
    return load_key_ring(tmp_path / "ring.json", may_create=True)


def _claims() -> AccessClaims:
    ids = SystemIds()
    return AccessClaims(
        session_id=ids.new("ses"),
        user_id=ids.new("usr"),
        device_id=DEVICE,
        jti=ids.new("jti"),
        issued_at_s=NOW_S,
        expires_at_s=NOW_S + 900,
    )


def _verdict(ring: KeyRing, token: str, now_s: float) -> str:
    try:
        ring.verify_untrusted(token, now_s=now_s)
    except Refused as refused:
        return refused.code.name
    return "good"


def test_times_at_their_bounds(ring: KeyRing) -> None:
    """Valid from 30 s before iat to 30 s after exp, exclusive; expired is told apart from forged."""
    token = ring.sign(to_claims(_claims()))
    assert _verdict(ring, token, NOW_S - 31) == "unauthenticated"
    assert _verdict(ring, token, NOW_S - 30) == "good"
    assert _verdict(ring, token, NOW_S + 929.9) == "good"
    assert _verdict(ring, token, NOW_S + 930) == "token_expired"


def test_one_changed_character_anywhere(ring: KeyRing) -> None:
    """No single character of a token can be another one."""
    token = ring.sign(to_claims(_claims()))
    for place, character in enumerate(token):
        # The last character of each part carries unused bits which base64 decoders may ignore.
        if character == "." or token[place + 1 : place + 2] in ("", "."):
            continue
        changed = token[:place] + ("A" if character != "A" else "B") + token[place + 1 :]
        assert _verdict(ring, changed, NOW_S) == "unauthenticated", place


def test_a_sync_token_is_no_access_token(ring: KeyRing) -> None:
    """The audiences differ: a token for the stream opens no API."""
    claims = to_claims(_claims())
    assert _verdict(ring, ring.sign(claims), NOW_S) == "good"
    assert _verdict(ring, ring.sign({**claims, "aud": "khala"}), NOW_S) == "unauthenticated"


def test_verification_is_quick(ring: KeyRing) -> None:
    """Refusing garbage costs less than judging a genuine token: no gift to a flood."""
    token, garbage = ring.sign(to_claims(_claims())), "x" * 4_000

    def cost_s(text: str) -> float:
        started = time.perf_counter()
        for _ in range(200):
            _verdict(ring, text, NOW_S)
        return time.perf_counter() - started

    assert min(cost_s(garbage) for _ in range(3)) < min(cost_s(token) for _ in range(3))
