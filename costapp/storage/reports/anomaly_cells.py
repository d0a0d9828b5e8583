"""What anomaly detection reads: many hourly series at once, and the leaves of a window to explain one.

From the same cells as the pages, so that an anomaly and its page show one number.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from costapp.storage.reports.cells import (
    CHARGE_DIMENSIONS,
    CHARGE_MEASURES,
    CHARGES_IN_RANGE,
    ROLLUP_DIMENSIONS,
    ROLLUP_MEASURES,
    Grain,
    Scope,
    filter_sql,
    needs_charges,
    params,
    source,
)
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.sql import Connection, run

#: Measures that a watched series has, in the order of ``Cell``.
_WATCHED = (
    "cost_nano", "requests", "unpriced", "retries", "input_tokens", "cache_read_tokens", "cache_write_tokens",
    "output_tokens", "reasoning_tokens",
)  # fmt: skip
#: What the leaves of a window carry beside their dimensions: enough to say which part of the cost moved.
LEAF_MEASURES = (
    "requests", "unpriced", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens",
    "reasoning_tokens", "priced_tokens", "input_nano", "cache_read_nano", "cache_write_nano", "output_nano",
    "cost_nano",
)  # fmt: skip


class Cell(NamedTuple):
    """One hour of one series; ``dimension`` "" is the whole project."""

    dimension: str
    value: str
    bucket_at: datetime
    cost_nano: int
    requests: int
    unpriced: int
    retries: int
    input_tokens: int  # uncached
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int

    @property
    def known_cost_nano(self) -> int | None:
        return None if self.unpriced and not self.cost_nano else self.cost_nano


class Watched(NamedTuple):
    cells: list[Cell]
    beyond: int  #: series beyond the limit, which are not among the cells


class Leaf(NamedTuple):
    bucket_at: datetime
    values: tuple[str, ...]  #: one per asked dimension
    amounts: tuple[int, ...]  #: LEAF_MEASURES


class Spender(NamedTuple):
    """The user and session with the highest cost of a scope, and that cost."""

    user_id: str
    session_id: str
    cost_nano: int


def first_cell(conn: Connection, project_id: int) -> datetime | None:
    """The first hour with calls."""
    sql = "select min(bucket_at) from rollup_hour where project_id = %(project_id)s"
    found: datetime | None = run(conn, sql, {"project_id": project_id})[0][0]
    return found


def watched_series(
    conn: Connection, scope: Scope, dimensions: Sequence[str], *, tail_until: datetime | None, limit: int
) -> Watched:
    """The whole project and each value of each dimension, by hour; the dearest ``limit`` series of the scope.

    ``tail_until``: the 60 minutes before it (a 5-minute edge) stand for the hour that begins at ``scope.end``.
    """
    columns = [DIMENSIONS[key].column for key in dimensions]
    sets = ", ".join(["(bucket_at)", *(f"(bucket_at, {column})" for column in columns)])
    which = " ".join(f"when grouping({column}) = 0 then {i}" for i, column in enumerate(columns))
    sums = ", ".join(f"sum({name})::bigint as {name}" for name in _WATCHED)
    sql = f"""
        with cells as (
            select bucket_at, {ROLLUP_DIMENSIONS}, {ROLLUP_MEASURES} from rollup_hour
            where project_id = %(project_id)s and bucket_at >= %(start)s and bucket_at < %(end)s
            union all
            select %(end)s, {ROLLUP_DIMENSIONS}, {ROLLUP_MEASURES} from rollup_5m
            where project_id = %(project_id)s and bucket_at >= %(tail)s - interval '1 hour' and bucket_at < %(tail)s),
        grouped as materialized (
            select case {which} else -1 end as which, coalesce({", ".join(columns)}, '') as value, bucket_at, {sums}
            from cells group by grouping sets ({sets})),
        series as (
            select which, value, row_number() over (order by which >= 0, sum(cost_nano) desc, which, value) as place,
                   count(*) over () as all_series
            from grouped group by which, value)
        select which, value, bucket_at, {", ".join(_WATCHED)}, all_series from grouped join series using (which, value)
        where place <= %(limit)s order by which, value, bucket_at"""
    rows = run(conn, sql, params(scope, tail=tail_until or datetime.min.replace(tzinfo=scope.end.tzinfo), limit=limit))
    names = {-1: "", **dict(enumerate(dimensions))}
    cells = [Cell(names[which], *rest) for which, *rest, _ in rows]
    return Watched(cells, max(0, rows[0][-1] - limit) if rows else 0)


def leaves(conn: Connection, scope: Scope, dimensions: Sequence[str], *, days_back: int, limit: int) -> list[Leaf]:
    """Hours of ``scope`` and the same hours of the days before it, split by all of ``dimensions``.

    At most ``limit`` rows, the dearest first. By user only where the scope's filters leave an index to find them.
    """
    columns = ", ".join(DIMENSIONS[key].column for key in dimensions)
    sums = ", ".join(f"sum({name})::bigint" for name in LEAF_MEASURES)
    whole = scope.between(scope.start - timedelta(days=days_back), scope.end)._replace(grain=Grain.HOUR)
    sql = f"""
        select * from (
            select date_bin('1 hour', bucket_at, %(start)s) as hour, {columns}, {sums} from {_cells(whole, dimensions)}
            where (extract(epoch from bucket_at - %(window)s)::bigint %% 86400 + 86400) %% 86400 < %(width)s
            group by hour, {columns} order by sum(cost_nano) desc limit %(limit)s) dearest
        order by hour, {columns}"""
    width = min(86400, int((scope.end - scope.start).total_seconds()))
    rows = run(conn, sql, params(whole, window=scope.start, width=width, limit=limit))
    split = 1 + len(dimensions)
    return [Leaf(row[0], tuple(row[1:split]), tuple(row[split:])) for row in rows]


def usage_by(conn: Connection, scope: Scope, dimensions: Sequence[str], *, limit: int) -> list[Leaf]:
    """Sums of a scope by several dimensions, the dearest ``limit`` of them; the time of all is the scope's start."""
    columns = ", ".join(DIMENSIONS[key].column for key in dimensions)
    sums = ", ".join(f"sum({name})::bigint" for name in LEAF_MEASURES)
    sql = f"""
        select {columns}, {sums} from {source(scope)} group by {columns}
        order by sum(cost_nano) desc, {columns} limit %(limit)s"""
    split = len(dimensions)
    return [
        Leaf(scope.start, tuple(row[:split]), tuple(row[split:])) for row in run(conn, sql, params(scope, limit=limit))
    ]


def _cells(scope: Scope, dimensions: Sequence[str]) -> str:
    if needs_charges(scope) or not all(DIMENSIONS[key].in_rollup for key in dimensions):
        return f"""(select start_at as bucket_at, {CHARGE_DIMENSIONS}, {CHARGE_MEASURES} from charge_full
            where {CHARGES_IN_RANGE}{filter_sql(scope)}) cells"""
    return f"""(select bucket_at, {ROLLUP_DIMENSIONS}, {ROLLUP_MEASURES} from rollup_5m
        where project_id = %(project_id)s and bucket_at >= %(start)s and bucket_at < %(end)s
              {filter_sql(scope)}) cells"""


def top_spender(conn: Connection, scope: Scope) -> Spender | None:
    """Who spent most in the scope, from its charges; None when no call names a user or session."""
    sql = f"""
        select user_id, session_id, sum(cost_nano)::bigint from charge_full
        where {CHARGES_IN_RANGE}{filter_sql(scope)} and (user_id <> '' or session_id <> '')
        group by 1, 2 having sum(cost_nano) > 0 order by 3 desc, 1, 2 limit 1"""
    rows = run(conn, sql, params(scope))
    return Spender._make(rows[0]) if rows else None
