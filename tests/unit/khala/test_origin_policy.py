"""Which upgrade requests are served."""

import pytest

from khala.core.origin_policy import SYNC_PATH, ExactOrigins, UpgradeRequest

POLICY = ExactOrigins(frozenset({"https://app.example"}))


def _request(*, path: str = SYNC_PATH, query: str = "", origin: str | None = None) -> UpgradeRequest:
    return UpgradeRequest(path, query, origin, ("khala.v1",))


@pytest.mark.parametrize("origin", [None, "https://app.example"])
def test_served(origin: str | None) -> None:
    """No origin (not a browser) and a listed origin are let through."""
    assert POLICY.refusal(_request(origin=origin)) is None


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "https://app.example.evil.example",
        "https://app.example:8443",
        "http://app.example",
        "https://APP.example",
        "https://app.example/",
    ],
)
def test_other_origins_are_refused(origin: str) -> None:
    """SEC: origins compare exactly; nothing is a prefix, a default or a wildcard."""
    refusal = POLICY.refusal(_request(origin=origin))
    assert refusal is not None
    assert refusal[0] == 403


def test_an_empty_list_refuses_every_browser() -> None:
    """Without configuration no page may connect; other clients may."""
    policy = ExactOrigins(frozenset())
    assert policy.refusal(_request(origin="https://app.example")) is not None
    assert policy.refusal(_request()) is None


@pytest.mark.parametrize("path", ["/", "/sync/v1/ws/", "/sync/v1", "/sync/v1/WS", "/sync/v1/ws2"])
def test_another_path_is_not_found(path: str) -> None:
    """Exactly one path is served."""
    refusal = POLICY.refusal(_request(path=path, origin="https://evil.example"))
    assert refusal is not None
    assert refusal[0] == 404


def test_a_query_is_refused_and_never_echoed() -> None:
    """A token in the URL would end in logs: refused, and the answer does not repeat it."""
    refusal = POLICY.refusal(_request(query="token=secret"))
    assert refusal is not None
    assert refusal[0] == 400
    assert "secret" not in refusal[1]
