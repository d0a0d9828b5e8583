"""The outbox of traces to resolve: marking, claiming, giving back. Marks are appended and deleted, never changed.

A claim belongs to the transaction that made it: if the worker dies, its marks are there again.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import NamedTuple

import psycopg

from costapp.storage import locks

#: Traces are spread over this many serial queues by the last byte of their id.
SHARDS = 16

#: First key of the advisory locks that make a shard serial; the second is the shard.
_SHARD_LOCK = 0x5EED


class Mark(NamedTuple):
    """One trace to resolve again."""

    project_id: int
    day: date
    trace_id: bytes
    marked_at: datetime
    reason: str | None


class Backlog(NamedTuple):
    """What waits to be worked on, and since when: the two health figures of the pipeline."""

    traces: int
    cells: int
    actors: int
    oldest_at: datetime | None


def shard_of(trace_id: bytes) -> int:
    return trace_id[15] % SHARDS


def try_lock_shard(conn: psycopg.Connection, shard: int) -> bool:
    """Take the shard until the transaction ends; false if another worker has it."""
    return locks.try_lock(conn, _SHARD_LOCK, shard)


def lock_shard(conn: psycopg.Connection, shard: int) -> None:
    """Wait for the shard. Callers that take several must do so in ascending order, or two would wait for each other."""
    locks.lock(conn, _SHARD_LOCK, shard)


def marked_shards(conn: psycopg.Connection) -> list[int]:
    return [shard for (shard,) in conn.execute("select distinct shard from dirty_trace order by shard")]


# Marks are taken in the order of their ids. Only the holder of the shard's lock deletes them.
_CLAIM = """
with past as (select id from dirty_trace where shard = %(shard)s order by id offset %(limit)s limit 1)
delete from dirty_trace
where shard = %(shard)s and id < coalesce((select id from past), 9223372036854775807)
returning project_id, day, uuid_send(trace_id), marked_at, reason
"""


def claim(conn: psycopg.Connection, shard: int, *, limit: int) -> list[Mark]:
    """Delete up to ``limit`` marks of the shard and return them, one per (project, day, trace)."""
    cursor = conn.cursor(binary=True)
    rows = cursor.execute(_CLAIM, {"shard": shard, "limit": limit}).fetchall()
    return coalesce(Mark._make(row) for row in rows)


def coalesce(marks: Iterable[Mark]) -> list[Mark]:
    """One mark per trace and day: the oldest time, and a stated reason before none."""
    merged: dict[tuple[int, date, bytes], Mark] = {}
    for mark in marks:
        known = merged.get(mark[:3])
        if known is None:
            merged[mark[:3]] = mark
        else:
            oldest_at = min(known.marked_at, mark.marked_at)
            merged[mark[:3]] = known._replace(marked_at=oldest_at, reason=known.reason or mark.reason)
    return list(merged.values())


_MARK = """
insert into dirty_trace (project_id, day, shard, trace_id, marked_at, reason)
select * from unnest(%s::int[], %s::date[], %s::smallint[], %s::uuid[], %s::timestamptz[], %s::text[])
"""


def put_back(conn: psycopg.Connection, marks: Sequence[Mark]) -> None:
    """Queue claimed marks again behind the others, with the age they had."""
    if marks:
        columns = (
            [mark.project_id for mark in marks],
            [mark.day for mark in marks],
            [shard_of(mark.trace_id) for mark in marks],
            [mark.trace_id.hex() for mark in marks],
            [mark.marked_at for mark in marks],
            [mark.reason for mark in marks],
        )
        conn.execute(_MARK, columns)


# get_byte(…, 15) % 16 is shard_of().
_MARK_DAY = """
insert into dirty_trace (project_id, day, shard, trace_id, reason)
select project_id, day, get_byte(uuid_send(trace_id), 15) %% %(shards)s, trace_id, %(reason)s
from (select distinct project_id, day, trace_id from span where project_id = %(project_id)s and day = %(day)s) traces
order by trace_id
"""


def mark_day(conn: psycopg.Connection, project_id: int, *, day: date, reason: str | None = None) -> int:
    """Mark every trace of one day, for example after a price correction. Returns how many."""
    parameters = {"project_id": project_id, "day": day, "reason": reason, "shards": SHARDS}
    return conn.execute(_MARK_DAY, parameters).rowcount


_BACKLOG = """
select (select count(*) from dirty_trace), (select count(*) from dirty_cell), (select count(*) from dirty_actor),
       least((select min(marked_at) from dirty_trace), (select min(marked_at) from dirty_cell),
             (select min(marked_at) from dirty_actor))
"""


def backlog(conn: psycopg.Connection) -> Backlog:
    row = conn.execute(_BACKLOG).fetchone()
    assert row is not None
    return Backlog._make(row)
