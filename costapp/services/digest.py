"""The daily or weekly report of a project: the figures of its pages, sent once per period to channels that want it."""

from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import psycopg
from django.urls import reverse

from costapp.core.alerts import Fact
from costapp.core.local_days import local_day
from costapp.core.money import format_usd
from costapp.models import Channel, Project
from costapp.services.compose import span_of_time
from costapp.storage import alerts as alert_store
from costapp.storage import budgets
from costapp.storage import notifications as outbox
from costapp.storage.reports import spend
from costapp.storage.reports.cells import Grain, Scope
from costapp.storage.reports.state import state
from costapp.storage.reports.sums import Sums

Connection = psycopg.Connection[Any]

#: A report that could not be made for so long is not made any more; the next one comes.
OVERDUE = timedelta(hours=20)
ROWS = 5
FEATURES = 2000


class Period(NamedTuple):
    """A finished day or week, in days of the project's time zone; ``last`` is included."""

    first: date
    last: date
    name: str  # daily | weekly

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def before(self) -> "Period":
        step = timedelta(days=self.days)
        return Period(self.first - step, self.last - step, self.name)

    def bounds(self, time_zone: str) -> tuple[datetime, datetime]:
        return local_day(self.first, time_zone).start_at, local_day(self.last, time_zone).end_at


class Part(NamedTuple):
    """A heading with figures, and where they are shown."""

    title: str
    facts: tuple[Fact, ...]
    path: str = ""


def queue_digests(conn: Connection, now: datetime) -> int:
    """Queue the reports that are due and were not queued before. Returns how many."""
    wanted = Channel.objects.exclude(digest=Channel.Digest.NONE).filter(enabled=True).select_related("project")
    made: dict[tuple[int, Period], dict[str, Any]] = {}
    count = 0
    for channel in wanted.order_by("project_id", "pk"):
        period = due_period(channel, now)
        if period is None:
            continue
        key = f"digest/{period.name}/{period.first}"
        if outbox.is_queued(conn, channel.project_id, channel.pk, key):
            continue
        place = (channel.project_id, period)
        if place not in made:
            made[place] = report(conn, channel.project, period, now)
        with conn.transaction():
            alert_store.be_durable(conn)
            count += outbox.queue_report(conn, channel.project_id, channel.pk, key, made[place], now)
    return count


def due_period(channel: Channel, now: datetime) -> Period | None:
    """The period whose report should go out now: the last one, from the channel's hour on and not a day late."""
    zone = ZoneInfo(channel.project.time_zone)
    today = now.astimezone(zone).date()
    if channel.digest == Channel.Digest.DAILY:
        sent_on, period = today, Period(today - timedelta(days=1), today - timedelta(days=1), "daily")
    else:
        sent_on = today - timedelta(days=today.weekday())
        period = Period(sent_on - timedelta(days=7), sent_on - timedelta(days=1), "weekly")
    due_at = datetime.combine(sent_on, time(channel.digest_hour), zone)
    # compared in UTC: on days of 23 and 25 hours local differences mislead
    late = now - due_at.astimezone(now.tzinfo)
    return period if timedelta() <= late < OVERDUE and channel.created_at <= due_at else None


def report(conn: Connection, project: Project, period: Period, at: datetime) -> dict[str, Any]:
    """The body of the message. Its figures are those of the pages that it links to; budgets stand as of ``at``."""
    now, before = _split(conn, project, period), _split(conn, project, period.before())
    parts = [_spend(project, period, now.total, before.total), _dearest(project, period, now)]
    parts += [_movers(project, period, now, before), _budgets(conn, project, at), _open_alerts(conn, project)]
    start, end = period.bounds(project.time_zone)
    words = span_of_time(start, end, ZoneInfo(project.time_zone))
    complete = state(conn, project.pk, month_start=start).complete_until
    note = "" if complete >= end else "Telemetry of this period is still being summed: figures may grow."
    return {
        "heading": f"{project.name}, {words}: {_usd(now.total)} ({change(now.total, before.total)}).",
        "items": [
            {"title": part.title, "facts": [list(fact) for fact in part.facts], "path": part.path,
             "driver": note if number == 0 else ""}
            for number, part in enumerate(part for part in parts if part)
        ],
    }  # fmt: skip


def _split(conn: Connection, project: Project, period: Period) -> spend.SplitTable:
    start, end = period.bounds(project.time_zone)
    scope = Scope(project.pk, project.time_zone, start, end, Grain.DAY)
    return spend.split(conn, scope, "feature", limit=FEATURES)


def _spend(project: Project, period: Period, now: Sums, before: Sums) -> Part:
    facts = [
        Fact("Spend", _usd(now)),
        Fact(f"The {'day' if period.days == 1 else 'week'} before", f"{_usd(before)} ({change(now, before)})"),
        Fact("Requests", f"{now.requests:,}"),
    ]
    if now.unpriced:
        facts.append(Fact("Without a price", f"{now.unpriced:,} requests, not in these figures"))
    return Part("Spend", tuple(facts), page(project, period))


def _dearest(project: Project, period: Period, now: spend.SplitTable) -> Part | None:
    facts = tuple(Fact(_name(row.value), _usd(row.sums)) for row in now.rows[:ROWS] if row.sums.cost_nano)
    return Part("Dearest features", facts, page(project, period)) if facts else None


def _movers(project: Project, period: Period, now: spend.SplitTable, before: spend.SplitTable) -> Part | None:
    """The features whose cost changed most, in dollars."""
    old = {row.value: row.sums for row in before.rows}
    new = {row.value: row.sums for row in now.rows}
    pairs = [(name, new.get(name, Sums()), old.get(name, Sums())) for name in new.keys() | old.keys()]
    pairs.sort(key=lambda pair: (-abs((pair[1].cost_nano or 0) - (pair[2].cost_nano or 0)), pair[0]))
    facts = tuple(
        Fact(_name(name), f"{_usd(was)} → {_usd(is_now)} ({change(is_now, was)})")
        for name, is_now, was in pairs[:ROWS]
        if is_now.cost_nano != was.cost_nano
    )
    return Part("Changed most", facts, page(project, period)) if facts else None


def _budgets(conn: Connection, project: Project, at: datetime) -> Part | None:
    """The budgets of the current periods that come closest to their limit."""
    names = {row.id: row.name for row in budgets.budgets_of(conn, project.pk)}
    facts = tuple(
        Fact(burn.reading.subject or names.get(burn.reading.budget_id, ""), _burn(burn.reading))
        for burn in budgets.burns(conn, project.pk, at, limit=ROWS)
    )
    return Part("Budgets at most risk", facts, f"/p/{project.slug}/budgets/") if facts else None


def _burn(reading: budgets.Reading) -> str:
    spent = f"{format_usd(reading.spent_nano)} of {format_usd(reading.limit_nano)}"
    share = f" ({reading.spent_nano * 100 // reading.limit_nano} %)" if reading.limit_nano else ""
    ahead = reading.forecast_nano
    return spent + share + (f", heading for {format_usd(ahead)}" if ahead is not None else "")


def _open_alerts(conn: Connection, project: Project) -> Part:
    count, newest = alert_store.open_titles(conn, project.pk, limit=ROWS)
    facts = tuple(Fact(level.capitalize(), title) for level, title in newest)
    more = (Fact("And", f"{count - len(newest)} more"),) if count > len(newest) else ()
    return Part(f"{count or 'No'} open alert{'' if count == 1 else 's'}", facts + more)


def page(project: Project, period: Period) -> str:
    """The Overview of the same period."""
    query = urlencode({"from": period.first.isoformat(), "to": period.last.isoformat()})
    return f"{reverse('overview', kwargs={'slug': project.slug})}?{query}"


def change(now: Sums, before: Sums) -> str:
    """Whole percents; exact enough for a sentence, computed without floats."""
    is_now, was = now.known_cost_nano, before.known_cost_nano
    if is_now is None or was is None:
        return "change unknown"
    if not was:
        return "new" if is_now else "unchanged"
    percent = (2 * 100 * (is_now - was) + was) // (2 * was)
    return f"{percent:+,} %".replace("-", "−") if percent else "unchanged"


def _usd(sums: Sums) -> str:
    known = sums.known_cost_nano
    return "unpriced" if known is None else format_usd(known)


def _name(feature: str) -> str:
    return feature or "(unattributed)"
