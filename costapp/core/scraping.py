"""Which addresses may be scraped. Pure.

GPU exporters live in private networks, where everything else does too: nothing may be scraped unless whoever runs
Costapp listed its network and port. Unlike a webhook's target not even a public address.
"""

from collections.abc import Collection, Sequence
from ipaddress import ip_address

from costapp.core.targets import Address, Allowed, Refused, Target, unwrapped


def judge_scrape(
    target: Target, addresses: Sequence[str], allowed: Sequence[Allowed], own: Collection[tuple[Address, int]] = ()
) -> list[str]:
    """The addresses, when every one of them may be scraped; else Refused. ``own``: Costapp's own servers."""
    if not addresses:
        raise Refused(f"The host {target.host} has no address.")
    for text in addresses:
        address = unwrapped(ip_address(text.partition("%")[0]))
        if (address, target.port) in own:
            raise Refused("The address leads to a server of Costapp itself.")
        if not any(target.port == entry.port and address in entry.network for entry in allowed):
            raise Refused(
                f"{address}, port {target.port}, is not on the list of what may be scraped. Whoever runs Costapp can"
                " add it (COSTAPP_SCRAPE_ALLOW)."
            )
    return list(addresses)
