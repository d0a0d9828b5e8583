"""Open, change and resolve alerts. Producers (budgets, rules, guardrails, anomalies) call these and nothing else.

Each call belongs to a transaction of the caller, so that what fires and what will be sent commit together. Sending is
``services.deliver``.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from django.conf import settings

from costapp.core.alerts import Change, EventKind, Fact, Finding, Level, Open, Pace, Source, bounded_key, cut
from costapp.storage import alerts as store
from costapp.storage.alerts import AlertRef, Connection


def pace() -> Pace:
    return Pace(timedelta(seconds=settings.ALERT_GROUP_WAIT_S), timedelta(seconds=settings.ALERT_GROUP_INTERVAL_S))


def open_alerts(
    conn: Connection, findings: Sequence[Finding], channels: Mapping[str, Sequence[int]], now: datetime
) -> list[str]:
    """Open what is not known yet and queue its messages. ``channels``: key -> channel ids.

    Returns the keys that are new. Two workers that find the same open it once.
    """
    store.be_durable(conn)
    given = {bounded_key(finding.key): finding.key for finding in findings}
    bounded = [
        finding._replace(
            key=bounded_key(finding.key),
            group_key=bounded_key(finding.group_key),
            parent_key=bounded_key(finding.parent_key),
        )
        for finding in findings
    ]
    opened = store.insert_alerts(conn, bounded, {bounded_key(key): ids for key, ids in channels.items()}, now)
    _tell(conn, opened, EventKind.OPENED, now)
    return [given[alert.key] for alert in opened]


def change_levels(conn: Connection, changes: Sequence[Change], now: datetime) -> None:
    """New level, title and figures of open alerts. Only a change of level is an event that is told."""
    store.be_durable(conn)
    bounded = [change._replace(key=bounded_key(change.key)) for change in changes]
    moved = store.update_alerts(conn, bounded, now)
    _tell(conn, [alert for alert, by in moved if by > 0], EventKind.ESCALATED, now)
    _tell(conn, [alert for alert, by in moved if by < 0], EventKind.DEESCALATED, now)


def change_level(
    conn: Connection, project_id: int, key: str, level: Level, title: str, facts: Sequence[Fact], now: datetime
) -> None:
    change_levels(conn, [Change(project_id, key, level, title, tuple(facts))], now)


def remind(conn: Connection, project_id: int, keys: Sequence[str], now: datetime) -> None:
    """Tell again that these are still open; when it is time to is the producer's decision (``last_notified_at``)."""
    store.be_durable(conn)
    reminded = store.touch_reminded(conn, project_id, [bounded_key(key) for key in keys], now)
    _tell(conn, reminded, EventKind.REMINDED, now)


def resolve(
    conn: Connection,
    project_id: int,
    keys: Sequence[str],
    title_by_key: Mapping[str, str],
    now: datetime,
    tell: bool = True,
) -> None:
    """These are over. Told to the channels that had been told of them."""
    store.be_durable(conn)
    titles = {bounded_key(key): cut(title) for key, title in title_by_key.items()}
    resolved = store.resolve_alerts(conn, project_id, [bounded_key(key) for key in keys], titles, now)
    _tell(conn, resolved, EventKind.RESOLVED, now, send=tell)
    store.release_children(conn, project_id, [alert.key for alert in resolved], now)


def acknowledge(conn: Connection, project_id: int, alert_id: int, actor: str, now: datetime) -> bool:
    """Somebody looks after it: no more reminders until it gets worse. False: not open, or acknowledged before."""
    store.be_durable(conn)
    alerts = store.mark_acknowledged(conn, project_id, alert_id, actor, now)
    _tell(conn, alerts, EventKind.ACKNOWLEDGED, now, actor=actor, send=False)
    return bool(alerts)


def snooze(conn: Connection, project_id: int, alert_id: int, until: datetime, actor: str, now: datetime) -> bool:
    """No reminders until then, unless it gets worse. False: not open."""
    store.be_durable(conn)
    alerts = store.mark_snoozed(conn, project_id, alert_id, until, now)
    _tell(conn, alerts, EventKind.SNOOZED, now, actor=actor, send=False)
    return bool(alerts)


def note(conn: Connection, alerts: Sequence[AlertRef], title: str, now: datetime, *, kind: EventKind = EventKind.NOTE,
         actor: str = "", tell: bool = False) -> None:  # fmt: skip
    """A line in the timeline, for example that data came late."""
    store.be_durable(conn)
    _tell(conn, alerts, kind, now, actor=actor, title=cut(title), send=tell)


def open_of(conn: Connection, source: Source, project_ids: Sequence[int]) -> list[Open]:
    return store.open_of(conn, source, project_ids)


def _tell(
    conn: Connection,
    alerts: Sequence[AlertRef],
    kind: EventKind,
    now: datetime,
    *,
    actor: str = "",
    title: str | None = None,
    send: bool = True,
) -> None:
    """A line in the timeline of each alert and, unless it is only for the record, its messages."""
    if not alerts:
        return
    events = store.append_events(conn, alerts, kind, now, actor=actor, title=title)
    if send:
        store.queue_messages(conn, events, pace(), now)
