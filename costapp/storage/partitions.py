"""Partitions of the data-plane tables: made ahead, made for history, dropped when expired.

A partition is built beside its parent and then attached, which locks the parent far more lightly than
``create table … partition of``. Rows that arrived before their partition wait in the default one and
are moved when the partition is made.
"""

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import NamedTuple

import psycopg
from psycopg import sql

from costapp.storage.connection import RETRYABLE

#: A reader that keeps a table busy must not stop everyone queued behind our lock.
LOCK_TIMEOUT = "3s"
ATTEMPTS = 5

#: One maker or dropper of partitions at a time.
_MAINTENANCE_LOCK = 0x9A27

#: The tables partitioned by day of event, and whether one partition holds a day or a month.
DAILY, MONTHLY = "day", "month"
GRAINS = {"span": DAILY, "span_content": DAILY, "charge": MONTHLY, "metric_point": MONTHLY,
          "gpu_call": MONTHLY, "gpu_share": MONTHLY,
          "gpu_sample": DAILY, "gpu_gap": MONTHLY, "engine_sample": DAILY}  # fmt: skip


class Partition(NamedTuple):
    """One partition: the days [first_day, end_day) of ``table``."""

    table: str
    first_day: date
    end_day: date

    @property
    def name(self) -> str:
        style = "%Y%m%d" if GRAINS[self.table] == DAILY else "%Y%m"
        return f"{self.table}_{self.first_day.strftime(style)}"


def partition_of(table: str, day: date) -> Partition:
    if GRAINS[table] == DAILY:
        return Partition(table, day, day + timedelta(days=1))
    first_day = day.replace(day=1)
    return Partition(table, first_day, (first_day + timedelta(days=32)).replace(day=1))


_LIST = r"""
select child.relname,
       (regexp_match(pg_get_expr(child.relpartbound, child.oid), 'FROM \(''([0-9-]+)''\)'))[1]::date,
       (regexp_match(pg_get_expr(child.relpartbound, child.oid), 'TO \(''([0-9-]+)''\)'))[1]::date
from pg_inherits join pg_class child on child.oid = inhrelid
where inhparent = %s::regclass and pg_get_expr(child.relpartbound, child.oid) <> 'DEFAULT'
order by 2
"""


def existing(conn: psycopg.Connection, table: str) -> list[Partition]:
    return [Partition(table, first_day, end_day) for _, first_day, end_day in conn.execute(_LIST, (table,))]


def ensure_partitions(conn: psycopg.Connection, days: Iterable[date], *, tables: Iterable[str] = GRAINS) -> list[str]:
    """Make the partitions that hold ``days``, moving rows out of the default ones. Returns the names of new ones."""
    days = list(days)
    made = []
    for table in tables:
        known = {partition.first_day for partition in existing(conn, table)}
        wanted = {partition_of(table, day) for day in days}
        for partition in sorted(wanted):
            if partition.first_day not in known:
                _with_retries(conn, partition, _create)
                made.append(partition.name)
    return made


def waiting_days(conn: psycopg.Connection, table: str) -> list[date]:
    """Days whose rows sit in the default partition."""
    statement = sql.SQL("select distinct day from {} order by day").format(sql.Identifier(f"{table}_default"))
    return [day for (day,) in conn.execute(statement)]


def drop_before(conn: psycopg.Connection, table: str, *, day: date) -> list[str]:
    """Drop every partition that holds only days before ``day``, and record how far. Never deletes single rows."""
    expired = [waiting for waiting in waiting_days(conn, table) if waiting < day]
    ensure_partitions(conn, expired, tables=[table])
    dropped = []
    for partition in existing(conn, table):
        if partition.end_day <= day:
            _with_retries(conn, partition, _drop)
            dropped.append(partition.name)
    return dropped


def horizon(conn: psycopg.Connection, table: str) -> date | None:
    """The first day after the newest dropped one; ``None`` if nothing was ever dropped."""
    row = conn.execute("select day from retention_horizon where table_name = %s", (table,)).fetchone()
    return row[0] if row else None


_Action = Callable[[psycopg.Connection, Partition], None]


def _with_retries(conn: psycopg.Connection, partition: Partition, action: _Action) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with conn.transaction():
                conn.execute(sql.SQL("set local lock_timeout = {}").format(LOCK_TIMEOUT))
                conn.execute("select pg_advisory_xact_lock(%s, 0)", (_MAINTENANCE_LOCK,))
                return action(conn, partition)
        except RETRYABLE:
            if attempt == ATTEMPTS:
                raise
    return None


_CREATE = (
    "create table if not exists {child} (like {parent} including all)",
    "lock table {default} in access exclusive mode",  # nothing may arrive between moving and attaching
    "with moved as (delete from {default} where day >= {first} and day < {end} returning *)"
    " insert into {child} select * from moved",
    "alter table {parent} attach partition {child} for values from ({first}) to ({end})",
)
_DROP = (
    "drop table {child}",
    "insert into retention_horizon values ({table}, {end})"
    " on conflict (table_name) do update set day = greatest(retention_horizon.day, excluded.day)",
)


def _create(conn: psycopg.Connection, partition: Partition) -> None:
    if not _exists(conn, partition):  # somebody else may have made it while we waited
        _run(conn, partition, _CREATE)


def _drop(conn: psycopg.Connection, partition: Partition) -> None:
    if _exists(conn, partition):
        _run(conn, partition, _DROP)


def _exists(conn: psycopg.Connection, partition: Partition) -> bool:
    row = conn.execute("select to_regclass(%s) is not null", (partition.name,)).fetchone()
    return bool(row and row[0])


def _run(conn: psycopg.Connection, partition: Partition, statements: Iterable[str]) -> None:
    parts = {
        "child": sql.Identifier(partition.name),
        "parent": sql.Identifier(partition.table),
        "default": sql.Identifier(f"{partition.table}_default"),
        "table": sql.Literal(partition.table),
        "first": sql.Literal(partition.first_day.isoformat()),
        "end": sql.Literal(partition.end_day.isoformat()),
    }
    for statement in statements:
        conn.execute(sql.SQL(statement).format(**parts))
