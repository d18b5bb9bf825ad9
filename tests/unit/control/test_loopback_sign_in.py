"""core/loopback_sign_in.py: where a command's sign-in ends, and who may have its session."""

from __future__ import annotations

import base64
import hashlib

import attrs
import pytest

from control.core.loopback_sign_in import LoopbackReturn, SignInCode, check_loopback, format_code, judge_code
from control.core.oidc import AssertedIdentity
from control.core.refusals import Refused

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
CODE = SignInCode(
    challenge=CHALLENGE,
    identity=AssertedIdentity("issuer", "subject", "ann"),
    device_id="dev_01234567",
    surface="desktop",
    expires_at_ms=60_000,
)


def test_a_sign_in_of_a_browser_names_no_port() -> None:
    """Nothing given is no loopback; one of the two without the other is refused."""
    assert check_loopback("", "") is None
    for port, challenge in (("", CHALLENGE), ("8080", "")):
        with pytest.raises(Refused):
            check_loopback(port, challenge)


@pytest.mark.parametrize(("port", "is_good"), [("1", True), ("65535", True), ("0", False), ("65536", False)])
def test_the_port_at_its_limits(port: str, is_good: bool) -> None:
    """1 and 65535 are ports, what lies beyond is none."""
    if is_good:
        assert check_loopback(port, CHALLENGE) == LoopbackReturn(int(port), CHALLENGE)
    else:
        with pytest.raises(Refused):
            check_loopback(port, CHALLENGE)


@pytest.mark.parametrize(
    "port", ["+1", " 1", "1.0", "\N{FULLWIDTH DIGIT ONE}", "1e3", "000001", "-1", "80/../"]
)
def test_what_is_no_port(port: str) -> None:
    """Only ASCII digits: int() takes more."""
    with pytest.raises(Refused):
        check_loopback(port, CHALLENGE)


def test_the_way_back_is_this_machine() -> None:
    """The code is quoted; the host is a constant; the challenge does not show."""
    back = LoopbackReturn(8080, CHALLENGE)
    assert back.url("a&b=c") == "http://127.0.0.1:8080/callback?code=a%26b%3Dc"
    assert CHALLENGE not in repr(back)
    assert CHALLENGE not in repr(CODE)


def test_a_code_is_for_its_verifier_before_its_end() -> None:
    """At 59.999 s it is good, at 60 s it is not; its own verifier only, 43 to 128 characters of it."""
    assert judge_code(CODE, verifier=VERIFIER, now_ms=59_999) is CODE
    for verifier, now_ms, found, cause in (
        (VERIFIER, 60_000, CODE, "code_expired"),
        (VERIFIER, 0, None, "code_unknown"),
        ("w" * 43, 0, CODE, "code_verifier"),
        ("v" * 42, 0, CODE, "code_verifier"),
        (VERIFIER + "\n", 0, CODE, "code_verifier"),
        (CHALLENGE, 0, CODE, "code_verifier"),
    ):
        with pytest.raises(Refused) as refused:
            judge_code(found, verifier=verifier, now_ms=now_ms)
        assert refused.value.cause == cause
    longest = "v" * 128
    digest = hashlib.sha256(longest.encode()).digest()
    long_code = attrs.evolve(CODE, challenge=base64.urlsafe_b64encode(digest).rstrip(b"=").decode())
    assert judge_code(long_code, verifier=longest, now_ms=0) is long_code
    with pytest.raises(Refused):
        judge_code(long_code, verifier=longest + "v", now_ms=0)


def test_a_code_is_url_safe_and_as_long_as_its_bytes() -> None:
    """32 bytes are 43 characters."""
    assert format_code(b"\xff" * 32) == "_" * 42 + "8"
