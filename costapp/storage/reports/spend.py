"""Spend of a scope: totals, split by a dimension, over time, with the period before. Used by every page."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from costapp.storage.reports.cells import (
    IN_RANGE,
    Scope,
    actor_days,
    bucket,
    filter_sql,
    needs_charges,
    params,
    require_answerable,
    source,
)
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.sql import Connection, run
from costapp.storage.reports.sums import MEASURES, USER_DAY_KEEPS, Sums, add_up, known_cost

SUMS = ", ".join(f"sum({name})::bigint" for name in MEASURES)


class Split(NamedTuple):
    """One value of the dimension."""

    value: str
    sums: Sums


class SplitTable(NamedTuple):
    total: Sums  #: over all values, the ones beyond `rows` included
    rows: list[Split]  #: dearest first
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


def split(conn: Connection, scope: Scope, by: str, *, limit: int = 200) -> SplitTable:
    """Sums by ``by``, dearest first, with an exact total over all values."""
    if by == "user" and not needs_charges(scope):
        return _split_users(conn, scope, limit=limit)
    column = DIMENSIONS[by].column
    sql = f"""
        select {column}, count(*) over (), {SUMS} from {source(scope, by)} group by 1
        order by sum(cost_nano) desc, sum(requests) desc, 1 limit %(limit)s"""
    rows = run(conn, sql, params(scope, limit=limit))
    splits = [Split(row[0], Sums._make(row[2:])) for row in rows]
    distinct = rows[0][1] if rows else 0
    total = add_up(row.sums for row in splits) if distinct <= len(splits) else totals(conn, scope)
    return SplitTable(total, splits, distinct)


def totals(conn: Connection, scope: Scope) -> Sums:
    row = run(conn, f"select {SUMS} from {source(scope)}", params(scope))[0]
    return Sums._make(amount or 0 for amount in row)


USER_SUMS = ", ".join(f"sum({name})::bigint" for name in USER_DAY_KEEPS)
ALL_USERS = ", ".join(f"sum(sum({name})) over ()::bigint" for name in USER_DAY_KEEPS)


def _split_users(conn: Connection, scope: Scope, *, limit: int) -> SplitTable:
    """Users from ``user_day``; what the range holds beyond them is the user '', so that both have one total."""
    require_answerable(scope, "user")
    sql = f"""
        select user_id, count(*) over (), {USER_SUMS}, {ALL_USERS} from {actor_days(scope, "user_day")}
        where {IN_RANGE}{filter_sql(scope)} and user_id <> ''
        group by 1 order by sum(cost_nano) desc, sum(requests) desc, 1 limit %(limit)s"""
    rows = run(conn, sql, params(scope, limit=limit))
    whole, width = totals(conn, scope), len(USER_DAY_KEEPS)
    splits = [Split(row[0], _user_sums(row[2 : 2 + width])) for row in rows]
    named = rows[0][2 + width :] if rows else (0,) * width
    nobody = _user_sums(getattr(whole, name) - amount for name, amount in zip(USER_DAY_KEEPS, named, strict=True))
    if nobody.requests:
        splits = sorted([*splits, Split("", nobody)], key=lambda row: -(row.sums.cost_nano or 0))[:limit]
    return SplitTable(whole, splits, (rows[0][1] if rows else 0) + bool(nobody.requests))


def _user_sums(amounts: Iterable[int]) -> Sums:
    """Sums of which only those are known that ``user_day`` keeps."""
    kept = dict(zip(USER_DAY_KEEPS, amounts, strict=True))
    return Sums._make(kept.get(name) for name in MEASURES)


def series(
    conn: Connection, scope: Scope, by: str, *, values: list[str] | None, before: datetime | None
) -> list[Point]:
    """Per bucket: each of ``values`` (None = of all), and everything else as one; the previous period included."""
    column = DIMENSIONS[by].column
    whole = scope.between(before, scope.end) if before else scope
    if by == "user" and not needs_charges(scope):
        return _series_users(conn, whole, values=values or [])
    value = f"case when {column} = any(%(values)s) then {column} end" if values is not None else column
    sql = f"""
        select {bucket(whole)}, {value}, {POINT_SUMS}
        from {source(whole, by)} group by 1, 2 order by 1"""
    return [Point._make(row) for row in run(conn, sql, params(whole, values=values))]


POINT_SUMS = "sum(cost_nano)::bigint, sum(requests)::bigint, sum(unpriced)::bigint"


def _series_users(conn: Connection, scope: Scope, *, values: list[str]) -> list[Point]:
    """The named users by their index, and what the days hold beyond them: '' is among the others."""
    sql = f"""
        select bucket_at, user_id, {POINT_SUMS} from {actor_days(scope, "user_day")}
        where {IN_RANGE}{filter_sql(scope)} and user_id = any(%(values)s) group by 1, 2"""
    named = [Point._make(row) for row in run(conn, sql, params(scope, values=[v for v in values if v]))]
    rest = {
        row[0]: list(row[1:])
        for row in run(conn, f"select bucket_at, {POINT_SUMS} from {source(scope)} group by 1", params(scope))
    }
    for point in named:
        left = rest.setdefault(point.bucket_at, [0, 0, 0])
        for i, amount in enumerate((point.cost_nano, point.requests, point.unpriced)):
            left[i] -= amount
    return named + [Point(at, None, *amounts) for at, amounts in rest.items()]


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
