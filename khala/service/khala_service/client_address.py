"""Whom a request comes from, when proxies stand in between. Pure.

Each proxy appends to X-Forwarded-For the address that connected to it, so the list is read from its end,
and only as far as the addresses are those of our own proxies: what lies before was written by the client,
who may write anything.

    client 203.0.113.7 ---> proxy 10.0.0.2 ---> us
    X-Forwarded-For: 6.6.6.6, 203.0.113.7       (6.6.6.6 is the client's own word)
    trusted_proxies = ["10.0.0.0/8"]            -> 203.0.113.7
    trusted_proxies = []                        -> 10.0.0.2, who connected to us
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["DESCRIPTION", "TrustedProxies", "check_trusted_proxies"]

DESCRIPTION: Final = (
    "Addresses or networks (10.0.0.0/8) of the proxies whose X-Forwarded-For and -Proto are believed."
)
# More hops than anybody has; a longer list is a client's.
HOPS_MAX: Final = 16

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@attrs.frozen
class TrustedProxies:
    """Whose word about a client is believed; the empty list believes nobody."""

    networks: tuple[_Network, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> TrustedProxies:
        """Return those that a configuration names.

        Raises:
            ValueError: naming the first that is no address and no network.
        """
        networks: list[_Network] = []
        for text in texts:
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError as error:
                message = f"trusted_proxies: {error}"
                raise ValueError(message) from None
        return cls(tuple(networks))

    def believe(self, peer: str) -> bool:
        """Return whether what this peer says of others is believed."""
        address = _parse(peer)
        return address is not None and self._covers(address)

    def client_address(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """Return the address of the client.

        Args:
            peer: Who is connected to us; may be empty, if the transport does not say.
            forwarded_for: Values of the X-Forwarded-For headers, in their order.

        Returns:
            The last address that no proxy of ours stands for; ``peer`` if there is none such.
        """
        found = peer
        hops = [hop for value in forwarded_for for hop in value.split(",")][-HOPS_MAX:]
        while hops and self.believe(found):
            address = _parse(hops.pop())
            if address is None:
                return found
            found = str(address)
        return found

    def _covers(self, address: _Address) -> bool:
        return any(address in network for network in self.networks)


def check_trusted_proxies(texts: Iterable[str]) -> None:
    """Refuse what is no address and no network; for the configuration of a service. Raises ValueError."""
    TrustedProxies.of(texts)


def _parse(text: str) -> _Address | None:
    """Return an address as proxies write it: alone, with a port, in brackets; None if it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
