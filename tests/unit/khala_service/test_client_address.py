"""Unit tests of khala_service.client_address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khala_service.client_address import HOPS_MAX, TrustedProxies, check_trusted_proxies

OURS = TrustedProxies.of(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"])
NOBODY = TrustedProxies()


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        # Nobody in between, or nobody of ours: what is said is the client's own word.
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["6.6.6.6"], "203.0.113.7"),
        ("203.0.113.7", ["10.0.0.1"], "203.0.113.7"),
        # One proxy; the client may have written what it likes before it.
        ("10.0.0.2", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.2", ["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.2", ["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.2", ["10.0.0.9, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.2", [], "10.0.0.2"),
        # Two proxies, and one of them a single address.
        ("10.0.0.2", ["6.6.6.6, 203.0.113.7, 192.0.2.1"], "203.0.113.7"),
        ("192.0.2.1", ["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("192.0.2.2", ["203.0.113.7"], "192.0.2.2"),
        # Ways to write an address.
        ("10.0.0.2", ["203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.2", ['"[2001:db9::7]:4711"'], "2001:db9::7"),
        ("10.0.0.2", ["2001:DB9::7"], "2001:db9::7"),
        ("::ffff:10.0.0.2", ["203.0.113.7"], "203.0.113.7"),
        ("2001:db8::2", ["::ffff:203.0.113.7"], "203.0.113.7"),
        # What is no address ends the way back: it is the proxy that we know.
        ("10.0.0.2", ["203.0.113.7, unknown"], "10.0.0.2"),
        ("10.0.0.2", ["203.0.113.7, "], "10.0.0.2"),
        # All of them ours: the first one.
        ("10.0.0.2", ["10.0.0.1"], "10.0.0.1"),
        ("", ["203.0.113.7"], ""),
    ],
)
def test_the_last_address_that_is_not_ours_is_the_client(peer: str, said: list[str], client: str) -> None:
    """Read from the end, and only as far as our own proxies vouch."""
    assert OURS.client_address(peer, said) == client
    assert NOBODY.client_address(peer, said) == peer


@given(said=st.lists(st.text(max_size=40), max_size=5), real=st.sampled_from(["203.0.113.7", "2001:db9::1"]))
def test_nothing_that_a_client_says_changes_its_address(said: list[str], real: str) -> None:
    """One proxy of ours appends the truth: whatever stands before it is not looked at."""
    assert OURS.client_address("10.0.0.2", [*said, real]) == real
    assert OURS.client_address(real, said) == real


def test_a_long_list_costs_nothing() -> None:
    """Only the last HOPS_MAX are read."""
    many = ", ".join(["203.0.113.7"] + ["10.0.0.1"] * HOPS_MAX)
    assert OURS.client_address("10.0.0.2", [many]) == "10.0.0.1"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0", "proxy.example", "*", "", "10.0.0.0/33"])
def test_what_is_no_address_and_no_network_is_refused(text: str) -> None:
    """Names are not looked up, and a network with bits of a host is a mistake."""
    with pytest.raises(ValueError, match="trusted_proxies: "):
        check_trusted_proxies(["127.0.0.1", text])
