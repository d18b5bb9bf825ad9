"""Unit tests of khala_service.origins."""

import pytest

from khala_service.origins import check_origins, origin_error


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "http://localhost:8470",
        "http://127.0.0.1:8470",
        "https://[2001:db8::1]:8443",
        "https://a-b.c_d.example:65535",
        "http://x:443",
        "https://x:80",
        "tauri://localhost",
    ],
)
def test_what_browsers_send_is_accepted(origin: str) -> None:
    """Scheme, host and, unless it is the scheme's own, port."""
    assert origin_error(origin) is None
    check_origins((origin,))


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        ("*", "every page"),
        ("null", "every page"),
        ("", "scheme://host"),
        ("app.example", "scheme://host"),
        ("https://", "scheme://host"),
        ("https://App.example", "lower case"),
        ("HTTPS://app.example", "lower case"),
        ("https://app.example/", "without a path"),
        ("https://app.example/x", "without a path"),
        ("https://app.example?x", "without a path"),
        ("https://*.example", "scheme://host"),
        ("https://user@app.example", "scheme://host"),
        ("https://app.example:", "scheme://host"),
        ("https://app.example:0", "scheme://host"),
        ("https://app.example:08470", "scheme://host"),
        ("https://app.example:65536", "65536 does not exist"),
        ("https://app.example:443", "leave out :443"),
        ("http://app.example:80", "leave out :80"),
        ("https://app.example ", "scheme://host"),
        ("https://app.example\n", "scheme://host"),
        ("https://bücher.example", "scheme://host"),
        ("https://a.example,https://b.example", "scheme://host"),
    ],
)
def test_what_no_browser_sends_is_refused_at_the_start(origin: str, why: str) -> None:
    """Such an entry would never match; the message names it and the form that it should have."""
    assert why in str(origin_error(origin))
    with pytest.raises(ValueError, match="cors_origins: ") as refused:
        check_origins(("https://app.example", origin))
    assert repr(origin) in str(refused.value)
