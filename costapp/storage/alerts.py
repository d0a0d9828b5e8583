"""Alerts, their timelines and the messages about them. Every function is part of the caller's transaction.

Set-based: a thousand findings are a handful of statements. Rows are written in key order, so that two workers that
find the same things at once wait for each other instead of deadlocking.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import psycopg
from psycopg.types.json import Jsonb

from costapp.core.alerts import FACTS, IMMEDIATE, LEVELS, Change, EventKind, Fact, Finding, Level, Open, Pace, cut

Connection = psycopg.Connection[Any]

_RANK = f"array_position(array[{', '.join(repr(str(level)) for level in LEVELS)}], {{}})"


class AlertRef(NamedTuple):
    """An alert as the data plane names it."""

    project_id: int
    alert_id: int
    key: str


class EventRef(NamedTuple):
    """A line of a timeline."""

    project_id: int
    event_id: int


def be_durable(conn: Connection) -> None:
    """Alerts must survive a crash of the server, unlike what jobs write else. Refuses to run outside a transaction."""
    if conn.autocommit and conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        raise RuntimeError("Alerts and their messages change in one transaction: open one around this call.")
    conn.execute("set local synchronous_commit to on")


def detail(facts: Iterable[Fact], driver: str = "") -> dict[str, Any]:
    """What a message shows beside its title."""
    shown = [[cut(fact.label, 60), cut(fact.text, 300)] for fact in facts][:FACTS]
    return {"facts": shown, "driver": cut(driver)}


def loads(value: Any) -> Any:
    """jsonb as Python values, also on Django's connections, which hand it out as text."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value


# --- opening

_OPEN = """
insert into alert (project_id, key, source, source_id, subject, level, state, title, detail, path, group_key,
                   parent_key, channel_ids, opened_at, changed_at, period_start, period_end, complete_until,
                   last_notified_at)
select project_id, key, source, source_id, subject, level, 'open', title, detail, path, group_key, parent_key,
       channel_ids, %(now)s, %(now)s, period_start, period_end, complete_until, %(now)s
from jsonb_to_recordset(%(findings)s) as finding (
    project_id int, key text, source text, source_id bigint, subject jsonb, level text, title text, detail jsonb,
    path text, group_key text, parent_key text, channel_ids bigint[], period_start timestamptz,
    period_end timestamptz, complete_until timestamptz)
order by project_id, key
on conflict (project_id, key) do nothing
returning project_id, id, key"""


def insert_alerts(
    conn: Connection, findings: Sequence[Finding], channels: Mapping[str, Sequence[int]], now: datetime
) -> list[AlertRef]:
    """Those that did not exist yet. A key that was ever used is never opened again."""
    rows = [_row(finding, channels.get(finding.key, ())) for finding in findings]
    found = conn.execute(_OPEN, {"findings": Jsonb(rows), "now": now}).fetchall() if rows else []
    return [AlertRef._make(row) for row in found]


def _row(finding: Finding, channel_ids: Sequence[int]) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(finding, name) for name in _COPIED}
    row |= {"source": str(finding.source), "level": str(finding.level), "title": cut(finding.title)}
    row |= {"subject": dict(finding.subject), "detail": detail(finding.facts, finding.driver)}
    row |= {name: _iso(getattr(finding, name)) for name in ("period_start", "period_end", "complete_until")}
    return row | {"channel_ids": sorted(set(channel_ids))}


_COPIED = ("project_id", "key", "source_id", "path", "group_key", "parent_key")


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


# --- changing

# The rows are locked in key order before they are changed.
_CHANGE = f"""
with given as (
    select * from jsonb_to_recordset(%(changes)s) as change (
        project_id int, key text, level text, title text, facts jsonb)
),
before as (
    select alert.project_id, alert.id, alert.level as old_level, given.level, given.title, given.facts
    from alert join given using (project_id, key) where alert.state = 'open'
    order by alert.project_id, alert.key for update of alert
)
update alert set
    level = before.level, title = before.title, changed_at = %(now)s,
    detail = alert.detail || jsonb_build_object('facts', before.facts),
    acknowledged_at = case when {_RANK.format("before.level")} > {_RANK.format("old_level")} then null
                           else acknowledged_at end,
    acknowledged_by = case when {_RANK.format("before.level")} > {_RANK.format("old_level")} then null
                           else acknowledged_by end,
    snoozed_until = case when {_RANK.format("before.level")} > {_RANK.format("old_level")} then null
                         else snoozed_until end,
    last_notified_at = case when before.level <> old_level then %(now)s else last_notified_at end
from before where alert.project_id = before.project_id and alert.id = before.id
returning alert.project_id, alert.id, alert.key, {_RANK.format("before.level")} - {_RANK.format("old_level")}"""


def update_alerts(conn: Connection, changes: Sequence[Change], now: datetime) -> list[tuple[AlertRef, int]]:
    """New level, title and figures of open alerts, and by how many levels each rose. A rise ends acknowledgement."""
    rows = [
        {"project_id": c.project_id, "key": c.key, "level": str(c.level), "title": cut(c.title),
         "facts": detail(c.facts)["facts"]}
        for c in changes
    ]  # fmt: skip
    found = conn.execute(_CHANGE.encode(), {"changes": Jsonb(rows), "now": now}).fetchall() if rows else []
    return [(AlertRef(*row[:3]), row[3]) for row in found]


_RESOLVE = """
with before as (
    select project_id, id from alert where project_id = %(project_id)s and key = any(%(keys)s) and state = 'open'
    order by key for update
)
update alert set state = 'resolved', resolved_at = %(now)s, changed_at = %(now)s,
                 title = coalesce(%(titles)s::jsonb ->> alert.key, alert.title)
from before where alert.project_id = before.project_id and alert.id = before.id
returning alert.project_id, alert.id, alert.key"""


def resolve_alerts(
    conn: Connection, project_id: int, keys: Sequence[str], titles: Mapping[str, str], now: datetime
) -> list[AlertRef]:
    values = {"project_id": project_id, "keys": list(keys), "titles": Jsonb(dict(titles)), "now": now}
    return [AlertRef._make(row) for row in conn.execute(_RESOLVE, values)]


_REMIND = """
with before as (
    select project_id, id from alert where project_id = %(project_id)s and key = any(%(keys)s) and state = 'open'
    order by key for update
)
update alert set last_notified_at = %(now)s
from before where alert.project_id = before.project_id and alert.id = before.id
returning alert.project_id, alert.id, alert.key"""


def touch_reminded(conn: Connection, project_id: int, keys: Sequence[str], now: datetime) -> list[AlertRef]:
    values = {"project_id": project_id, "keys": list(keys), "now": now}
    return [AlertRef._make(row) for row in conn.execute(_REMIND, values)]


_ACKNOWLEDGE = """
update alert set acknowledged_at = %(now)s, acknowledged_by = %(actor)s, changed_at = %(now)s
where project_id = %(project_id)s and id = %(id)s and state = 'open' and acknowledged_at is null
returning project_id, id, key"""
_SNOOZE = """
update alert set snoozed_until = %(until)s, changed_at = %(now)s
where project_id = %(project_id)s and id = %(id)s and state = 'open'
returning project_id, id, key"""


def mark_acknowledged(conn: Connection, project_id: int, alert_id: int, actor: str, now: datetime) -> list[AlertRef]:
    values = {"project_id": project_id, "id": alert_id, "actor": actor, "now": now}
    return [AlertRef._make(row) for row in conn.execute(_ACKNOWLEDGE, values)]


def mark_snoozed(conn: Connection, project_id: int, alert_id: int, until: datetime, now: datetime) -> list[AlertRef]:
    values = {"project_id": project_id, "id": alert_id, "until": until, "now": now}
    return [AlertRef._make(row) for row in conn.execute(_SNOOZE, values)]


# --- timeline and outbox

_EVENT = """
insert into alert_event (project_id, alert_id, at, kind, level, title, detail, actor)
select project_id, id, %(now)s, %(kind)s, level, coalesce(%(title)s, title), detail, %(actor)s
from alert join unnest(%(project_ids)s::int[], %(alert_ids)s::bigint[]) as given (project_id, id) using (project_id, id)
order by project_id, id
returning project_id, id"""

# A message waits for others of its group, and for the last message of its group to have settled. News that is worse
# does not wait. What was never told is not told to be over.
_NOTIFY = f"""
insert into notification (project_id, channel_id, dedupe_key, group_key, alert_id, event_id, state, created_at, next_at)
select alert.project_id, channel.id,
       alert.key || '#' || event.kind || case when event.kind = 'opened' then '' else '#' || event.id end,
       alert.group_key, alert.id, event.id, 'pending', %(now)s,
       case when alert.source = any(%(immediate)s) or event.kind = 'escalated' then %(now)s
            else greatest(%(now)s + %(wait)s, %(interval)s + (
                select max(sent_at) from notification sent
                where sent.project_id = alert.project_id and sent.channel_id = channel.id and sent.state = 'sent'
                  and sent.group_key = alert.group_key and sent.sent_at > %(now)s - %(interval)s)) end
from alert_event event
join unnest(%(project_ids)s::int[], %(event_ids)s::bigint[]) as given (project_id, id)
    on given.project_id = event.project_id and given.id = event.id
join alert on alert.project_id = event.project_id and alert.id = event.alert_id
join costapp_channel channel on channel.project_id = alert.project_id and channel.id = any(alert.channel_ids)
where case when event.kind in ('resolved', 'deescalated') then exists (
               select from notification told
               where told.project_id = alert.project_id and told.alert_id = alert.id
                 and told.channel_id = channel.id and told.state in ('pending', 'sent'))
           else {_RANK.format("event.level")} >= {_RANK.format("channel.least_level")} end
order by alert.project_id, alert.id, channel.id
on conflict (project_id, channel_id, dedupe_key) do nothing
returning project_id, id"""


def append_events(
    conn: Connection,
    alerts: Sequence[AlertRef],
    kind: EventKind,
    now: datetime,
    *,
    actor: str = "",
    title: str | None = None,
) -> list[EventRef]:
    """One line of the timeline per alert, with its title and figures of this moment (or ``title``)."""
    values = {
        "project_ids": [alert.project_id for alert in alerts], "alert_ids": [alert.alert_id for alert in alerts],
        "kind": str(kind), "now": now, "actor": actor, "title": title,
    }  # fmt: skip
    return [EventRef._make(row) for row in conn.execute(_EVENT, values)]


def queue_messages(conn: Connection, events: Sequence[EventRef], pace: Pace, now: datetime) -> None:
    """Outbox rows for these events, one per channel; what is silenced is written down as such."""
    values = {
        "project_ids": [event.project_id for event in events], "event_ids": [event.event_id for event in events],
        "immediate": [str(source) for source in IMMEDIATE], "wait": pace.group_wait, "interval": pace.group_interval,
        "now": now,
    }  # fmt: skip
    suppress(conn, conn.execute(_NOTIFY.encode(), values).fetchall(), now)


# What holds a message back is looked at when it is queued and again before it is sent. Each row is looked up by its
# whole key (offset 0 keeps the subqueries apart): in a storm the database's statistics are those of the calm before,
# and a join would run through all alerts of the project for each.
_SUPPRESS = f"""
with held as materialized (
    select waiting.project_id, waiting.id, quiet.ends_at as until,
           case when quiet.reason is not null then 'silence' when parent.key is not null then 'parent'
                else 'snooze' end as held_by,
           case when quiet.reason is not null then
                    'Silenced until ' || to_char(quiet.ends_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC: '
                    || quiet.reason
                when parent.key is not null then 'Said already by: ' || parent.title
                when alert.acknowledged_at is not null then 'Acknowledged by ' || alert.acknowledged_by
                else 'Snoozed until ' || to_char(alert.snoozed_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC'
           end as reason
    from unnest(%(project_ids)s::int[], %(ids)s::bigint[]) as given (project_id, id)
    cross join lateral (
        select * from notification where project_id = given.project_id and id = given.id offset 0) waiting
    cross join lateral (
        select * from alert where project_id = waiting.project_id and id = waiting.alert_id offset 0) alert
    cross join lateral (
        select * from alert_event where project_id = waiting.project_id and id = waiting.event_id offset 0) event
    left join lateral (
        select silence.reason, silence.ends_at from costapp_silence silence
        where silence.project_id = alert.project_id and silence.starts_at <= %(now)s and silence.ends_at > %(now)s
          and (silence.source = '' or silence.source = alert.source)
          and (silence.source_id is null or silence.source_id = alert.source_id)
          and (silence.level = '' or {_RANK.format("alert.level")} <= {_RANK.format("silence.level")})
          and (silence.group_key = '' or silence.group_key = alert.group_key)
          and alert.subject @> silence.subject
        order by silence.ends_at desc limit 1) quiet on true
    left join lateral (
        select key, title from alert parent
        where parent.project_id = alert.project_id and parent.key = alert.parent_key and alert.parent_key <> ''
          and parent.state = 'open' and waiting.channel_id = any(parent.channel_ids)
          and {_RANK.format("parent.level")} >= {_RANK.format("alert.level")} and event.kind <> 'resolved'
        limit 1) parent on true
    where waiting.state = 'pending' and waiting.message_id is null
      and (quiet.reason is not null or parent.key is not null
           or (event.kind in ('reminded', 'deescalated')
               and (alert.acknowledged_at is not null or alert.snoozed_until > %(now)s)))
)
update notification set state = 'suppressed', reason = held.reason, held_by = held.held_by, next_at = held.until
from held where notification.project_id = held.project_id and notification.id = held.id"""


def suppress(conn: Connection, rows: Sequence[tuple[int, int]], now: datetime) -> int:
    """Hold back those of these outbox rows (project, id) that a silence, a firing parent, a snooze or an
    acknowledgement covers. Returns how many.
    """
    values = {"project_ids": [row[0] for row in rows], "ids": [row[1] for row in rows], "now": now}
    return conn.execute(_SUPPRESS.encode(), values).rowcount if rows else 0


# When a silence ends, what still matters is told: an alert that is still open and nobody has seen, and the end of
# one that had been told.
_RELEASE = """
update notification set
    state = case when again.tell then 'pending' else 'suppressed' end,
    next_at = case when again.tell then %(now)s::timestamptz end,
    created_at = case when again.tell then %(now)s else created_at end,
    held_by = case when again.tell then '' else held_by end, reason = case when again.tell then '' else reason end
from (
    select held.project_id, held.id,
           (alert.state = 'open' and event.kind in ('opened', 'escalated') and alert.acknowledged_at is null)
           or (event.kind = 'resolved' and exists (
               select from notification told where told.project_id = held.project_id and told.state = 'sent'
                 and told.alert_id = held.alert_id and told.channel_id = held.channel_id)) as tell
    from notification held
    join alert on alert.project_id = held.project_id and alert.id = held.alert_id
    join alert_event event on event.project_id = held.project_id and event.id = held.event_id
    where held.state = 'suppressed' and {which}
    order by held.project_id, held.id for update of held
) again
where notification.project_id = again.project_id and notification.id = again.id"""
_RELEASE_DUE = _RELEASE.format(which="held.project_id = any(%(project_ids)s) and held.next_at <= %(now)s")
_RELEASE_CHILDREN = _RELEASE.format(
    which="held.held_by = 'parent' and held.project_id = %(project_id)s and alert.parent_key = any(%(keys)s)"
)


def release_due(conn: Connection, project_ids: Sequence[int], now: datetime) -> int:
    """Queue again what an ended silence held back, as far as it still matters. Returns how many were looked at."""
    return conn.execute(_RELEASE_DUE.encode(), {"project_ids": list(project_ids), "now": now}).rowcount


def release_children(conn: Connection, project_id: int, parent_keys: Sequence[str], now: datetime) -> int:
    """Their parent is over: children that still fire speak for themselves."""
    values = {"project_id": project_id, "keys": list(parent_keys), "now": now}
    return conn.execute(_RELEASE_CHILDREN.encode(), values).rowcount


# --- reading

_OPEN_OF = """
select project_id, id, key, source_id, subject, level, opened_at, period_end, last_notified_at, acknowledged_at,
       snoozed_until
from alert where project_id = any(%(project_ids)s) and source = %(source)s and state = 'open'
order by project_id, id"""


def open_of(conn: Connection, source: str, project_ids: Sequence[int]) -> list[Open]:
    """The open alerts of one kind of producer."""
    rows = conn.execute(_OPEN_OF, {"source": source, "project_ids": list(project_ids)}).fetchall()
    return [Open._make((*row[:4], loads(row[4]), Level(row[5]), *row[6:])) for row in rows]


_TITLES = f"""
select count(*) over (), level, title from alert where project_id = %(project_id)s and state = 'open'
order by {_RANK.format("level")} desc, opened_at desc, id desc limit %(limit)s"""


def open_titles(conn: Connection, project_id: int, *, limit: int) -> tuple[int, list[tuple[str, str]]]:
    """How many alerts are open, and level and title of the most severe."""
    rows = conn.execute(_TITLES.encode(), {"project_id": project_id, "limit": limit}).fetchall()
    return (rows[0][0] if rows else 0), [(row[1], row[2]) for row in rows]
