"""The outbox of messages: what is due, who sends it, what became of it.

A claim is committed before the sending begins, and says which rows are one message: whoever repeats it after a crash
sends the same message under the same key. A lease keeps others away while a worker sends.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from costapp.core.alerts import LEVELS
from costapp.storage.alerts import be_durable, loads, release_due, suppress

Connection = psycopg.Connection[Any]

#: First key of the advisory lock that lets one worker claim at a time. Claims take milliseconds.
_CLAIM_LOCK = 0xA1E27

_RANK = f"array_position(array[{', '.join(repr(str(level)) for level in LEVELS)}], {{}})"


class Limits(NamedTuple):
    """How fast and how long messages are sent."""

    lease: timedelta
    give_up: timedelta  # after being queued
    per_hour: int  # messages of one channel; beyond it they are put together
    interval: timedelta  # between two messages that put everything together
    channels: int  # claimed at once
    items: int  # alerts shown in one message


class Line(NamedTuple):
    """One alert in a claimed message, as its latest event in it says."""

    alert_id: int
    key: str
    event: str
    level: str
    title: str
    detail: dict[str, Any]
    subject: dict[str, str]
    source: str
    path: str
    period_start: datetime | None
    period_end: datetime | None
    complete_until: datetime | None


class Claimed(NamedTuple):
    """A message that this worker, and no other, may send now."""

    project_id: int
    channel_id: int
    message_id: int
    dedupe_key: str
    group_key: str
    attempts: int  # with this one
    queued_at: datetime
    body: dict[str, Any] | None  # of a report; else the lines say it
    alerts: int  # in all; ``lines`` are the most severe of them
    lines: list[Line]


_DUE_PROJECTS = """
select project_id from notification where state = 'pending' and next_at <= %(now)s
union select project_id from notification where state = 'suppressed' and next_at <= %(now)s
order by 1"""

_EXPIRE = """
update notification set state = 'failed', next_at = null, leased_until = null,
    reason = case when channel.id is null then 'The channel was deleted.'
                  when channel.disabled_reason <> '' or not channel.enabled then 'The channel was off for too long.'
                  else 'Given up after ' || waiting.attempts || ' attempts.' end
from notification waiting left join costapp_channel channel
    on channel.project_id = waiting.project_id and channel.id = waiting.channel_id
where notification.project_id = waiting.project_id and notification.id = waiting.id
  and waiting.project_id = any(%(project_ids)s) and waiting.state = 'pending'
  and (waiting.leased_until is null or waiting.leased_until <= %(now)s)
  and (channel.id is null or waiting.created_at <= %(now)s - %(give_up)s)"""

_WAITING = """
select project_id, id from notification
where project_id = any(%(project_ids)s) and state = 'pending' and message_id is null
order by next_at limit 20000"""

# One message per channel at a time. What was claimed before goes first: it is older.
# ``everything``: the channel has had its messages of this hour, so all that waits becomes one.
_LEADS = """
with busy as materialized (
    select distinct project_id, channel_id from notification
    where project_id = any(%(project_ids)s) and state = 'pending' and leased_until > %(now)s
),
due as (
    select distinct on (waiting.project_id, waiting.channel_id)
           waiting.project_id, waiting.channel_id, waiting.id, waiting.message_id, waiting.group_key, waiting.next_at,
           waiting.alert_id is null as alone
    from notification waiting
    join costapp_channel channel on channel.project_id = waiting.project_id and channel.id = waiting.channel_id
    where waiting.project_id = any(%(project_ids)s) and waiting.state = 'pending' and waiting.next_at <= %(now)s
      and channel.enabled and channel.disabled_reason = ''
      and not exists (
          select from busy where busy.project_id = waiting.project_id and busy.channel_id = waiting.channel_id)
    order by waiting.project_id, waiting.channel_id, waiting.message_id is null, waiting.next_at, waiting.id
)
select due.project_id, due.channel_id, due.id, due.message_id, due.group_key, due.alone,
       hour.messages >= %(per_hour)s, hour.last_at
from due cross join lateral (
    select count(distinct message_id) as messages, max(sent_at) as last_at from notification sent
    where sent.project_id = due.project_id and sent.channel_id = due.channel_id and sent.state = 'sent'
      and sent.sent_at > %(now)s - interval '1 hour') hour
order by due.next_at limit %(channels)s"""

_WAIT = """
update notification set next_at = greatest(next_at, %(until)s)
where project_id = %(project_id)s and channel_id = %(channel_id)s and state = 'pending' and message_id is null"""

_TAKE = """
update notification set message_id = coalesce(message_id, %(lead)s), leased_until = %(until)s, attempts = attempts + 1
where project_id = %(project_id)s and channel_id = %(channel_id)s and state = 'pending'
  and case when %(message_id)s::bigint is not null then message_id = %(message_id)s
           else id = %(lead)s or (not %(alone)s and message_id is null and alert_id is not null
                                  and (%(everything)s or group_key = %(group_key)s)) end"""

_MESSAGE = """
select channel_id, dedupe_key, group_key, attempts, created_at, body from notification
where project_id = %(project_id)s and id = %(message_id)s"""

_LINES = f"""
with latest as (
    select distinct on (note.alert_id) note.alert_id, event.kind, event.level, event.title, event.detail
    from notification note
    join alert_event event on event.project_id = note.project_id and event.id = note.event_id
    where note.project_id = %(project_id)s and note.message_id = %(message_id)s and note.state = 'pending'
    order by note.alert_id, event.id desc
)
select count(*) over (), latest.alert_id, alert.key, latest.kind, latest.level, latest.title, latest.detail,
       alert.subject, alert.source, alert.path, alert.period_start, alert.period_end, alert.complete_until
from latest join alert on alert.project_id = %(project_id)s and alert.id = latest.alert_id
order by {_RANK.format("latest.level")} desc, latest.alert_id limit %(items)s"""


def claim(conn: Connection, now: datetime, limits: Limits) -> list[Claimed]:
    """One message per channel that has one due, as far as no other worker sends to it. A transaction of its own."""
    with conn.transaction():
        be_durable(conn)
        conn.execute("select pg_advisory_xact_lock(%s)", (_CLAIM_LOCK,))
        project_ids = [project_id for (project_id,) in conn.execute(_DUE_PROJECTS, {"now": now})]
        if not project_ids:
            return []
        values = {"project_ids": project_ids, "now": now, **limits._asdict()}
        conn.execute(_EXPIRE, values)
        release_due(conn, project_ids, now)
        suppress(conn, conn.execute(_WAITING, values).fetchall(), now)
        leads = conn.execute(_LEADS, values).fetchall()
        taken = [found for lead in leads if (found := _take(conn, lead, now, limits)) is not None]
        return [_read(conn, project_id, message_id, limits.items) for project_id, message_id in taken]


def _take(conn: Connection, lead: tuple[Any, ...], now: datetime, limits: Limits) -> tuple[int, int] | None:
    project_id, channel_id, lead_id, message_id, group_key, alone, everything, last_at = lead
    where = {"project_id": project_id, "channel_id": channel_id}
    if everything and message_id is None and last_at + limits.interval > now:
        conn.execute(_WAIT, {**where, "until": last_at + limits.interval})
        return None
    conn.execute(_TAKE, {
        **where, "lead": lead_id, "message_id": message_id, "group_key": group_key, "alone": alone,
        "everything": everything, "until": now + limits.lease,
    })  # fmt: skip
    return project_id, message_id if message_id is not None else lead_id


def _read(conn: Connection, project_id: int, message_id: int, items: int) -> Claimed:
    values = {"project_id": project_id, "message_id": message_id, "items": items}
    row = conn.execute(_MESSAGE, values).fetchone()
    assert row is not None
    channel_id, dedupe_key, group_key, attempts, created_at, body = row
    found = conn.execute(_LINES.encode(), values).fetchall()
    lines = [Line._make((*line[1:6], loads(line[6]), loads(line[7]), *line[8:])) for line in found]
    count = found[0][0] if found else 0
    return Claimed(project_id, channel_id, message_id, dedupe_key, group_key, attempts, created_at, loads(body), count,
                   lines)  # fmt: skip


# --- what became of it

_SENT = """
update notification set state = 'sent', sent_at = %(now)s, leased_until = null, next_at = null, last_error = '',
                        answer = %(words)s
where project_id = %(project_id)s and message_id = %(message_id)s and state = 'pending'"""
_FAILED = """
update notification set state = 'failed', leased_until = null, next_at = null, reason = %(words)s,
                        last_error = %(words)s
where project_id = %(project_id)s and message_id = %(message_id)s and state = 'pending'"""
_AGAIN = """
update notification set leased_until = null, next_at = %(until)s, last_error = %(words)s
where project_id = %(project_id)s and message_id = %(message_id)s and state = 'pending'"""
_REST_WAITS = """
update notification set next_at = greatest(next_at, %(until)s)
where project_id = %(project_id)s and channel_id = %(channel_id)s and state = 'pending'"""
_SWITCH_OFF = """
update costapp_channel set disabled_reason = %(words)s, disabled_at = %(now)s
where project_id = %(project_id)s and id = %(channel_id)s and disabled_reason = ''
returning name"""
_OTHERS = """
select id from costapp_channel
where project_id = %(project_id)s and id <> %(channel_id)s and enabled and disabled_reason = '' order by id"""


def mark_sent(conn: Connection, message: Claimed, words: str, now: datetime, pace: timedelta) -> None:
    """``pace``: the next message of this channel not before."""
    values = {**_place(message), "words": words, "now": now}
    conn.execute(_SENT, values)
    if pace:
        conn.execute(_REST_WAITS, {**values, "until": now + pace})


def mark_failed(conn: Connection, message: Claimed, words: str) -> None:
    conn.execute(_FAILED, {**_place(message), "words": words})


def mark_again(conn: Connection, message: Claimed, words: str, until: datetime) -> None:
    """The whole channel waits with it: it is the receiver that has trouble."""
    values = {**_place(message), "words": words, "until": until}
    conn.execute(_AGAIN, values)
    conn.execute(_REST_WAITS, values)


def switch_off(conn: Connection, message: Claimed, words: str, now: datetime) -> str | None:
    """The channel's name, when it was on until now. Its messages wait for whoever repairs it."""
    values = {**_place(message), "words": words[:300], "now": now, "until": now}
    conn.execute(_AGAIN, values)
    row = conn.execute(_SWITCH_OFF, values).fetchone()
    return row[0] if row else None


def other_channels(conn: Connection, project_id: int, channel_id: int) -> list[int]:
    values = {"project_id": project_id, "channel_id": channel_id}
    return [found for (found,) in conn.execute(_OTHERS, values)]


def _place(message: Claimed) -> dict[str, Any]:
    return {
        "project_id": message.project_id, "channel_id": message.channel_id, "message_id": message.message_id,
    }  # fmt: skip


_WAKE = """
update notification set next_at = %(now)s
where project_id = %(project_id)s and channel_id = %(channel_id)s and state = 'pending' and next_at > %(now)s"""


def wake(conn: Connection, project_id: int, channel_id: int, now: datetime) -> None:
    """The channel was repaired: what waits goes now."""
    conn.execute(_WAKE, {"project_id": project_id, "channel_id": channel_id, "now": now})


_RECHECK = """
update notification set next_at = %(now)s
where project_id = %(project_id)s and state = 'suppressed' and held_by = 'silence' and next_at > %(now)s"""


def recheck_silenced(conn: Connection, project_id: int, now: datetime) -> None:
    """Silences changed: what they hold back is looked at again."""
    conn.execute(_RECHECK, {"project_id": project_id, "now": now})


# --- reports

_REPORT = """
insert into notification (project_id, channel_id, dedupe_key, group_key, body, state, created_at, next_at)
values (%(project_id)s, %(channel_id)s, %(key)s, %(key)s, %(body)s, 'pending', %(now)s, %(now)s)
on conflict (project_id, channel_id, dedupe_key) do nothing"""
_KNOWN = """
select from notification
where project_id = %(project_id)s and channel_id = %(channel_id)s and dedupe_key = %(key)s"""


def queue_report(
    conn: Connection, project_id: int, channel_id: int, key: str, body: dict[str, Any], now: datetime
) -> bool:
    """False: that report was queued before."""
    values = {"project_id": project_id, "channel_id": channel_id, "key": key, "body": Jsonb(body), "now": now}
    return conn.execute(_REPORT, values).rowcount == 1


_TEST = """
insert into notification (project_id, channel_id, dedupe_key, group_key, state, reason, last_error, answer, attempts,
                          created_at, sent_at)
values (%(project_id)s, %(channel_id)s, %(key)s, 'test', %(state)s, %(error)s, %(error)s, %(answer)s, 1, %(now)s,
        case when %(state)s = 'sent' then %(now)s::timestamptz end)
on conflict (project_id, channel_id, dedupe_key) do nothing"""


def log_test(
    conn: Connection, project_id: int, channel_id: int, key: str, state: str, words: str, now: datetime
) -> None:
    """A test message in the delivery log. It was sent before, or was not."""
    error, answer = ("", words) if state == "sent" else (words, "")
    conn.execute(_TEST, {
        "project_id": project_id, "channel_id": channel_id, "key": key, "state": state, "error": error,
        "answer": answer, "now": now,
    })  # fmt: skip


def is_queued(conn: Connection, project_id: int, channel_id: int, key: str) -> bool:
    values = {"project_id": project_id, "channel_id": channel_id, "key": key}
    return conn.execute(_KNOWN, values).fetchone() is not None


# --- reading, pruning


class ChannelState(NamedTuple):
    """What the owner must know about a channel."""

    channel_id: int
    name: str
    disabled_reason: str
    disabled_at: datetime | None
    waiting: int  # messages that should have gone
    waiting_since: datetime | None
    last_error: str
    failed: int  # in the last day

    @property
    def works(self) -> bool:
        return not (self.disabled_reason or self.waiting or self.failed)


_TROUBLE = """
select channel.id, channel.name, channel.disabled_reason, channel.disabled_at,
       count(note.id) filter (where note.state = 'pending'),
       min(note.created_at) filter (where note.state = 'pending'),
       coalesce((array_agg(note.last_error order by note.id desc) filter (where note.last_error <> ''))[1], ''),
       count(note.id) filter (where note.state = 'failed')
from costapp_channel channel left join notification note
    on note.project_id = channel.project_id and note.channel_id = channel.id
    and note.created_at > %(now)s - interval '1 day' and note.state in ('pending', 'failed')
    and (note.state = 'failed' or note.attempts > 0 or channel.disabled_reason <> '')
where channel.project_id = %(project_id)s and channel.enabled
group by channel.id order by channel.name"""


def channel_states(conn: Connection, project_id: int, now: datetime) -> list[ChannelState]:
    """Of every channel that is not off by hand: messages that wait after a failed attempt, or were given up."""
    rows = conn.execute(_TROUBLE, {"project_id": project_id, "now": now}).fetchall()
    return [ChannelState._make(row) for row in rows]


class Sending(NamedTuple):
    """One line of the delivery log."""

    at: datetime
    channel: str  # "" = it was deleted
    state: str
    what: str  # the event's title, or the report's heading
    kind: str  # of the event; "" of reports and tests
    alert_id: int | None
    attempts: int
    words: str  # why, or what was answered


_RECENT = """
select note.created_at, coalesce(channel.name, ''), note.state,
       coalesce(event.title, note.body ->> 'heading', 'Test message'), coalesce(event.kind, ''), note.alert_id,
       note.attempts, coalesce(nullif(note.reason, ''), nullif(note.last_error, ''), note.answer)
from notification note
left join alert_event event on event.project_id = note.project_id and event.id = note.event_id
left join costapp_channel channel on channel.project_id = note.project_id and channel.id = note.channel_id
where note.project_id = %(project_id)s order by note.created_at desc, note.id desc limit %(limit)s"""


def recent(conn: Connection, project_id: int, *, limit: int) -> list[Sending]:
    """The newest messages of a project, whatever became of them."""
    rows = conn.execute(_RECENT, {"project_id": project_id, "limit": limit}).fetchall()
    return [Sending._make(row) for row in rows]


_PRUNE = (
    "delete from notification where created_at < %(before)s and state <> 'pending'",
    "delete from alert_event where (project_id, alert_id) in"
    " (select project_id, id from alert where state = 'resolved' and resolved_at < %(before)s)",
    "delete from alert where state = 'resolved' and resolved_at < %(before)s",
)


def prune(conn: Connection, before: datetime) -> None:
    """Delete what ended before that time."""
    with conn.transaction():
        for statement in _PRUNE:
            conn.execute(statement, {"before": before})


# --- heartbeats

_BEAT = """
insert into heartbeat (name, at, interval_s) values (%(name)s, %(now)s, %(interval_s)s)
on conflict (name) do update set at = excluded.at, interval_s = excluded.interval_s"""
_STOPPED = """
select name, at, interval_s from heartbeat
where at + 2 * interval_s * interval '1 second' < %(now)s order by name"""


class Heartbeat(NamedTuple):
    name: str
    at: datetime
    interval_s: int


def beat(conn: Connection, name: str, now: datetime, interval_s: int) -> None:
    conn.execute(_BEAT, {"name": name, "now": now, "interval_s": interval_s})


def stopped(conn: Connection, now: datetime) -> list[Heartbeat]:
    """Evaluations that missed two of their intervals."""
    return [Heartbeat._make(row) for row in conn.execute(_STOPPED, {"now": now})]


def projects_with_channels(conn: Connection) -> dict[int, list[int]]:
    """project -> channels that are on."""
    found: dict[int, list[int]] = {}
    sql = "select project_id, id from costapp_channel where enabled and disabled_reason = '' order by 1, 2"
    for project_id, channel_id in conn.execute(sql):
        found.setdefault(project_id, []).append(channel_id)
    return found
