"""What a sign-in sends, and what it believes."""

import base64
import hashlib
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.oidc import (
    FLOW_SECRET_BYTES,
    AssertedIdentity,
    FlowSecrets,
    IdentityRefused,
    authorization_query,
    check_return_to,
    judge_id_token,
)
from control.core.refusals import Refused

NOW_S = 1_000_000.0
ISSUER, CLIENT, NONCE = "https://id.example", "khala", "nonce"
CLAIMS: dict[str, object] = {
    "iss": ISSUER, "aud": CLIENT, "sub": "u-1", "nonce": NONCE, "iat": NOW_S, "exp": NOW_S + 300, "email": "ann@example.org",
}  # fmt: skip


def _judge(**changes: object) -> AssertedIdentity:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return judge_id_token(claims, issuer=ISSUER, client_id=CLIENT, nonce=NONCE, now_s=NOW_S)


def test_an_id_token_says_who() -> None:
    """Issuer and subject are the identity; a readable name is for people."""
    assert _judge() == AssertedIdentity(ISSUER, "u-1", "ann@example.org")
    assert _judge(preferred_username="ann").login == "ann"
    assert _judge(email=None).login == "u-1"
    assert _judge(email="x" * 100).login == "x" * 64
    assert _judge(email="a\nb").login == "u-1"
    assert _judge(aud=[CLIENT]).subject == "u-1"
    assert _judge(aud=[CLIENT, "other"], azp=CLIENT).subject == "u-1"


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"iss": "https://id.example/"}, "id_token_issuer"),
        ({"aud": "other"}, "id_token_audience"),
        ({"aud": ["other"]}, "id_token_audience"),
        ({"aud": None}, "id_token_audience"),
        ({"aud": [CLIENT, "other"]}, "id_token_authorized_party"),
        ({"azp": "other"}, "id_token_authorized_party"),
        ({"nonce": "another"}, "id_token_nonce"),
        ({"nonce": None}, "id_token_nonce"),
        ({"iat": NOW_S + 31}, "id_token_time"),
        ({"exp": NOW_S - 30}, "id_token_time"),
        ({"iat": NOW_S - 301}, "id_token_old"),
        ({"iat": "now"}, "id_token_iat"),
        ({"exp": True}, "id_token_exp"),
        ({"exp": None}, "id_token_exp"),
        ({"sub": ""}, "id_token_subject"),
        ({"sub": 7}, "id_token_subject"),
        ({"sub": "x" * 256}, "id_token_subject"),
        ({"sub": "a\x00b"}, "id_token_subject"),
    ],
)
def test_what_is_not_believed(changes: dict[str, object], cause: str) -> None:
    """Each claim that OpenID Connect has a client check is checked, at its boundary."""
    with pytest.raises(IdentityRefused) as caught:
        _judge(**changes)
    assert caught.value.cause == cause


@pytest.mark.parametrize(
    "changes", [{"iat": NOW_S + 30}, {"exp": NOW_S - 29}, {"iat": NOW_S - 300}, {"sub": "x" * 255}]
)
def test_the_other_side_of_each_boundary(changes: dict[str, object]) -> None:
    """Half a minute of skew, five minutes of age and 255 bytes of subject are fine."""
    _judge(**changes)


@given(st.sets(st.binary(min_size=32, max_size=32), min_size=4, max_size=4))
def test_the_url_carries_three_of_the_secrets(parts: set[bytes]) -> None:
    """State, nonce and the verifier's hash; never the verifier, never the cookie."""
    secrets = FlowSecrets.from_random(b"".join(sorted(parts)))
    query = authorization_query(
        secrets, client_id=CLIENT, redirect_uri="http://x/cb", scope="openid", extra={"login_hint": "a&b"}
    )
    sent = {name: values[0] for name, values in parse_qs(query, strict_parsing=True).items()}
    digest = hashlib.sha256(secrets.verifier.encode()).digest()
    assert sent["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert (sent["state"], sent["nonce"], sent["login_hint"]) == (secrets.state, secrets.nonce, "a&b")
    assert secrets.verifier not in query
    assert secrets.binding not in query
    # RFC 7636 section 4.1: 43..128 characters.
    assert 43 <= len(secrets.verifier) <= 128


def test_a_flow_needs_all_its_bytes() -> None:
    """Fewer or more random bytes are a mistake of ours."""
    for count in (FLOW_SECRET_BYTES - 1, FLOW_SECRET_BYTES + 1):
        with pytest.raises(ValueError, match="random bytes"):
            FlowSecrets.from_random(bytes(count))


@pytest.mark.parametrize("path", ["/", "/runs/run_1?live=1#x", "/" + "a" * 511])
def test_one_returns_to_our_own_pages(path: str) -> None:
    """Any path of this origin, and "/" if none was named."""
    assert check_return_to(path) == path
    assert check_return_to("") == "/"


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/",
        "evil",
        "/a\\b",
        "/a\nb",
        "/\u00e9",
        "/" + "a" * 512,
    ],
)
def test_nobody_is_sent_elsewhere(path: str) -> None:
    """Whatever a browser could read as another origin is refused."""
    with pytest.raises(Refused) as caught:
        check_return_to(path)
    assert caught.value.details["field"] == "return_to"
