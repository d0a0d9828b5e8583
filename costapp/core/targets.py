"""Addresses that a user may have requests sent to: read strictly, judged by the resolved address. Pure.

What a name looks like is never trusted: decimal, octal and mapped notations all end as an address, and that is judged.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

URL_LENGTH = 2000
PORTS = {"https": 443, "http": 80}

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: Beside what Python's registry calls not global, which differs by version: addresses that reach the machinery of a
#: cloud (Azure, Oracle), and the local half of NAT64.
_MACHINERY = tuple(map(ipaddress.ip_network, ("168.63.129.16/32", "192.0.0.0/24", "64:ff9b:1::/48", "100::/64")))


class Refused(ValueError):
    """The address may not be called; the message is a sentence for the person who typed it."""


class Target(NamedTuple):
    """An absolute URL, read."""

    scheme: str  # https | http
    host: str
    port: int
    path: str  # with its query; never empty


class Allowed(NamedTuple):
    """An exception that the operator made: this network at this port, with http too."""

    network: Network
    port: int


def read_url(text: str) -> Target:
    if len(text) > URL_LENGTH:
        raise Refused(f"The address is longer than {URL_LENGTH} characters.")
    if re.search(r"[\s\x00-\x1f\x7f\\]", text):
        raise Refused("The address holds a space or a control character.")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Refused("This is not an address such as https://hooks.example.com/path.") from None
    if parts.scheme not in PORTS or not host:
        raise Refused("The address must begin with https:// and name a host.")
    if parts.username is not None or parts.password is not None:
        raise Refused("The address must not hold a user name or password.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port if port is not None else PORTS[parts.scheme], path)


def read_allowed(entries: Iterable[str]) -> tuple[Allowed, ...]:
    """``10.20.0.0/16:9400`` or ``[fd00::/8]:8080``. Raises ValueError with a sentence."""
    return tuple(_read_entry(entry) for entry in entries)


def _read_entry(entry: str) -> Allowed:
    network, _, port = entry.rpartition(":")
    try:
        found = Allowed(ipaddress.ip_network(network.strip("[]")), int(port))
    except ValueError:
        raise ValueError(f"{entry!r} is not a network and a port such as 10.20.0.0/16:9400.") from None
    if not 0 < found.port < 65536:
        raise ValueError(f"{entry!r}: a port lies between 1 and 65535.")
    return found


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only carries it."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    compatible = 1 < int(address) < 2**32  # ::a.b.c.d; not ::1
    if address in _NAT64 or compatible:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    real = unwrapped(address)
    if any(real in network for network in _MACHINERY) or real.is_multicast or real.is_reserved or real.is_unspecified:
        return False
    return real.is_global


def judge(
    target: Target,
    addresses: Sequence[str],
    allowed: Sequence[Allowed] = (),
    own: Iterable[tuple[str, int]] = (),
) -> list[str]:
    """The addresses, when every one of them may be called; else Refused. ``own``: the instance's own servers."""
    if not addresses:
        raise Refused(f"The host {target.host} has no address.")
    forbidden = {(unwrapped(ipaddress.ip_address(address)), port) for address, port in own}
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if (unwrapped(address), target.port) in forbidden:
            raise Refused("The address leads to a server of Costapp itself.")
        if _is_listed(unwrapped(address), target.port, allowed):
            continue
        if not is_public(address):
            raise Refused(
                f"The host {target.host} leads to an address that is not public. Whoever runs Costapp can allow it"
                " (COSTAPP_ALLOW_PRIVATE_TARGETS)."
            )
        if target.scheme != "https" or target.port != PORTS["https"]:
            raise Refused("The address must use https on port 443.")
    return list(addresses)


def _is_listed(address: Address, port: int, allowed: Sequence[Allowed]) -> bool:
    return any(port == entry.port and address in entry.network for entry in allowed)
