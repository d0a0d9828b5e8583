"""Stored anomalies: what detection found, what people said about it, and how far detection has come.

Detection writes under the project's lock; ``verdict*`` and ``told_at`` are never overwritten by it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
import psycopg
from psycopg.types.json import Jsonb

from costapp.storage import locks

Connection = psycopg.Connection[Any]

_ANOMALY_LOCK = 0x2013


class Anomaly(NamedTuple):
    id: int
    dimension: str
    value: str
    kind: str
    state: str  # open | over | withdrawn
    start_at: datetime
    odd_at: datetime
    peak_at: datetime
    end_at: datetime
    score_milli: int
    above_nano: int
    above_band_nano: int
    actual_nano: int
    new_normal: bool
    title: str
    detail: dict[str, Any]
    suppressed: str
    found_at: datetime
    changed_at: datetime
    told_at: datetime | None
    verdict: str
    verdict_reason: str
    verdict_by: str
    verdict_at: datetime | None


class Found(NamedTuple):
    """What a detection run says about an anomaly; ``id`` 0 = new."""

    id: int
    dimension: str
    value: str
    kind: str
    state: str
    start_at: datetime
    odd_at: datetime
    peak_at: datetime
    end_at: datetime
    score_milli: int
    above_nano: int
    above_band_nano: int
    actual_nano: int
    new_normal: bool
    title: str
    detail: dict[str, Any]
    suppressed: str


class Pulse(NamedTuple):
    judged_until: datetime
    first_at: datetime | None
    ran_at: datetime
    took_us: int
    series: int
    beyond: int
    odd: int


class Precision(NamedTuple):
    confirmed: int
    dismissed: int
    waiting: int  # without a verdict


class Mark(NamedTuple):
    """An anomaly as a point of a chart."""

    id: int
    start_at: datetime
    end_at: datetime
    title: str
    above_nano: int


# as text: connections of Django's do not read jsonb
_COLUMNS = ", ".join("detail::text" if name == "detail" else name for name in Anomaly._fields)
_DETAIL = Anomaly._fields.index("detail")


def _anomaly(row: Sequence[Any]) -> Anomaly:
    found = Anomaly._make(row)
    return found._replace(detail=orjson.loads(row[_DETAIL]))


def try_lock_project(conn: Connection, project_id: int) -> bool:
    """Become the only one to detect for this project until the transaction ends."""
    return locks.try_lock(conn, _ANOMALY_LOCK, project_id)


def projects_with_data(conn: Connection) -> list[tuple[int, str, str]]:
    """Id, slug and time zone of the projects that have sums."""
    sql = """select id, slug, time_zone from costapp_project p
        where exists (select from rollup_hour where project_id = p.id) order by id"""
    return [(int(row[0]), str(row[1]), str(row[2])) for row in conn.execute(sql)]


_PULSE = "select judged_until, first_at, ran_at, took_us, series, beyond, odd from anomaly_pulse where project_id = %s"


def pulse(conn: Connection, project_id: int) -> Pulse | None:
    row = conn.execute(_PULSE, (project_id,)).fetchone()
    return Pulse._make(row) if row else None


def write_pulse(conn: Connection, project_id: int, new: Pulse) -> None:
    conn.execute(
        """
        insert into anomaly_pulse (judged_until, first_at, ran_at, took_us, series, beyond, odd, project_id)
        values (%s, %s, %s, %s, %s, %s, %s, %s)
        on conflict (project_id) do update set judged_until = excluded.judged_until, first_at = excluded.first_at,
            ran_at = excluded.ran_at, took_us = excluded.took_us, series = excluded.series,
            beyond = excluded.beyond, odd = excluded.odd
        """,
        (*new, project_id),
    )


def since(conn: Connection, project_id: int, at: datetime) -> list[Anomaly]:
    """All that lasted until ``at`` or later, withdrawn ones included, oldest first."""
    sql = f"select {_COLUMNS} from anomaly where project_id = %s and end_at > %s order by start_at, id"
    return [_anomaly(row) for row in conn.execute(sql.encode(), (project_id, at))]


def of_id(conn: Connection, project_id: int, anomaly_id: int) -> Anomaly | None:
    sql = f"select {_COLUMNS} from anomaly where project_id = %s and id = %s"
    row = conn.execute(sql.encode(), (project_id, anomaly_id)).fetchone()
    return _anomaly(row) if row else None


_WRITTEN = Found._fields[1:]
_INSERT = f"""
insert into anomaly (project_id, {", ".join(_WRITTEN)}, found_at, changed_at)
values (%s, {", ".join(["%s"] * len(_WRITTEN))}, %s, %s) returning id
"""
_UPDATE = f"""
update anomaly set ({", ".join(_WRITTEN)}) = ({", ".join(["%s"] * len(_WRITTEN))}), changed_at = %s
where project_id = %s and id = %s
"""


def write(conn: Connection, project_id: int, found: Sequence[Found], now: datetime) -> list[int]:
    """Insert what is new and update the rest; a run finds few. Returns the ids in order."""
    ids = []
    for each in found:
        values = [Jsonb(value) if isinstance(value, dict) else value for value in each[1:]]
        if each.id:
            conn.execute(_UPDATE.encode(), (*values, now, project_id, each.id))
            ids.append(each.id)
        else:
            row = conn.execute(_INSERT.encode(), (project_id, *values, now, now)).fetchone()
            assert row is not None
            ids.append(int(row[0]))
    return ids


def withdraw(conn: Connection, project_id: int, ids: Sequence[int], now: datetime) -> None:
    """Later data explains them. What people confirmed or dismissed stays."""
    sql = """update anomaly set state = 'withdrawn', changed_at = %s
        where project_id = %s and id = any(%s) and verdict = '' and state <> 'withdrawn'"""
    conn.execute(sql, (now, project_id, sorted(ids)))


def mark_told(conn: Connection, project_id: int, ids: Sequence[int], now: datetime) -> None:
    conn.execute(
        "update anomaly set told_at = %s where project_id = %s and id = any(%s)", (now, project_id, sorted(ids))
    )


def told_since(conn: Connection, project_id: int, at: datetime) -> int:
    row = conn.execute(
        "select count(*) from anomaly where project_id = %s and told_at >= %s", (project_id, at)
    ).fetchone()
    return int(row[0]) if row else 0


def judge(
    conn: Connection, project_id: int, anomaly_id: int, *, verdict: str, reason: str, by: str, now: datetime
) -> bool:
    """Record what a person says. False: there is no such anomaly."""
    sql = """update anomaly set verdict = %s, verdict_reason = %s, verdict_by = %s, verdict_at = %s
        where project_id = %s and id = %s"""
    return conn.execute(sql, (verdict, reason, by, now, project_id, anomaly_id)).rowcount == 1


def feed(
    conn: Connection, project_id: int, start: datetime, end: datetime, *, limit: int, state: str = ""
) -> tuple[list[Anomaly], int]:
    """Anomalies of a time, newest first, and how many there are in all."""
    sql = f"""
        select {_COLUMNS}, count(*) over () from anomaly
        where project_id = %(project_id)s and start_at < %(end)s and end_at > %(start)s and state <> 'withdrawn'
              and (%(state)s = '' or verdict = %(state)s or (%(state)s = 'open' and verdict = ''))
        order by start_at desc, id desc limit %(limit)s"""
    rows = conn.execute(
        sql.encode(), {"project_id": project_id, "start": start, "end": end, "limit": limit, "state": state}
    ).fetchall()
    return [_anomaly(row[:-1]) for row in rows], int(rows[0][-1]) if rows else 0


def marks(conn: Connection, project_id: int, start: datetime, end: datetime, subject: tuple[str, str] | None,
          *, limit: int = 50) -> list[Mark]:  # fmt: skip
    """What charts mark: all anomalies of a time, or those told by one slice or seen in it. Dismissed ones are not,
    and those of GPU pools, whose idle time is no cost of calls."""
    sql = """
        select id, start_at, end_at, title, above_nano from anomaly
        where project_id = %(project_id)s and start_at < %(end)s and end_at > %(start)s
              and state <> 'withdrawn' and verdict <> 'dismissed' and dimension <> 'gpu_pool'
              and (%(dimension)s::text is null or (dimension = %(dimension)s and value = %(value)s)
                   or detail->'members' @> jsonb_build_array(jsonb_build_array(%(dimension)s::text, %(value)s::text)))
        order by above_nano desc, id limit %(limit)s"""
    dimension, value = subject or (None, None)
    params = {"project_id": project_id, "start": start, "end": end, "dimension": dimension, "value": value}
    return [Mark._make(row) for row in conn.execute(sql, {**params, "limit": limit})]


def precision(conn: Connection, project_id: int, at: datetime) -> Precision:
    """What people said about anomalies found since ``at``."""
    sql = """
        select count(*) filter (where verdict = 'confirmed'), count(*) filter (where verdict = 'dismissed'),
               count(*) filter (where verdict = '')
        from anomaly where project_id = %s and start_at >= %s and state <> 'withdrawn'"""
    row = conn.execute(sql, (project_id, at)).fetchone()
    assert row is not None
    return Precision._make(row)
