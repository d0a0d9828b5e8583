"""Checking a scrape target when it is saved, as the collector checks it again at each scrape."""

import socket
from pathlib import PurePosixPath

from django.conf import settings

from costapp.core.scraping import judge_scrape
from costapp.core.targets import Refused, read_allowed, read_url


def check(discovery: str, address: str) -> None:
    """Raises Refused with a sentence. A file's targets are only known, and checked, when they are scraped."""
    if discovery == "file":
        _check_file(address)
        return
    target = read_url(address)
    if discovery == "dns" and target.host.startswith("_"):
        return  # SRV: host and port are only known when it is asked
    try:
        entries = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Refused(f"The host {target.host} cannot be found.") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    judge_scrape(target, addresses, read_allowed(settings.SCRAPE_ALLOW))


def _check_file(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.suffix not in {".json", ".yml", ".yaml"}:
        raise Refused("Enter the name of a .json, .yml or .yaml file in the folder COSTAPP_SCRAPE_FILES.")
