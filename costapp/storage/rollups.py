"""Sums of charges per cell. A cell is always recomputed from what lies below it, never added to.

charge -> rollup_5m -> rollup_hour -> rollup_day        the same sums at three grains
charge -> latency_hour -> latency_day                   histograms
          latency_hour -> latency_hour_by, latency_day -> latency_day_by   the same, by one dimension at a time
charge -> session_day, user_day -> activity_day         only the sessions and users that changed

Every recomputation runs under the project's rollup lock, after its marks were deleted in the same
transaction: a charge committed later left a mark of its own. ``costapp.services.rollup`` decides what
is due; nothing here reads a clock.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

import psycopg
from psycopg import sql

from costapp.core.latency import LIMITS_US
from costapp.core.local_days import LocalDay
from costapp.storage import locks

CELL = timedelta(minutes=5)
HOUR = timedelta(hours=1)

_ROLLUP_LOCK = 0x2011


class Grain(IntEnum):
    """What a mark in ``dirty_cell`` asks for; also the key of its pace."""

    SUMS = 0  #: rollup_5m, and the hour and day above it
    LATENCY = 1  #: latency_hour, and the day above it
    ACTIVITY = 2  #: activity_day
    DAY = 3  #: every day table of one local day, as a whole
    ACTORS = 4  #: pace only: the marks are in dirty_actor
    NOBODY = 5  #: the row of calls without a user in user_day, which no index on users finds


class Span(NamedTuple):
    """A range of time [start_at, end_at)."""

    start_at: datetime
    end_at: datetime


DIMENSIONS = (
    "feature", "team", "environment", "service", "span_name", "provider", "model", "variant", "prompt_version",
)  # fmt: skip
LATENCY_DIMENSIONS = ("feature", "environment", "service", "span_name", "model")

_ALL_TOKENS = (
    "input_tokens::bigint + output_tokens + coalesce(cache_read_tokens, 0) + coalesce(cache_write_5m_tokens, 0)"
    " + coalesce(cache_write_1h_tokens, 0) + coalesce(reasoning_tokens, 0) + coalesce(audio_in_tokens, 0)"
    " + coalesce(audio_out_tokens, 0) + coalesce(image_in_tokens, 0) + coalesce(image_out_tokens, 0)"
)


def _total(expression: str) -> str:
    return f"coalesce(sum({expression}), 0)"


#: Column of a rollup table -> how it is summed from charges.
SUMS = {
    "requests": "count(*)",
    "errors": "count(error)",
    "retries": "count(*) filter (where flags & 4 <> 0)",
    "unpriced": "count(*) filter (where cost_nano is null)",
    "estimated": "count(*) filter (where cost_status = 2 or usage_state = 3)",
    "usage_unknown": "count(*) filter (where usage_state = 0)",
    "input_tokens": "sum(input_tokens::bigint + coalesce(audio_in_tokens, 0) + coalesce(image_in_tokens, 0))",
    "cache_read_tokens": _total("cache_read_tokens"),
    "cache_write_tokens": _total("coalesce(cache_write_5m_tokens, 0)::bigint + coalesce(cache_write_1h_tokens, 0)"),
    "output_tokens": "sum(output_tokens::bigint + coalesce(audio_out_tokens, 0) + coalesce(image_out_tokens, 0))",
    "reasoning_tokens": _total("reasoning_tokens"),
    "priced_tokens": f"coalesce(sum({_ALL_TOKENS}) filter (where cost_nano is not null), 0)",
    "duration_us": _total("duration_us"),
    "input_nano": "coalesce(sum(input_nano) filter (where cost_nano is not null), 0)",
    "cache_read_nano": "coalesce(sum(cache_read_nano) filter (where cost_nano is not null), 0)",
    "cache_write_nano": "coalesce(sum(cache_write_nano) filter (where cost_nano is not null), 0)",
    "output_nano": "coalesce(sum(output_nano) filter (where cost_nano is not null), 0)",
    "other_nano": "coalesce(sum(other_nano) filter (where cost_nano is not null), 0)",
    "gpu_nano": "coalesce(sum(gpu_nano) filter (where cost_nano is not null), 0)",
    "cost_nano": _total("cost_nano"),
    "possible_nano": _total("possible_nano"),
    "reported_nano": _total("reported_nano"),
    "avoided_nano": _total("avoided_nano"),
}


def _statement(template: str, **parts: str) -> sql.SQL:
    """A statement whose only variable parts are constants of this module."""
    return sql.SQL(template.format(**parts))


_COLUMNS = ", ".join(SUMS)
_KEYS = ", ".join(DIMENSIONS)
_LATENCY_KEYS = ", ".join(LATENCY_DIMENSIONS)
# All ranges consist of whole cells. The cell is written as the index of charge has it; day is stated beside
# it so that only the partitions of the range are opened.
_CELL = "date_bin('5 minutes', start_at, 'epoch')"
_RANGE = (
    f"project_id = %(project_id)s and {_CELL} >= %(start_at)s and {_CELL} < %(end_at)s"
    " and day between %(first_day)s and %(last_day)s"
)
_CELLS = "project_id = %(project_id)s and bucket_at >= %(start_at)s and bucket_at < %(end_at)s"

_DELETE = {
    table: _statement("delete from {table} where {cells}", table=table, cells=_CELLS)
    for table in ("rollup_5m", "rollup_hour", "rollup_day", "latency_hour", "latency_day", "latency_hour_by",
                  "latency_day_by", "session_day", "user_day", "activity_day")
}  # fmt: skip

_SUM_CELLS = _statement(
    """
    insert into rollup_5m (bucket_at, project_id, {keys}, {columns})
    select date_bin('5 minutes', start_at, 'epoch') as cell, project_id, {keys}, {sums}
    from charge_full where {range} group by cell, project_id, {keys}
    """,
    keys=_KEYS, columns=_COLUMNS, sums=", ".join(SUMS.values()), range=_RANGE,
)  # fmt: skip

_SUM_UP = """
    insert into {target} (bucket_at, project_id, {keys}, {columns})
    select {bucket} as cell, project_id, {keys}, {sums} from {source} where {cells} group by cell, project_id, {keys}
"""


def _sum_up(target: str, source: str, bucket: str) -> sql.SQL:
    sums = ", ".join(f"sum({column})" for column in SUMS)
    return _statement(
        _SUM_UP, target=target, source=source, bucket=bucket, keys=_KEYS, columns=_COLUMNS, sums=sums, cells=_CELLS
    )


_HOURS = _sum_up("rollup_hour", "rollup_5m", "date_bin('1 hour', bucket_at, 'epoch')")
# Days of zones that are whole hours from UTC are 24 hours of rows to add; others need the 5-minute cells.
_DAY_OF_HOURS = _sum_up("rollup_day", "rollup_hour", "%(start_at)s::timestamptz")
_DAY_OF_CELLS = _sum_up("rollup_day", "rollup_5m", "%(start_at)s::timestamptz")

_LATENCY_OF_CHARGES = """
    insert into {target} (bucket_at, project_id, slot, {keys}, requests)
    select {bucket} as cell, project_id, width_bucket(duration_us, %(limits)s::bigint[]) as slot, {keys}, count(*)
    from charge_full where {range} and duration_us is not null group by cell, project_id, slot, {keys}
"""
_LATENCY_HOURS = _statement(
    _LATENCY_OF_CHARGES, target="latency_hour", bucket="date_bin('1 hour', start_at, 'epoch')", keys=_LATENCY_KEYS,
    range=_RANGE,
)  # fmt: skip
_LATENCY_DAY_OF_CHARGES = _statement(
    _LATENCY_OF_CHARGES, target="latency_day", bucket="%(start_at)s::timestamptz", keys=_LATENCY_KEYS, range=_RANGE
)
_LATENCY_DAY_OF_HOURS = _statement(
    """
    insert into latency_day (bucket_at, project_id, slot, {keys}, requests)
    select %(start_at)s::timestamptz, project_id, slot, {keys}, sum(requests)
    from latency_hour where {cells} group by project_id, slot, {keys}
    """,
    keys=_LATENCY_KEYS, cells=_CELLS,
)  # fmt: skip

_BY_ONE = """
    insert into {target} (bucket_at, project_id, slot, dimension, value, requests)
    select bucket_at, project_id, slot, case {names} end, coalesce({keys}), sum(requests)
    from {source} where {cells} group by bucket_at, project_id, slot, grouping sets ({sets})
"""


def _by_one(target: str, source: str) -> sql.SQL:
    names = " ".join(f"when grouping({key}) = 0 then '{key}'" for key in LATENCY_DIMENSIONS)
    sets = ", ".join(f"({key})" for key in LATENCY_DIMENSIONS)
    return _statement(_BY_ONE, target=target, source=source, names=names, keys=_LATENCY_KEYS, sets=sets, cells=_CELLS)


LATENCY_HOURS_BY = _by_one("latency_hour_by", "latency_hour")
LATENCY_DAY_BY = _by_one("latency_day_by", "latency_day")


# -- what is marked ----------------------------------------------------------------------------------------------


class DirtyProject(NamedTuple):
    project_id: int
    time_zone: str


_DIRTY_PROJECTS = """
select dirty.project_id, coalesce(project.time_zone, 'UTC')
from (select project_id from dirty_cell union select project_id from dirty_actor
      union select zone.project_id from rollup_zone zone join costapp_project owner on owner.id = zone.project_id
      where owner.time_zone <> zone.time_zone) dirty
left join costapp_project project on project.id = dirty.project_id
order by dirty.project_id
"""


def dirty_projects(conn: psycopg.Connection) -> list[DirtyProject]:
    """Projects with marks, or whose time zone is no longer the one of their day tables."""
    return [DirtyProject._make(row) for row in conn.execute(_DIRTY_PROJECTS)]


def try_lock_project(conn: psycopg.Connection, project_id: int) -> bool:
    """Become the only one to recompute this project's rollups until the transaction ends."""
    return locks.try_lock(conn, _ROLLUP_LOCK, project_id)


def expect_many_rows(conn: psycopg.Connection) -> None:
    """Sum by hashing until the transaction ends, whatever the planner expects.

    What is recomputed is the newest, which statistics do not know yet: the planner expects one row, and would look
    kinds up one by one and sort hundreds of thousands of charges by their texts.
    """
    conn.execute(
        "select set_config('enable_nestloop', 'off', true), set_config('enable_sort', 'off', true),"
        " set_config('work_mem', '16MB', true)"
    )


# Newest first: a page about now must not wait for a back-fill.
_CLAIM_CELLS = """
with claimed as (
    select distinct bucket_at from dirty_cell where project_id = %(project_id)s and grain = %(grain)s
    order by bucket_at desc limit %(limit)s
), taken as (
    delete from dirty_cell where project_id = %(project_id)s and grain = %(grain)s
    and bucket_at in (select bucket_at from claimed) returning bucket_at
)
select distinct bucket_at from taken order by bucket_at
"""


def claim_cells(conn: psycopg.Connection, project_id: int, *, grain: Grain, limit: int) -> list[datetime]:
    """Delete the marks of up to ``limit`` cells and return the cells in ascending order."""
    parameters = {"project_id": project_id, "grain": int(grain), "limit": limit}
    return [bucket_at for (bucket_at,) in conn.execute(_CLAIM_CELLS, parameters)]


_MARK_CELLS = """
insert into dirty_cell (project_id, grain, bucket_at)
select %(project_id)s, %(grain)s, cell from (
    select unnest(%(cells)s::timestamptz[]) as cell
    except select bucket_at from dirty_cell where project_id = %(project_id)s and grain = %(grain)s
) fresh order by cell
"""


def mark_cells(conn: psycopg.Connection, project_id: int, *, grain: Grain, cells: Iterable[datetime]) -> None:
    """Mark cells of the coarser grains. Only for holders of the project's lock: existing marks are not repeated."""
    parameters = {"project_id": project_id, "grain": int(grain), "cells": sorted(set(cells))}
    if parameters["cells"]:
        conn.execute(_MARK_CELLS, parameters)


class Actor(NamedTuple):
    """A session and a user named by a changed charge, and the quarter hour it started in."""

    quarter_at: datetime
    session_id: str
    user_id: str


_CLAIM_ACTORS = """
with past as (select id from dirty_actor where project_id = %(project_id)s order by id offset %(limit)s limit 1),
taken as (
    delete from dirty_actor where project_id = %(project_id)s
    and id < coalesce((select id from past), 9223372036854775807) returning quarter_at, session_id, user_id
)
select quarter_at, session_id, user_id from taken
"""


def claim_actors(conn: psycopg.Connection, project_id: int, *, limit: int) -> list[Actor]:
    """Delete the oldest ``limit`` marks and return them, repeats included."""
    rows = conn.execute(_CLAIM_ACTORS, {"project_id": project_id, "limit": limit})
    return [Actor._make(row) for row in rows]


# -- recomputing -------------------------------------------------------------------------------------------------


def recompute_cells(conn: psycopg.Connection, project_id: int, *, cells: Sequence[datetime]) -> None:
    """rollup_5m of the given cells from charges, then rollup_hour of the hours that contain them."""
    for span in ranges(cells, step=CELL):
        _replace(conn, "rollup_5m", _SUM_CELLS, _range(project_id, span))
    for span in ranges(sorted({hour_of(cell) for cell in cells}), step=HOUR):
        _replace(conn, "rollup_hour", _HOURS, _range(project_id, span))


def recompute_day(conn: psycopg.Connection, project_id: int, *, day: LocalDay) -> None:
    """rollup_day of one local day, from the coarsest rows that begin and end where the day does."""
    statement = _DAY_OF_HOURS if day.is_hour_aligned else _DAY_OF_CELLS
    _replace(conn, "rollup_day", statement, _range(project_id, day))


def recompute_latency_hours(conn: psycopg.Connection, project_id: int, *, hours: Sequence[datetime]) -> None:
    for span in ranges(hours, step=HOUR):
        _replace(conn, "latency_hour", _LATENCY_HOURS, _range(project_id, span) | {"limits": list(LIMITS_US)})
        _replace(conn, "latency_hour_by", LATENCY_HOURS_BY, _range(project_id, span))


def recompute_latency_day(conn: psycopg.Connection, project_id: int, *, day: LocalDay) -> None:
    parameters = _range(project_id, day)
    if day.is_hour_aligned:
        _replace(conn, "latency_day", _LATENCY_DAY_OF_HOURS, parameters)
    else:
        _replace(conn, "latency_day", _LATENCY_DAY_OF_CHARGES, parameters | {"limits": list(LIMITS_US)})
    _replace(conn, "latency_day_by", LATENCY_DAY_BY, parameters)


_ACTOR_SUMS = f"""
    count(*), count(error), count(*) filter (where cost_nano is null), {_total(_ALL_TOKENS)}, {_total("cost_nano")},
    {SUMS["gpu_nano"]}
"""
_SESSIONS = """
    insert into session_day (bucket_at, project_id, session_id, feature, user_id, first_at, last_at,
                             requests, errors, unpriced, tokens, cost_nano, gpu_nano)
    select %(start_at)s::timestamptz, project_id, session_id, feature, user_id, min(start_at), max(start_at), {sums}
    from charge where {range} and session_id <> '' {only} group by project_id, session_id, feature, user_id
"""
# By session first: counting distinct texts would need all charges sorted.
_USERS = """
    insert into user_day (bucket_at, project_id, user_id, feature, sessions,
                          requests, errors, unpriced, tokens, cost_nano, gpu_nano)
    select %(start_at)s::timestamptz, project_id, user_id, feature, count(*) filter (where session_id <> ''),
           sum(requests), sum(errors), sum(unpriced), sum(tokens), sum(cost_nano),
           sum(gpu_nano)
    from (select project_id, user_id, feature, session_id, {sums}
          from charge where {range} {only} group by project_id, user_id, feature, session_id)
         as by_session (project_id, user_id, feature, session_id, requests, errors, unpriced, tokens, cost_nano,
                        gpu_nano)
    group by project_id, user_id, feature
"""


class ActorTable(NamedTuple):
    """How one of the two per-actor day tables is rebuilt: some ids of a day, or the whole day."""

    delete_ids: sql.SQL
    insert_ids: sql.SQL
    delete_day: sql.SQL
    insert_day: sql.SQL


def _actor_table(table: str, key: str, template: str) -> ActorTable:
    only = f"and {key} = any(%(ids)s) and {key} <> ''"  # as the partial indexes of charge say it
    return ActorTable(
        _statement("delete from {table} where {cells} {only}", table=table, cells=_CELLS, only=only),
        _statement(template, sums=_ACTOR_SUMS, range=_RANGE, only=only),
        _DELETE[table],
        _statement(template, sums=_ACTOR_SUMS, range=_RANGE, only=""),
    )


SESSION_DAY = _actor_table("session_day", "session_id", _SESSIONS)
USER_DAY = _actor_table("user_day", "user_id", _USERS)


def recompute_actors(
    conn: psycopg.Connection, project_id: int, *, table: ActorTable, day: LocalDay, ids: Sequence[str] | None = None
) -> None:
    """session_day or user_day of one local day: the rows of ``ids``, or all of them."""
    parameters = _range(project_id, day)
    if ids is None:
        conn.execute(table.delete_day, parameters)
        conn.execute(table.insert_day, parameters)
    elif ids:
        parameters["ids"] = list(ids)
        conn.execute(table.delete_ids, parameters)
        conn.execute(table.insert_ids, parameters)


_DELETE_NOBODY = _statement("delete from user_day where {cells} and user_id = ''", cells=_CELLS)
_INSERT_NOBODY = _statement(_USERS, sums=_ACTOR_SUMS, range=_RANGE, only="and user_id = ''")


def recompute_nobody(conn: psycopg.Connection, project_id: int, *, day: LocalDay) -> None:
    """The rows of user_day for calls without a user, so that users add up to the day."""
    parameters = _range(project_id, day)
    conn.execute(_DELETE_NOBODY, parameters)
    conn.execute(_INSERT_NOBODY, parameters)


_ACTIVITY = _statement(
    """
    insert into activity_day (bucket_at, project_id, feature, sessions, users)
    select %(start_at)s::timestamptz, %(project_id)s, feature, sum(sessions), sum(users) from (
        select feature, count(distinct session_id) as sessions, 0 as users
        from session_day where {cells} group by feature
        union all
        select feature, 0, count(distinct user_id) from user_day where {cells} and user_id <> '' group by feature
    ) both_counts group by feature
    """,
    cells=_CELLS,
)


def recompute_activity(conn: psycopg.Connection, project_id: int, *, day: LocalDay) -> None:
    _replace(conn, "activity_day", _ACTIVITY, _range(project_id, day))


def _replace(conn: psycopg.Connection, table: str, insert: sql.SQL, parameters: dict[str, object]) -> None:
    conn.execute(_DELETE[table], parameters)
    conn.execute(insert, parameters)


# -- time zone and pace ------------------------------------------------------------------------------------------


_DAY_TABLES = ("rollup_day", "latency_day", "latency_day_by", "session_day", "user_day", "activity_day")


def built_zone(conn: psycopg.Connection, project_id: int) -> str | None:
    row = conn.execute("select time_zone from rollup_zone where project_id = %s", (project_id,)).fetchone()
    return row[0] if row else None


def set_built_zone(conn: psycopg.Connection, project_id: int, *, time_zone: str) -> None:
    conn.execute(
        "insert into rollup_zone values (%s, %s) on conflict (project_id) do update set time_zone = excluded.time_zone",
        (project_id, time_zone),
    )


def clear_days(conn: psycopg.Connection, project_id: int) -> list[datetime]:
    """Delete the project's day tables. Returns the hours that have sums, to build the days from again."""
    for table in _DAY_TABLES:
        conn.execute(_statement("delete from {table} where project_id = %s", table=table), (project_id,))
    rows = conn.execute("select distinct bucket_at from rollup_hour where project_id = %s", (project_id,))
    return [bucket_at for (bucket_at,) in rows]


class Pace(NamedTuple):
    """The last recomputation of a grain: how long ago it ended and how long it took."""

    age_us: int
    took_us: int


_PACES = """
select grain, (extract(epoch from clock_timestamp() - computed_at) * 1000000)::bigint, took_us
from rollup_pace where project_id = %s
"""


def paces(conn: psycopg.Connection, project_id: int) -> dict[Grain, Pace]:
    return {Grain(grain): Pace(age_us, took_us) for grain, age_us, took_us in conn.execute(_PACES, (project_id,))}


def set_pace(conn: psycopg.Connection, project_id: int, *, grain: Grain, took_us: int) -> None:
    conn.execute(
        "insert into rollup_pace values (%s, %s, clock_timestamp(), %s)"
        " on conflict (project_id, grain) do update set computed_at = excluded.computed_at, took_us = excluded.took_us",
        (project_id, int(grain), took_us),
    )


# -- time --------------------------------------------------------------------------------------------------------


def hour_of(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def ranges(starts: Sequence[datetime], *, step: timedelta) -> list[Span]:
    """Ascending cells of one length, as the fewest ranges: a back-filled day is one statement, not 288."""
    merged: list[Span] = []
    for start_at in starts:
        if merged and merged[-1].end_at == start_at:
            merged[-1] = Span(merged[-1].start_at, start_at + step)
        else:
            merged.append(Span(start_at, start_at + step))
    return merged


def _range(project_id: int, span: Span | LocalDay) -> dict[str, object]:
    return {
        "project_id": project_id,
        "start_at": span.start_at,
        "end_at": span.end_at,
        "first_day": _utc_date(span.start_at),
        "last_day": _utc_date(span.end_at),
    }


def _utc_date(at: datetime) -> date:
    return at.astimezone(UTC).date()
