"""What control is told about pages and proxies on the other side."""

import pytest

from control.adapters.configuration import SECTION, ControlConfig
from khala_service.config import ConfigRefused, load_config

ENVIRON = {
    "KHALA_CONTROL_DATABASE_DSN": "postgresql://khala_control:secret@db/khala",
    "KHALA_CONTROL_RUNTIME_URL": "http://runtime:8472",
    "KHALA_CONTROL_SERVICE_CREDENTIAL": "khs_" + "a" * 43,
    "KHALA_CONTROL_RUNTIME_CREDENTIAL": "khs_" + "b" * 43,
    "KHALA_CONTROL_NODE_CREDENTIAL": "khs_" + "c" * 43,
    "KHALA_CONTROL_SIGNING_KEYS_FILE": "/keys.json",
}


def _load(**changes: str) -> ControlConfig:
    return load_config(ControlConfig, section=SECTION, environ=ENVIRON | changes)


def test_the_default_is_nobody() -> None:
    """No pages of other origins, no proxies; cookies are control's business."""
    edge = _load().edge
    assert (edge.cors_origins, edge.proxies.networks, edge.has_cookies) == ((), (), True)


def test_lists_are_taken_over() -> None:
    """As a variable or in the file they are the same."""
    edge = _load(
        KHALA_CONTROL_CORS_ORIGINS="https://a.example, https://b.example",
        KHALA_CONTROL_TRUSTED_PROXIES="10.0.0.0/8, ::1",
    ).edge
    assert edge.cors_origins == ("https://a.example", "https://b.example")
    assert edge.proxies.believe("10.1.2.3")
    assert edge.proxies.believe("::1")
    assert not edge.proxies.believe("11.0.0.1")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"KHALA_CONTROL_CORS_ORIGINS": "*"}, "cors_origins: '*'"),
        ({"KHALA_CONTROL_CORS_ORIGINS": "https://a.example:443"}, "leave out :443"),
        ({"KHALA_CONTROL_TRUSTED_PROXIES": "*"}, "trusted_proxies: '*'"),
    ],
)
def test_refusals(changes: dict[str, str], named: str) -> None:
    """A list that would match nobody, or everybody, ends the start."""
    with pytest.raises(ConfigRefused) as refused:
        _load(**changes)
    assert any(named in error for error in refused.value.errors)
