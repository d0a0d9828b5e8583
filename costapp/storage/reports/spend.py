"""Spend of a scope: totals, split by a dimension, over time, with the period before. Used by every page."""

from datetime import datetime
from typing import NamedTuple

from costapp.storage.reports.cells import Scope, bucket, params, source
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.sql import Connection, run
from costapp.storage.reports.sums import MEASURES, Sums, known_cost

SUMS = ", ".join(f"sum({name})::bigint" for name in MEASURES)
CURRENT_SUMS = ", ".join(
    f"coalesce(sum({name}) filter (where bucket_at >= %(now_start)s), 0)::bigint" for name in MEASURES
)
PREVIOUS = "filter (where bucket_at < %(now_start)s)"


class Split(NamedTuple):
    """One value of the dimension in this period, and the same in the period before."""

    value: str
    now: Sums
    before_cost_nano: int
    before_requests: int
    before_unpriced: int


class SplitTable(NamedTuple):
    total: Split
    rows: list[Split]
    distinct: int  #: how many values there are; rows may be fewer


class Point(NamedTuple):
    bucket_at: datetime
    value: str | None  #: None = all other values
    cost_nano: int
    requests: int
    unpriced: int

    @property
    def known_cost_nano(self) -> int | None:
        return known_cost(self.cost_nano, self.unpriced)


class Contributor(NamedTuple):
    value: str
    cost_nano: int
    requests: int
    unpriced: int
    distinct: int

    @property
    def known_cost_nano(self) -> int | None:
        return known_cost(self.cost_nano, self.unpriced)


def split(conn: Connection, scope: Scope, by: str, *, before: datetime | None, limit: int = 200) -> SplitTable:
    """Sums by ``by``, dearest first, with an exact total over all values; ``before`` starts the previous period."""
    column = DIMENSIONS[by].column
    whole = scope.between(before, scope.end) if before else scope
    sql = f"""
        select {column}, grouping({column}), {CURRENT_SUMS},
               coalesce(sum(cost_nano) {PREVIOUS}, 0)::bigint, coalesce(sum(requests) {PREVIOUS}, 0)::bigint,
               coalesce(sum(unpriced) {PREVIOUS}, 0)::bigint, count(*) over ()
        from {source(whole, by)}
        group by grouping sets (({column}), ())
        order by 2 desc, sum(cost_nano) filter (where bucket_at >= %(now_start)s) desc nulls last,
                 sum(requests) desc, {column}
        limit %(limit)s"""
    rows = run(conn, sql, params(whole, now_start=scope.start, limit=limit + 1))
    splits = [Split(row[0] or "", Sums._make(row[2:-4]), *row[-4:-1]) for row in rows]
    return SplitTable(total=splits[0], rows=splits[1:], distinct=rows[0][-1] - 1)


def series(conn: Connection, scope: Scope, by: str, *, values: list[str], before: datetime | None) -> list[Point]:
    """Per bucket: each of ``values``, and everything else as one; the previous period included."""
    column = DIMENSIONS[by].column
    whole = scope.between(before, scope.end) if before else scope
    sql = f"""
        select {bucket(whole)}, case when {column} = any(%(values)s) then {column} end,
               sum(cost_nano)::bigint, sum(requests)::bigint, sum(unpriced)::bigint
        from {source(whole, by)} group by 1, 2 order by 1"""
    return [Point._make(row) for row in run(conn, sql, params(whole, values=values))]


def trend(conn: Connection, scope: Scope) -> list[tuple[datetime, Sums]]:
    """All sums per bucket: the small charts of a drill-down page."""
    sql = f"select {bucket(scope)}, {SUMS} from {source(scope)} group by 1 order by 1"
    return [(row[0], Sums._make(row[1:])) for row in run(conn, sql, params(scope))]


def contributors(
    conn: Connection, scope: Scope, dimensions: list[str], *, limit: int = 6
) -> dict[str, list[Contributor]]:
    """The dearest values of several dimensions in one pass over the cells."""
    columns = [DIMENSIONS[key].column for key in dimensions]
    sets = ", ".join(f"({column})" for column in columns)
    which = " ".join(f"when grouping({c}) = 0 then {i}" for i, c in enumerate(columns))
    value = f"coalesce({', '.join(columns)})"
    sql = f"""
        with grouped as (
            select case {which} end as which, {value} as value, sum(cost_nano)::bigint as cost_nano,
                   sum(requests)::bigint as requests, sum(unpriced)::bigint as unpriced
            from {source(scope)} group by grouping sets ({sets})),
        ranked as (
            select *, row_number() over (partition by which order by cost_nano desc, requests desc, value) as place,
                   count(*) over (partition by which) as values_of_dimension from grouped)
        select which, value, cost_nano, requests, unpriced, values_of_dimension
        from ranked where place <= %(limit)s order by which, place"""
    found: dict[str, list[Contributor]] = {key: [] for key in dimensions}
    for which_one, *row in run(conn, sql, params(scope, limit=limit)):
        found[dimensions[which_one]].append(Contributor._make(row))
    return found


def first_seen(conn: Connection, project_id: int, by: str, *, limit: int = 400) -> list[str]:
    """Values in the order of their first day, the dearest of that day first: how identities get their colours."""
    column = DIMENSIONS[by].column
    sql = f"""
        with days as (
            select {column} as value, bucket_at, sum(cost_nano) as cost_nano from rollup_day
            where project_id = %(project_id)s and {column} <> '' group by 1, 2)
        select value from (select distinct on (value) * from days order by value, bucket_at) first_days
        order by bucket_at, cost_nano desc, value limit %(limit)s"""
    return [row[0] for row in run(conn, sql, {"project_id": project_id, "limit": limit})]
