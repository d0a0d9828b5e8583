"""Alerts as pages show them: open ones, past ones, their timelines and the log of their messages."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from costapp.storage.alerts import loads
from costapp.storage.reports.sql import Connection, run


class AlertRow(NamedTuple):
    id: int
    source: str
    source_id: int
    subject: dict[str, str]
    level: str
    state: str
    title: str
    detail: dict[str, Any]
    path: str
    opened_at: datetime
    resolved_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    snoozed_until: datetime | None
    last_notified_at: datetime | None
    period_start: datetime | None
    period_end: datetime | None
    complete_until: datetime | None

    @property
    def is_open(self) -> bool:
        return self.state == "open"

    @property
    def facts(self) -> list[tuple[str, str]]:
        return [(label, text) for label, text in self.detail.get("facts", [])]

    @property
    def labels(self) -> set[str]:
        """What the facts are about: not to be said twice."""
        return {label for label, _ in self.facts}

    @property
    def driver(self) -> str:
        return str(self.detail.get("driver", ""))


class Event(NamedTuple):
    """A line of a timeline."""

    at: datetime
    kind: str
    level: str
    title: str
    actor: str


class Delivery(NamedTuple):
    """A message about an alert, or why there is none."""

    channel: str
    kind: str  #: of the event it is about
    state: str
    reason: str
    attempts: int
    created_at: datetime
    next_at: datetime | None
    sent_at: datetime | None
    last_error: str


class Wanted(NamedTuple):
    """Filters of the page."""

    sources: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    source_id: int | None = None


ALL = Wanted()
_COLUMNS = ", ".join(AlertRow._fields)
_WANTED = """project_id = %(project_id)s
    and (cardinality(%(sources)s::text[]) = 0 or source = any(%(sources)s))
    and (cardinality(%(levels)s::text[]) = 0 or level = any(%(levels)s))
    and (%(source_id)s::bigint is null or source_id = %(source_id)s)"""


def _values(project_id: int, wanted: Wanted, **more: Any) -> dict[str, Any]:
    return {
        "project_id": project_id, "sources": list(wanted.sources), "levels": list(wanted.levels),
        "source_id": wanted.source_id, **more,
    }  # fmt: skip


def _rows(found: Sequence[Any]) -> list[AlertRow]:
    return [AlertRow._make((*row[:3], loads(row[3]), *row[4:7], loads(row[7]), *row[8:])) for row in found]


def open_alerts(
    conn: Connection, project_id: int, wanted: Wanted = ALL, *, limit: int = 100
) -> tuple[list[AlertRow], int]:
    """Worst and newest first, those that somebody looks after last; and how many there are."""
    sql = f"""select {_COLUMNS}, count(*) over () from alert where {_WANTED} and state = 'open'
        order by (acknowledged_at is not null or coalesce(snoozed_until > now(), false)),
                 array_position(array['critical', 'warning', 'info'], level), opened_at desc, id desc
        limit %(limit)s"""
    rows = run(conn, sql, _values(project_id, wanted, limit=limit))
    return _rows([row[:-1] for row in rows]), rows[0][-1] if rows else 0


# How it was told when it was worst. A budget's last words have its final figures, an anomaly's say why it is over.
_WAS = """(select event.title from alert_event event where event.project_id = alert.project_id
    and event.alert_id = alert.id and event.kind in ('opened', 'escalated') order by event.id desc limit 1)"""
_PAST_TITLE = f"""case source when 'budget' then title when 'anomaly' then concat_ws(' ', {_WAS}, nullif(title, {_WAS}))
    else coalesce({_WAS}, title) end as title"""
_PAST = ", ".join(_PAST_TITLE if field == "title" else field for field in AlertRow._fields)


def past_alerts(
    conn: Connection, project_id: int, wanted: Wanted = ALL, *, before: int | None = None, limit: int = 30
) -> list[AlertRow]:
    """Resolved ones as they were told, the last opened first; ``before``: an id, for the next page."""
    sql = f"""select {_PAST} from alert where {_WANTED} and state = 'resolved'
        and (%(before)s::bigint is null or (opened_at, id) < (
            select opened_at, id from alert where project_id = %(project_id)s and id = %(before)s))
        order by opened_at desc, id desc limit %(limit)s"""
    return _rows(run(conn, sql, _values(project_id, wanted, before=before, limit=limit)))


def one_alert(conn: Connection, project_id: int, alert_id: int) -> AlertRow | None:
    sql = f"select {_COLUMNS} from alert where project_id = %(project_id)s and id = %(alert_id)s"
    found = _rows(run(conn, sql, {"project_id": project_id, "alert_id": alert_id}))
    return found[0] if found else None


def events(conn: Connection, project_id: int, alert_id: int, *, limit: int = 200) -> list[Event]:
    """The timeline, newest first."""
    sql = """select at, kind, level, title, actor from alert_event
        where project_id = %(project_id)s and alert_id = %(alert_id)s order by id desc limit %(limit)s"""
    values = {"project_id": project_id, "alert_id": alert_id, "limit": limit}
    return [Event._make(row) for row in run(conn, sql, values)]


def deliveries(conn: Connection, project_id: int, alert_id: int, *, limit: int = 200) -> list[Delivery]:
    """What became of the messages, newest first."""
    sql = """
        select coalesce(channel.name, '(deleted channel)'), coalesce(event.kind, ''), note.state, note.reason,
               note.attempts, note.created_at, note.next_at, note.sent_at, note.last_error
        from notification note
        left join costapp_channel channel on channel.id = note.channel_id and channel.project_id = note.project_id
        left join alert_event event on event.project_id = note.project_id and event.id = note.event_id
        where note.project_id = %(project_id)s and note.alert_id = %(alert_id)s
        order by note.id desc limit %(limit)s"""
    values = {"project_id": project_id, "alert_id": alert_id, "limit": limit}
    return [Delivery._make(row) for row in run(conn, sql, values)]
