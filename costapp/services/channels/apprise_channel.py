"""Hosted services through the apprise library: Teams, Discord, PagerDuty, Opsgenie, Telegram and others.

Apprise opens its own connections, past ``services.outgoing``. So only services whose host is fixed in apprise are
allowed, or ends in a domain that belongs to the service; anything with a host of the user's choice is a webhook.
"""

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from costapp.services.channels.message import Message, Outcome, broken, later, rejected, sent

if TYPE_CHECKING:
    from apprise.plugins.base import NotifyBase

#: schema -> domains that its host must end in; () = the host is fixed in apprise.
SERVICES: dict[str, tuple[str, ...]] = {
    "discord": (),
    "firehydrant": (),
    "gchat": (),
    "ilert": (),
    "incidentio": (),
    "line": (),
    "opsgenie": (),
    "pagerduty": (),
    "pagertree": (),
    "pbul": (),
    "pover": (),
    "signl4": (),
    "splunk": (),
    "squadcast": (),
    "tgram": (),
    "twilio": (),
    "victorops": (),
    "webex": (),
    "wxteams": (),
    "workflow": (".logic.azure.com", ".powerplatform.com"),
    "workflows": (".logic.azure.com", ".powerplatform.com"),
}
#: What may stand after the question mark. Others read files, switch certificate checks off or name other hosts.
OPTIONS = frozenset(
    {"region", "priority", "to", "thread", "topic", "source", "component", "group", "class", "severity"}
)
LIMIT_S = 8.0

_STATUS = re.compile(r"error[=:]\s*(\d{3})")


class NotAllowed(ValueError):
    """A sentence for the person who typed the address."""


def check(url: str) -> None:
    """Raises NotAllowed."""
    _plugin(url)


def _plugin(url: str) -> "NotifyBase":
    schema = url.partition("://")[0].lower()
    if schema not in SERVICES:
        raise NotAllowed(
            f"{schema or 'This'}:// is not among the services that can be used: {', '.join(sorted(SERVICES))}. For "
            "another host use a webhook."
        )
    try:
        parts = urlsplit(url)
        host, options = (
            parts.hostname or "",
            {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)},
        )
    except ValueError:
        raise NotAllowed("This is not an address of apprise such as discord://id/token.") from None
    if unknown := sorted(options - OPTIONS):
        raise NotAllowed(f"The option {unknown[0]} is not allowed. Allowed: {', '.join(sorted(OPTIONS))}.")
    if SERVICES[schema] and not host.endswith(SERVICES[schema]):
        raise NotAllowed(f"The host of {schema}:// must end in {' or '.join(SERVICES[schema])}.")
    apprise = _library()
    asset = apprise.AppriseAsset(http_redirects=False, storage_mode=apprise.PersistentStoreMode.MEMORY)
    plugin = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if plugin is None:
        raise NotAllowed(f"Apprise cannot read this {schema}:// address. Its page shows what it looks like.")
    plugin.redirects, plugin.verify_certificate = False, True
    plugin.socket_connect_timeout = plugin.socket_read_timeout = LIMIT_S / 2
    found: NotifyBase = plugin
    return found


@cache
def _library() -> ModuleType:
    """Apprise with its services loaded. Only here: it costs a process 25 MiB, and few need it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it probes for modules that Python has deprecated
        import apprise

        apprise.Apprise.instantiate("json://localhost")
    return apprise


def send(config: dict[str, Any], secret: dict[str, str], message: Message) -> Outcome:
    try:
        plugin = _plugin(secret["url"])
    except NotAllowed as problem:
        return broken(str(problem))
    kind = (
        "success" if _is_over(message) else {"critical": "failure", "warning": "warning"}.get(_level(message), "info")
    )
    with _listening() as said:
        done = plugin.notify(body=text(message), title=message.heading, notify_type=kind)
    status = next((int(found[1]) for line in said if (found := _STATUS.search(line))), 0)
    if done:
        return sent(f"{plugin.service_name} took it.")
    return _failed(str(plugin.service_name), status)


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What apprise logs in this thread: the only place where it says why. Never printed, for it names addresses."""
    thread, lines = threading.get_ident(), []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                lines.append(record.getMessage())

    ear, logger = Ear(), logging.getLogger("apprise")
    logger.addHandler(ear)
    try:
        yield lines
    finally:
        logger.removeHandler(ear)


def _failed(who: str, status: int) -> Outcome:
    if status in {401, 403, 404, 410}:
        return broken(f"{who} answered {status}: the address or token is not valid any more.")
    if status in {400, 413, 422}:
        return rejected(f"{who} refuses this message ({status}).")
    return later(f"{who} did not take it" + (f" ({status})." if status else "."))


def _level(message: Message) -> str:
    levels = {item.level for item in message.items}
    return next((level for level in ("critical", "warning") if level in levels), "info")


def _is_over(message: Message) -> bool:
    return bool(message.items) and all(item.event == "resolved" for item in message.items)


def text(message: Message) -> str:
    """Plain lines; services cut them to what they take."""
    lines = []
    for item in message.items:
        lines.append(item.headline)
        lines += [f"{fact.label}: {fact.text}" for fact in item.facts]
        lines += [line for line in (item.driver, item.url) if line]
        lines.append("")
    if message.more:
        lines.append(f"and {message.more} more: {message.more_url}")
    return "\n".join([*lines, f"{message.project_name}, {message.dedupe_key[:12]}"])
