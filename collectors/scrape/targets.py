"""What to scrape: a URL, the targets in a file, or every address of a name -> endpoints."""

import json
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import dns.exception
import dns.resolver
import yaml

from costapp.core.targets import Target, read_url
from costapp.storage.scrape_targets import TargetRow

_FILE_BYTES = 4 * 1024 * 1024
_DNS_SECONDS = 5
_META = "__"
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.]*")


class CannotDiscover(Exception):
    """The message is a sentence for the person who listed the target."""


class Endpoint(NamedTuple):
    """One thing to scrape."""

    target: Target
    name: str  # host:port, as samples and gaps call it
    labels: tuple[tuple[str, str], ...] = ()


def endpoints(row: TargetRow, *, folder: str, limit: int) -> list[Endpoint]:
    """The endpoints of a target now. CannotDiscover or Refused in words; asks DNS, so not on the event loop."""
    find = {"file": _in_file, "dns": _of_name}.get(row.discovery, _of_url)
    found = list(dict.fromkeys(find(row, folder)))
    if len(found) > limit:
        raise CannotDiscover(f"{len(found)} endpoints are more than COSTAPP_SCRAPE_MAX_ENDPOINTS allows ({limit}).")
    return found


def _of_url(row: TargetRow, folder: str) -> Iterator[Endpoint]:
    yield _endpoint(read_url(row.address), row.labels)


def _endpoint(target: Target, labels: Mapping[str, str]) -> Endpoint:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return Endpoint(target, f"{host}:{target.port}", tuple(sorted(labels.items())))


def _of_name(row: TargetRow, folder: str) -> Iterator[Endpoint]:
    """Each address of the host; of `_service._proto.name` each server of its SRV records."""
    target = read_url(row.address)
    try:
        if target.host.startswith("_"):
            answer = dns.resolver.resolve(target.host, "SRV", lifetime=_DNS_SECONDS)
            found = [(str(item.target).rstrip("."), item.port) for item in answer]
        else:
            entries = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            found = [(str(entry[4][0]), target.port) for entry in entries]
    except (OSError, UnicodeError, dns.exception.DNSException):
        raise CannotDiscover(f"The name {target.host} cannot be looked up.") from None
    for host, port in sorted(found):
        yield _endpoint(target._replace(host=host, port=port), row.labels)


def _in_file(row: TargetRow, folder: str) -> Iterator[Endpoint]:
    """Prometheus' file_sd: JSON or YAML, a list of {targets: [host:port], labels: {...}}."""
    for group in _groups(row.address, folder):
        stated = {str(name): str(value) for name, value in (group.get("labels") or {}).items()}
        scheme, path = stated.get("__scheme__", "http"), stated.get("__metrics_path__", "/metrics")
        labels = {
            name: value for name, value in stated.items() if not name.startswith(_META) and _LABEL.fullmatch(name)
        }
        for address in group.get("targets") or ():
            yield _endpoint(read_url(f"{scheme}://{address}{path}"), labels | dict(row.labels))


def _groups(name: str, folder: str) -> list[dict[str, Any]]:
    if not folder:
        raise CannotDiscover("Files are not read: set COSTAPP_SCRAPE_FILES to the folder that holds them.")
    base = Path(folder).resolve()
    path = (base / name).resolve()
    if not path.is_relative_to(base):
        raise CannotDiscover("The file must lie in the folder COSTAPP_SCRAPE_FILES.")
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise CannotDiscover(f"{name} is larger than {_FILE_BYTES} bytes.")
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise CannotDiscover(f"{name} cannot be read: {error.strerror}.") from None
    except (ValueError, yaml.YAMLError, RecursionError):
        raise CannotDiscover(f"{name} is not JSON or YAML.") from None
    if not isinstance(found, list) or not all(_is_group(group) for group in found):
        raise CannotDiscover(f"{name} must be a list of {{targets: [...], labels: {{...}}}}.")
    return found


def _is_group(group: object) -> bool:
    return (
        isinstance(group, dict)
        and isinstance(group.get("targets") or [], list)
        and isinstance(group.get("labels") or {}, dict)
    )
