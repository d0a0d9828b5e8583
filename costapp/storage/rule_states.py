"""What alert rules remember: states of subjects, status of rules, and the pulse of evaluation. Set-based.

Only differences are written, and a subject in its resting state has no row. Callers hold the project's lock.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from costapp.core.alert_rules import Severity, State
from costapp.storage import locks

Connection = psycopg.Connection[Any]

_RULES_LOCK = 0x2012
SEVERITIES = tuple(Severity)


class Status(NamedTuple):
    """What is known of one rule since its last evaluation."""

    rule_id: int
    evaluated_end: datetime
    evaluated_at: datetime
    started_at: datetime
    value: int | None
    worst: str
    requests: int
    subjects: int
    beyond: int
    open_alerts: int
    fingerprint: str
    recent: list[int]
    known: list[str]


class Pulse(NamedTuple):
    evaluated_at: datetime
    took_us: int
    rules: int
    subjects: int
    beyond: int


def try_lock_project(conn: Connection, project_id: int) -> bool:
    """Become the only one to evaluate this project's rules until the transaction ends."""
    return locks.try_lock(conn, _RULES_LOCK, project_id)


def projects_with_rules(conn: Connection) -> list[int]:
    """Projects that have rules, or remember some that are gone."""
    sql = "select project_id from costapp_alertrule where enabled union select project_id from rule_status order by 1"
    return [project_id for (project_id,) in conn.execute(sql)]


_STATUSES = """
select rule_id, evaluated_end, evaluated_at, started_at, value, worst, requests, subjects, beyond, open_alerts,
       fingerprint, recent, known
from rule_status where project_id = %s
"""


def statuses(conn: Connection, project_id: int) -> dict[int, Status]:
    return {row[0]: Status._make(row) for row in conn.execute(_STATUSES, (project_id,))}


_STATES = """
select rule_id, subject, severity, opened_at, worse, worse_since, calm, lower, told_at
from rule_state where project_id = %s and rule_id = any(%s)
"""


def states(conn: Connection, project_id: int, ends: Mapping[int, datetime]) -> dict[int, dict[str, State]]:
    """Remembered subjects of rules; ``ends``: rule -> end of the last window judged."""
    found: dict[int, dict[str, State]] = defaultdict(dict)
    with conn.cursor(binary=True) as cursor:
        cursor.execute(_STATES, (project_id, sorted(ends)))
        for rule_id, subject, severity, opened_at, worse, worse_since, calm, lower, told_at in cursor:
            found[rule_id][subject] = State(
                SEVERITIES[severity], opened_at, SEVERITIES[worse], worse_since, calm, lower, told_at, ends[rule_id]
            )
    return found


def remembered_subjects(conn: Connection, project_id: int, rule_ids: Sequence[int], *, limit: int) -> list[str]:
    sql = "select distinct subject from rule_state where project_id = %s and rule_id = any(%s) limit %s"
    return [subject for (subject,) in conn.execute(sql, (project_id, sorted(rule_ids), limit))]


_DELETE = """
delete from rule_state using unnest(%s::bigint[], %s::text[]) as gone(rule_id, subject)
where rule_state.project_id = %s and rule_state.rule_id = gone.rule_id and rule_state.subject = gone.subject
"""
_UPSERT = """
insert into rule_state (project_id, rule_id, subject, severity, opened_at, worse, worse_since, calm, lower, told_at)
select %s, * from unnest(%s::bigint[], %s::text[], %s::smallint[], %s::timestamptz[], %s::smallint[],
                         %s::timestamptz[], %s::smallint[], %s::smallint[], %s::timestamptz[]) as fresh
on conflict (project_id, rule_id, subject) do update set
    severity = excluded.severity, opened_at = excluded.opened_at, worse = excluded.worse,
    worse_since = excluded.worse_since, calm = excluded.calm, lower = excluded.lower, told_at = excluded.told_at
"""


def write_states(
    conn: Connection, project_id: int, changed: Sequence[tuple[int, str, State]], gone: Sequence[tuple[int, str]]
) -> None:
    """Rows of subjects that changed, and none of those that rest again. In order of the key."""
    if gone:
        rules, subjects = zip(*sorted(gone), strict=True)
        conn.execute(_DELETE, (list(rules), list(subjects), project_id))
    if changed:
        rows = [
            (rule_id, subject, int(state.severity), state.opened_at, int(state.worse), state.worse_since, state.calm,
             state.lower, state.told_at)
            for rule_id, subject, state in sorted(changed, key=lambda row: row[:2])
        ]  # fmt: skip
        conn.execute(_UPSERT, (project_id, *(list(column) for column in zip(*rows, strict=True))))


def forget_rules(conn: Connection, project_id: int, rule_ids: Sequence[int]) -> None:
    for table in ("rule_state", "rule_status"):
        sql = psycopg.sql.SQL("delete from {} where project_id = %s and rule_id = any(%s)")
        conn.execute(sql.format(psycopg.sql.Identifier(table)), (project_id, sorted(rule_ids)))


_WRITE_STATUS = """
insert into rule_status (project_id, rule_id, evaluated_end, evaluated_at, started_at, value, worst, requests,
                         subjects, beyond, open_alerts, fingerprint, recent, known)
select %(project_id)s, fresh.* from jsonb_to_recordset(%(rows)s) as fresh (
    rule_id bigint, evaluated_end timestamptz, evaluated_at timestamptz, started_at timestamptz, value bigint,
    worst text, requests bigint, subjects int, beyond int, open_alerts int, fingerprint text, recent bigint[],
    known text[])
order by fresh.rule_id
on conflict (project_id, rule_id) do update set
    evaluated_end = excluded.evaluated_end, evaluated_at = excluded.evaluated_at, value = excluded.value,
    worst = excluded.worst, requests = excluded.requests, subjects = excluded.subjects, beyond = excluded.beyond,
    open_alerts = excluded.open_alerts, fingerprint = excluded.fingerprint, recent = excluded.recent,
    known = excluded.known
"""


def write_statuses(conn: Connection, project_id: int, rows: Iterable[Status]) -> None:
    values = [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row._asdict().items()}
        for row in rows
    ]
    if values:
        conn.execute(_WRITE_STATUS, {"project_id": project_id, "rows": Jsonb(values)})


def write_pulse(conn: Connection, project_id: int, pulse: Pulse) -> None:
    sql = """
        insert into rule_pulse (project_id, evaluated_at, took_us, rules, subjects, beyond)
        values (%s, %s, %s, %s, %s, %s)
        on conflict (project_id) do update set evaluated_at = excluded.evaluated_at, took_us = excluded.took_us,
            rules = excluded.rules, subjects = excluded.subjects, beyond = excluded.beyond"""
    conn.execute(sql, (project_id, *pulse))


def touch_pulse(conn: Connection, project_id: int, now: datetime) -> None:
    """Evaluation ran and found nothing due."""
    conn.execute("update rule_pulse set evaluated_at = %s where project_id = %s", (now, project_id))


def pulse(conn: Connection, project_id: int) -> Pulse | None:
    sql = "select evaluated_at, took_us, rules, subjects, beyond from rule_pulse where project_id = %s"
    row = conn.execute(sql, (project_id,)).fetchone()
    return Pulse._make(row) if row else None
