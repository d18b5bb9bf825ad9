"""The key ring: its file, its rotation, its publication."""

import json
import os
import stat
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from control.__main__ import main
from control.adapters.signing_keys import KEYS_MAX, KeyRing, SigningKey, add_signing_key, load_key_ring
from control.core.access_tokens import AccessClaims, to_claims
from control.core.refusals import Refused
from khala_service.config import ConfigRefused
from tests.unit.control.samples import ANN, DEVICE, make_id

NOW_S = 1_800_000_000
CLAIMS = to_claims(
    AccessClaims(
        session_id=make_id("ses", 1),
        user_id=ANN,
        device_id=DEVICE,
        jti=make_id("jti", 1),
        issued_at_s=NOW_S,
        expires_at_s=NOW_S + 900,
    )
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A place for a ring."""
    return tmp_path / "keys.json"


def _write(file: Path, ring: object, mode: int = 0o600) -> Path:
    file.write_text(ring if isinstance(ring, str) else json.dumps(ring))
    file.chmod(mode)
    return file


def _new_keys(file: Path, count: int) -> list[dict[str, Any]]:
    keys = []
    for _ in range(count):
        load_key_ring(file, may_create=True)
        keys += json.loads(file.read_text())
        file.unlink()
    return keys


def _is_good(ring: KeyRing, token: str) -> bool:
    try:
        ring.verify_untrusted(token, now_s=NOW_S)
    except Refused:
        return False
    return True


def test_a_ring_is_made_once(file: Path) -> None:
    """In dev mode the first start makes it, 0600; later starts read the same; nothing else is left."""
    first = load_key_ring(file, may_create=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == [file.name]
    again = load_key_ring(file, may_create=True)
    assert first.public_jwks() == again.public_jwks()
    assert _is_good(again, first.sign(CLAIMS))
    assert load_key_ring(file, may_create=False).public_jwks() == first.public_jwks()


def test_two_first_starts_agree(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second to the name reads the ring of the first, whole."""
    link = os.link

    def overtaken(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        load_key_ring(target, may_create=True)
        link(source, target)

    # The other start happens between our looking and our linking, under another process id.
    monkeypatch.setattr(os, "link", overtaken)
    process_ids = iter([1, 2])
    monkeypatch.setattr(os, "getpid", lambda: next(process_ids))
    ring = load_key_ring(file, may_create=True)
    assert ring.public_jwks() == load_key_ring(file, may_create=False).public_jwks()
    assert os.listdir(file.parent) == [file.name]


def test_rotation_with_overlap(file: Path) -> None:
    """The first key signs, every key verifies; a key that left the ring verifies no more."""
    old, new = _new_keys(file, 2)
    before = load_key_ring(_write(file, [old]), may_create=False)
    during = load_key_ring(_write(file, [new, old]), may_create=False)
    after = load_key_ring(_write(file, [new]), may_create=False)
    token = before.sign(CLAIMS)
    assert jwt.get_unverified_header(during.sign(CLAIMS))["kid"] == new["kid"]
    assert [_is_good(ring, token) for ring in (before, during, after)] == [True, True, False]
    assert _is_good(after, during.sign(CLAIMS))
    assert [key["kid"] for key in during.public_jwks()["keys"]] == [new["kid"], old["kid"]]


def test_a_key_is_added_in_front(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By command: the ring is made, then grows; the old key verifies until it is no longer kept."""
    assert main(["add-signing-key", str(file)]) == 0
    first = load_key_ring(file, may_create=False)
    token = first.sign(CLAIMS)
    kids = capsys.readouterr().out.split()
    for keep, is_good in (("1", True), ("1", False)):
        assert main(["add-signing-key", str(file), "--keep", keep]) == 0
        kids += capsys.readouterr().out.split()
        ring = load_key_ring(file, may_create=False)
        assert _is_good(ring, token) is is_good
        assert [key["kid"] for key in ring.public_jwks()["keys"]] == kids[-1:-3:-1]
        assert jwt.get_unverified_header(ring.sign(CLAIMS))["kid"] == kids[-1]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == [file.name]


def test_a_ring_that_is_none_is_left_alone(file: Path) -> None:
    """Refused with 78, and not replaced by a good one."""
    for content, mode in (("[]", 0o600), ("{", 0o600), (json.dumps(_new_keys(file, 1)), 0o644)):
        _write(file, content, mode)
        assert main(["add-signing-key", str(file)]) == 78
        assert file.read_text() == content
    _write(file, _new_keys(file.with_name("other"), KEYS_MAX))
    with pytest.raises(ConfigRefused, match="keep fewer"):
        add_signing_key(file, keep=KEYS_MAX)


def test_nothing_private_is_published(file: Path) -> None:
    """The published set verifies what the ring signs, and has none of its secrets."""
    ring = load_key_ring(file, may_create=True)
    (key,) = ring.public_jwks()["keys"]
    assert set(key) == {"kty", "crv", "use", "alg", "kid", "x"}
    secret = json.loads(file.read_text())[0]["d"]
    assert secret not in json.dumps(ring.public_jwks())
    assert secret not in repr(ring)
    claims = jwt.decode(
        ring.sign(CLAIMS),
        jwt.PyJWK(key),
        algorithms=["EdDSA"],
        options={"verify_aud": False, "verify_iat": False, "verify_nbf": False},
    )
    assert claims == CLAIMS


def test_a_missing_file_is_refused(file: Path) -> None:
    """Outside dev mode nothing is made."""
    with pytest.raises(ConfigRefused, match="signing_keys_file"):
        load_key_ring(file, may_create=False)
    assert not file.exists()
    with pytest.raises(ConfigRefused, match="cannot be created"):
        load_key_ring(file.parent / "nowhere" / "keys.json", may_create=True)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_readable_by_others_is_refused(file: Path, mode: int) -> None:
    """A private key that others could have read is no key."""
    load_key_ring(file, may_create=True)
    file.chmod(mode)
    with pytest.raises(ConfigRefused, match="chmod 600"):
        load_key_ring(file, may_create=False)


def test_malformed_rings(file: Path) -> None:
    """Each fault is named by its place; no secret is quoted."""
    (good,) = _new_keys(file, 1)
    (other,) = _new_keys(file, 1)
    cases: list[tuple[object, str]] = [
        ("", "not JSON"),
        ("[" * 5000, "not JSON"),
        ({}, "expected a list"),
        ([], "expected a list"),
        ([good] * (KEYS_MAX + 1), "expected a list"),
        ([good, good], "one kid"),
        (["x"], r"\[0\]: expected kty"),
        ([{**good, "kty": "RSA"}], r"\[0\]: expected kty"),
        ([{**good, "crv": "X25519"}], r"\[0\]: expected kty"),
        ([good, {**other, "kid": ""}], r"\[1\].kid"),
        ([{**good, "kid": 1}], r"\[0\].kid"),
        ([{**good, "d": good["d"][:-2]}], r"\[0\].d"),
        ([{**good, "d": "é"}], r"\[0\].d"),
        ([{k: v for k, v in good.items() if k != "d"}], r"\[0\].d"),
        ([{**good, "x": other["x"]}], r"\[0\].x"),
        ("x" * 70_000, "larger than"),
    ]
    for ring, problem in cases:
        with pytest.raises(ConfigRefused, match=problem) as refused:
            load_key_ring(_write(file, ring), may_create=True)
        assert good["d"] not in str(refused.value)


_RING: Final = KeyRing((SigningKey("k", Ed25519PrivateKey.generate()),))


@given(token=st.one_of(st.text(max_size=200), st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True)))
def test_garbage_is_refused_and_nothing_else(token: str) -> None:
    """Only `Refused` leaves the verifier, whatever it is given."""
    with pytest.raises(Refused) as refused:
        _RING.verify_untrusted(token, now_s=NOW_S)
    assert refused.value.code.name == "unauthenticated"
