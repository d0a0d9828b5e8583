"""Turns claimed rows of the outbox into a message: headings, figures, periods in the project's zone, absolute links."""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.conf import settings
from django.urls import NoReverseMatch, reverse

from costapp.core.alerts import Fact
from costapp.models import Project
from costapp.services.channels.message import Item, Message
from costapp.storage.notifications import Claimed, Line


def message_of(claimed: Claimed, project: Project) -> Message:
    items = report_items(claimed.body) if claimed.body else tuple(_item(line, project) for line in claimed.lines)
    return Message(
        dedupe_key=dedupe_key(claimed),
        group_key=claimed.group_key,
        kind="digest" if claimed.body else "alerts",
        project=project.slug,
        project_name=project.name,
        heading=claimed.body["heading"] if claimed.body else _heading(claimed, items),
        items=items,
        more=0 if claimed.body else claimed.alerts - len(items),
        more_url=alerts_url(project),
    )


def dedupe_key(claimed: Claimed) -> str:
    """The same for every attempt at this message, whichever worker makes it."""
    whole = f"{claimed.project_id}/{claimed.channel_id}/{claimed.message_id}/{claimed.dedupe_key}"
    return sha256(whole.encode()).hexdigest()[:32]


def _heading(claimed: Claimed, items: tuple[Item, ...]) -> str:
    if claimed.alerts == 1:
        return items[0].headline
    return f"{claimed.alerts} alerts. {items[0].headline}"


def _item(line: Line, project: Project) -> Item:
    facts = [Fact(*fact) for fact in line.detail.get("facts", [])]
    labels, zone = {fact.label for fact in facts}, ZoneInfo(project.time_zone)
    if line.period_start and line.period_end and "Period" not in labels:
        facts.append(Fact("Period", f"{span_of_time(line.period_start, line.period_end, zone)} ({zone.key})"))
    if line.complete_until and line.event != "resolved" and "Data complete until" not in labels:
        facts.append(Fact("Data complete until", f"{local(line.complete_until, zone)} ({zone.key})"))
    return Item(
        key=line.key, event=line.event, level=line.level, title=line.title, subject=line.subject, facts=tuple(facts),
        driver=line.detail.get("driver", ""), url=absolute(line.path), alert_url=alert_url(project, line.alert_id),
    )  # fmt: skip


def report_items(body: dict[str, Any]) -> tuple[Item, ...]:
    return tuple(
        Item("", "", "info", part["title"], {}, tuple(Fact(*fact) for fact in part["facts"]), part.get("driver", ""),
             absolute(part.get("path", "")), "")
        for part in body["items"]
    )  # fmt: skip


# --- links


def absolute(path: str) -> str:
    """An address that works outside: COSTAPP_PUBLIC_URL and the path. Only paths of this site become links."""
    if not path.startswith("/") or path.startswith("//"):
        return ""
    return settings.PUBLIC_URL.rstrip("/") + path


def alerts_url(project: Project) -> str:
    return absolute(_path("alerts", slug=project.slug) or _path("health", slug=project.slug))


def alert_url(project: Project, alert_id: int) -> str:
    page = _path("alerts", slug=project.slug)
    return absolute(_path("alert", slug=project.slug, alert_id=alert_id) or (
        f"{page}?{urlencode({'alert': alert_id})}" if page else ""
    ))  # fmt: skip


def _path(name: str, **kwargs: Any) -> str:
    try:
        return reverse(name, kwargs=kwargs)
    except NoReverseMatch:
        return ""


# --- moments in words


def local(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).strftime("%-d %b %Y, %H:%M")


def span_of_time(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    """ "1 Nov – 30 Nov 2026" for whole days, with hours otherwise."""
    first, last = start.astimezone(zone), end.astimezone(zone)
    if any((first.hour, first.minute, last.hour, last.minute)):
        return f"{local(start, zone)} – {local(end, zone)}"
    last -= timedelta(days=1)
    if first.date() == last.date():
        return first.strftime("%a %-d %b %Y")
    same_year = first.year == last.year
    return f"{first.strftime('%-d %b' if same_year else '%-d %b %Y')} – {last.strftime('%-d %b %Y')}"
