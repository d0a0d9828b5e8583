"""Guardrails on disk: marks of who has just called, sums over sliding windows, and incidents.

Marks are written in the transaction that writes the charges and only for projects that have a guardrail, so a
crossing is never missed and the others pay one look-up per batch. Sums are always taken from charges.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from costapp.core.guardrails import AHEAD, Action, Crossing, Guardrail, Incident, Metric, Per
from costapp.storage import locks
from costapp.storage.arrays import uuids

Connection = psycopg.Connection[Any]

_GUARD_LOCK = 0x6A4D

# -- marks ---------------------------------------------------------------------------------------------------------

_WATCHED = "select distinct per from costapp_guardrail where project_id = %s and enabled"
_MARK = "insert into guard_mark (project_id, per, subject) select %s, %s, unnest(%s::text[])"


def watched(conn: Connection, project_id: int) -> frozenset[Per]:
    """Whose calls this project's guardrails add up; empty for a project without any."""
    return frozenset(Per(per) for (per,) in conn.execute(_WATCHED, (project_id,)))


def mark(conn: Connection, project_id: int, *, subjects: Mapping[Per, Iterable[str]]) -> None:
    """Note whose calls have changed. In the transaction of the change."""
    for per in sorted(subjects):
        named = sorted(set(subjects[per]) - {""})
        if named:
            conn.execute(_MARK, (project_id, per, named))


RULE_LIMIT = "(case rule.metric when 'cost' then rule.limit_value * 1000000000 else rule.limit_value end)::bigint"
# Switched off, gone, or with a limit that was raised beyond what was reached: its incidents end at once.
_STILL_CROSSED = f"""exists (
    select 1 from costapp_guardrail rule
    where rule.id = state.guardrail_id and rule.enabled and state.value >= {RULE_LIMIT})"""
_WAITING = f"""
select project_id from guard_mark
union select project_id from guard_state where is_open and until <= %(now)s
union select project_id from guard_state state where is_open and not {_STILL_CROSSED}
"""
_CLAIM = """
with past as (select id from guard_mark where project_id = %(project_id)s order by id offset %(limit)s limit 1),
taken as (
    delete from guard_mark where project_id = %(project_id)s
    and id < coalesce((select id from past), 9223372036854775807) returning per, subject
)
select distinct per, subject from taken order by per, subject
"""


def waiting_projects(conn: Connection, now: datetime) -> list[int]:
    """Projects with marks, or with an incident that has held long enough or that its guardrail no longer sees."""
    return sorted(project_id for (project_id,) in conn.execute(_WAITING, {"now": now}))


def try_lock_project(conn: Connection, project_id: int) -> bool:
    """Become the only one to look at this project's guardrails until the transaction ends."""
    return locks.try_lock(conn, _GUARD_LOCK, project_id)


def wait_for_project(conn: Connection, project_id: int) -> None:
    """As ``try_lock_project``, when whoever judges now is done."""
    locks.lock(conn, _GUARD_LOCK, project_id)


def claim(conn: Connection, project_id: int, *, limit: int) -> dict[Per, list[str]]:
    """Delete the oldest ``limit`` marks and return whom they name."""
    found: dict[Per, list[str]] = {}
    for per, subject in conn.execute(_CLAIM, {"project_id": project_id, "limit": limit}):
        found.setdefault(Per(per), []).append(subject)
    return found


_ACTING = "select guardrail_id, count(*)::int from guard_state where project_id = any(%s) and is_open group by 1"


def acting(conn: Connection, project_ids: Sequence[int]) -> dict[int, int]:
    """How many sessions, traces or users each guardrail warns or blocks now."""
    return dict(conn.execute(_ACTING, (list(project_ids),)).fetchall())


# -- guardrails as configured --------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """A guardrail with what its alert needs."""

    guardrail: Guardrail
    level: str
    slug: str  #: of the project
    time_zone: str  #: of the project
    channels: tuple[int, ...]


#: What ``guardrail_of`` reads, of a costapp_guardrail called rule.
RULE_COLUMNS = f"""
    rule.id, rule.project_id, rule.name, rule.per, rule.metric, {RULE_LIMIT},
    rule.minutes, coalesce(rule.hold_minutes, rule.minutes), rule.action, rule.feature, rule.environment
"""
_RULES = f"""
select rule.level, project.slug, project.time_zone,
       array(select channel_id from costapp_guardrail_channels chosen where chosen.guardrail_id = rule.id order by 1),
       {RULE_COLUMNS}
from costapp_guardrail rule join costapp_project project on project.id = rule.project_id
where rule.project_id = %s and rule.enabled order by rule.id
"""


def rules(conn: Connection, project_id: int) -> list[Rule]:
    """The project's guardrails that are switched on."""
    return [
        Rule(guardrail_of(fields), level, slug, time_zone, tuple(channel_ids))
        for level, slug, time_zone, channel_ids, *fields in conn.execute(_RULES, (project_id,))
    ]


def guardrail_of(fields: Sequence[Any]) -> Guardrail:
    number, project_id, name, per, metric, limit, minutes, hold, action, feature, environment = fields
    return Guardrail(
        number, project_id, name, Per(per), Metric(metric), limit, minutes, hold, Action(action), feature, environment
    )


# -- sums over sliding windows -------------------------------------------------------------------------------------

_TOKENS = (
    "(input_tokens::bigint + output_tokens + coalesce(cache_read_tokens, 0) + coalesce(cache_write_5m_tokens, 0)"
    " + coalesce(cache_write_1h_tokens, 0) + coalesce(reasoning_tokens, 0) + coalesce(audio_in_tokens, 0)"
    " + coalesce(audio_out_tokens, 0) + coalesce(image_in_tokens, 0) + coalesce(image_out_tokens, 0))"
)
_VALUES = {Metric.COST: "coalesce(cost_nano, 0)", Metric.CALLS: "1::bigint", Metric.TOKENS: _TOKENS}
# A session or trace is a few calls, found by its index. A user may be a whole service: its calls of the day are too
# many to look at, those of everybody in the last minutes are not, and the index on cells finds them.
_SUBJECTS = {
    Per.SESSION: ("session_id", "session_id = any(%(subjects)s) and session_id <> ''"),
    Per.USER: (
        "user_id",
        "user_id = any(%(subjects)s) and user_id <> '' and date_bin('5 minutes', start_at, 'epoch')"
        " between date_bin('5 minutes', %(from_at)s::timestamptz, 'epoch') and %(to_at)s",
    ),
    Per.TRACE: ("encode(uuid_send(trace_id), 'hex')", "trace_id = any(%(subjects)s)"),
}
_CALLS = """
from charge_full where project_id = %(project_id)s and day between %(first_day)s and %(last_day)s and {whose}
and start_at > %(from_at)s and start_at <= %(to_at)s{filters}
"""
# All values are at least 0, so the sum over the whole reach is an upper bound of every window in it: nearly all
# subjects leave here, without being sorted by time.
_LIKELY = "select {subject} {calls} group by 1 having sum({value}) >= %(limit)s order by 1"
_SLIDING = """
select subject, coalesce(min(start_at) filter (where start_at > known.crossed_to or known.crossed_to is null),
                         max(start_at)), max(start_at), max(total)::bigint
from (
    select {subject} as subject, start_at,
           sum({value}) over (partition by {subject} order by start_at
                              range between %(window)s preceding and current row) as total
    {calls}
) sliding
left join (select subject, crossed_to from guard_state
           where project_id = %(project_id)s and guardrail_id = %(guardrail_id)s) known using (subject)
where total >= %(limit)s and start_at > %(counts_from)s group by subject order by subject
"""


def crossings(conn: Connection, guardrail: Guardrail, *, subjects: Sequence[str], now: datetime) -> list[Crossing]:
    """Which of the subjects reached the limit within the guardrail's minutes, by the event times of their calls."""
    parameters = _parameters(guardrail, subjects, now)
    likely = [subject for (subject,) in conn.execute(_statement(_LIKELY, guardrail), parameters)]
    if not likely:
        return []
    rows = conn.execute(_statement(_SLIDING, guardrail), parameters | {"subjects": _values(guardrail.per, likely)})
    return [Crossing._make(row) for row in rows]


def _statement(template: str, guardrail: Guardrail) -> sql.SQL:
    """A statement whose variable parts are constants of this module."""
    subject, whose = _SUBJECTS[guardrail.per]
    filters = "".join(
        f" and {name} = %({name})s"
        for name, wanted in (("feature", guardrail.feature), ("environment", guardrail.environment))
        if wanted
    )
    calls = _CALLS.format(whose=whose, filters=filters)
    return sql.SQL(template.format(subject=subject, value=_VALUES[guardrail.metric], calls=calls))


def _parameters(guardrail: Guardrail, subjects: Sequence[str], now: datetime) -> dict[str, object]:
    counts_from, to_at = now - guardrail.reach, now + AHEAD
    from_at = counts_from - guardrail.window
    return {
        "project_id": guardrail.project_id,
        "guardrail_id": guardrail.id,
        "subjects": _values(guardrail.per, subjects),
        "from_at": from_at,
        "to_at": to_at,
        "counts_from": counts_from,
        "first_day": from_at.astimezone(UTC).date(),
        "last_day": to_at.astimezone(UTC).date(),
        "window": guardrail.window,
        "limit": guardrail.limit,
        "feature": guardrail.feature,
        "environment": guardrail.environment,
    }


def _values(per: Per, subjects: Sequence[str]) -> object:
    return uuids([bytes.fromhex(subject) for subject in subjects]) if per is Per.TRACE else list(subjects)


class Driver(NamedTuple):
    """What a subject's calls were mostly about, and its sum since the incident began."""

    feature: str
    model: str
    calls: int
    cost_nano: int
    all_calls: int
    all_cost_nano: int


_DRIVER = """
select feature, model, count(*), coalesce(sum(cost_nano), 0)::bigint, (sum(count(*)) over ())::bigint,
       (sum(coalesce(sum(cost_nano), 0)) over ())::bigint
{calls} group by feature, model order by 3 desc, 4 desc, 1, 2 limit 1
"""


def driver(conn: Connection, guardrail: Guardrail, subject: str, start: datetime, end: datetime) -> Driver | None:
    """The feature and model with the most of the subject's calls that started in [start, end)."""
    instant = timedelta(microseconds=1)  # the statement's range is (from, to]
    parameters = _parameters(guardrail, [subject], end) | {
        "from_at": start - instant,
        "to_at": end - instant,
        "first_day": start.astimezone(UTC).date(),
        "last_day": end.astimezone(UTC).date(),
    }
    row = conn.execute(_statement(_DRIVER, guardrail), parameters).fetchone()
    return Driver._make(row) if row else None


# -- incidents -----------------------------------------------------------------------------------------------------

_COLUMNS = "subject, opened_at, crossed_to, until, value, is_open"
_INCIDENTS = f"select {_COLUMNS} from guard_state where project_id = %s and guardrail_id = %s and subject = any(%s)"
_SAVE = """
insert into guard_state
    (project_id, guardrail_id, alert_key, subject, opened_at, crossed_to, until, value, is_open)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
on conflict (project_id, guardrail_id, subject) do update set
    alert_key = excluded.alert_key, opened_at = excluded.opened_at, crossed_to = excluded.crossed_to,
    until = excluded.until, value = excluded.value, is_open = excluded.is_open
"""


def incidents(conn: Connection, guardrail: Guardrail, *, subjects: Sequence[str]) -> dict[str, Incident]:
    """The last incident of each subject that had one."""
    rows = conn.execute(_INCIDENTS, (guardrail.project_id, guardrail.id, list(subjects)))
    return {row[0]: Incident._make(row) for row in rows}


def save(conn: Connection, guardrail: Guardrail, *, incidents: Mapping[str, Incident]) -> None:
    """Incidents by their alert's key."""
    rows = [(guardrail.project_id, guardrail.id, key, *incident) for key, incident in sorted(incidents.items())]
    with conn.cursor() as cursor:
        cursor.executemany(_SAVE, rows)


class Ended(NamedTuple):
    """An incident that has just been closed, and whether its guardrail is still there."""

    guardrail_id: int
    incident: Incident
    alert_key: str
    is_watched: bool


_CLOSE = f"""
update guard_state state set is_open = false
where project_id = %(project_id)s and is_open and (until <= %(now)s or not {_STILL_CROSSED})
returning guardrail_id, alert_key, guardrail_id = any(%(watched)s), {_COLUMNS}
"""
_FORGET = "delete from guard_state where project_id = %s and not is_open and until < %s"


def close_ended(conn: Connection, project_id: int, *, watched_ids: Sequence[int], now: datetime) -> list[Ended]:
    """Close incidents that have held long enough, or whose guardrail is switched off or gone."""
    parameters = {"project_id": project_id, "now": now, "watched": list(watched_ids)}
    rows = conn.execute(_CLOSE, parameters).fetchall()
    return sorted(Ended(number, Incident(*rest), key, is_watched) for number, key, is_watched, *rest in rows)


_LIFT = """
update guard_state state set is_open = false, until = %(now)s from alert
where state.project_id = %(project_id)s and state.is_open
and alert.project_id = state.project_id and alert.key = state.alert_key and alert.id = %(alert_id)s
returning state.alert_key, state.subject
"""


def lift(conn: Connection, project_id: int, alert_id: int, now: datetime) -> list[tuple[str, str]]:
    """Close the incident of an alert; returns the alert's key and whose it was, nothing when it is closed already."""
    parameters = {"project_id": project_id, "alert_id": alert_id, "now": now}
    return [(key, subject) for key, subject in conn.execute(_LIFT, parameters)]


def forget_closed(conn: Connection, project_id: int, *, before: datetime) -> None:
    """Drop closed incidents that nothing can come late for any more."""
    conn.execute(_FORGET, (project_id, before))
