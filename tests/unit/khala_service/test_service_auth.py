"""Credentials of services."""

import pytest

from khala_service.http_problems import HttpProblem
from khala_service.secret import Secret
from khala_service.service_auth import ServiceCredentials, bearer_credential, new_service_credential

A, B, C = (Secret("khs_" + letter * 43) for letter in "abc")


def test_new_credentials() -> None:
    """khs_ and 43 characters of base64url, from the given randomness."""
    made = new_service_credential(lambda count: b"\xff" * count)
    assert made.reveal() == "khs_" + "_" * 42 + "8"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
    ],
)
def test_bearer(header: str | None, expected: str | None) -> None:
    """The scheme is compared without case, as HTTP says."""
    assert bearer_credential(header) == expected


def test_callers() -> None:
    """Each caller has its own credentials; several at once while they are rotated."""
    accepted = ServiceCredentials({"node": [A, B], "control": C})
    assert accepted.caller_of(f"Bearer {A.reveal()}") == "node"
    assert accepted.caller_of(f"Bearer {B.reveal()}") == "node"
    assert accepted.require(f"Bearer {C.reveal()}") == "control"


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer khs_x", "Bearer é", "Basic " + A.reveal()])
def test_strangers(header: str | None) -> None:
    """SEC-17: missing and wrong credentials look the same."""
    for accepted in (ServiceCredentials({"node": A}), ServiceCredentials({})):
        with pytest.raises(HttpProblem) as caught:
            accepted.require(header)
        assert caught.value.status == 401
        assert caught.value.details == {}


def test_other_secrets_are_no_service_credentials() -> None:
    """A user's token put into the wrong file is found at start; its value is not said."""
    with pytest.raises(ValueError, match="caller node") as caught:
        ServiceCredentials({"node": Secret("khk_canary")})
    assert "canary" not in str(caught.value)
