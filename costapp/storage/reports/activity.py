"""Sessions, users and latency of a scope: figures that are kept beside the rollups, by fewer dimensions."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from costapp.storage.reports.cells import (
    CHARGE_EXPRESSIONS,
    CHARGES_IN_RANGE,
    IN_RANGE,
    Grain,
    Scope,
    actor_days,
    filter_sql,
    params,
)
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.sql import Connection, run
from costapp.storage.reports.sums import known_cost

#: requests per histogram slot, per value of a dimension; None = all values
Slots = Mapping[str | None, Mapping[int, int]]


class Session(NamedTuple):
    session_id: str
    user_id: str
    first_at: object
    last_at: object
    requests: int
    errors: int
    unpriced: int
    tokens: int
    cost_nano: int

    @property
    def known_cost_nano(self) -> int | None:
        return known_cost(self.cost_nano, self.unpriced)


class User(NamedTuple):
    user_id: str
    requests: int
    sessions: int
    unpriced: int
    cost_nano: int

    @property
    def known_cost_nano(self) -> int | None:
        return known_cost(self.cost_nano, self.unpriced)


def keeps_sessions(scope: Scope) -> bool:
    return scope.grain is Grain.DAY and set(scope.filters) <= {"feature"}


def sessions_by_feature(conn: Connection, scope: Scope) -> dict[str, int]:
    """Session-days per feature; {} where the scope cannot be answered (see ``keeps_sessions``)."""
    if not keeps_sessions(scope):
        return {}
    sql = f"""select feature, sum(sessions)::bigint from activity_day
        where {IN_RANGE}{filter_sql(scope)} group by 1"""
    return dict(run(conn, sql, params(scope)))


def keeps_latency(scope: Scope, by: str | None = None) -> bool:
    return all(DIMENSIONS[key].in_latency for key in scope.filters) and (by is None or DIMENSIONS[by].in_latency)


def latency_slots(conn: Connection, scope: Scope, by: str, *, values: list[str]) -> Slots:
    """Histogram slots per value of ``by`` (those in ``values``) and, under None, of everything."""
    if not keeps_latency(scope, by):
        return {}
    value, cells = histograms(scope, by)
    sql = f"""select {value}, slot, sum(requests)::bigint from {cells}
        and project_id = %(project_id)s and bucket_at >= date_trunc('hour', %(start)s) and bucket_at < %(end)s
        group by 1, 2"""
    found: dict[str | None, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    wanted = set(values)
    for value, slot, requests in run(conn, sql, params(scope)):
        found[None][slot] += requests
        if value in wanted:
            found[value][slot] += requests
    return found


def histograms(scope: Scope, by: str) -> tuple[str, str]:
    """The column with the values of ``by``, and the narrowest table that answers, with its condition begun."""
    table, column = "latency_day" if scope.grain is Grain.DAY else "latency_hour", DIMENSIONS[by].column
    asked = [key for key in scope.filters if key != by]
    if not asked:  # one dimension: split by it, cut to some of its values, or both
        cut = f" and value = any(%(is_{by})s)" if by in scope.filters else ""
        return "value", f"{table}_by where dimension = '{column}'{cut}"
    return column, f"{table} where true{filter_sql(scope)}"


def top_sessions(conn: Connection, scope: Scope, *, limit: int = 10) -> list[Session]:
    """The dearest sessions of a feature (or of the project), from sums per day."""
    where = f"{IN_RANGE}{filter_sql(scope)}"
    sql = f"""
        with dearest as materialized (
            select session_id from {actor_days(scope, "session_day")} where {where}
            group by session_id order by sum(cost_nano) desc, session_id limit %(limit)s)
        select session_id, max(user_id), min(first_at), max(last_at), sum(requests)::bigint, sum(errors)::bigint,
               sum(unpriced)::bigint, sum(tokens)::bigint, sum(cost_nano)::bigint
        from {actor_days(scope, "session_day")}
        where {where} and session_id = any(array(select session_id from dearest))
        group by 1 order by sum(cost_nano) desc, 1"""
    return [Session._make(row) for row in run(conn, sql, params(scope, limit=limit))]


def top_sessions_of_user(conn: Connection, scope: Scope, *, limit: int = 10) -> list[Session]:
    """The dearest sessions of one user, from the calls the user index finds."""
    cost = "cost_nano" if scope.gpu else "cost_nano - coalesce(gpu_nano, 0)"
    sql = f"""
        select session_id, max(user_id), min(start_at), max(start_at), count(*), count(error),
               count(*) - count(cost_nano),
               sum({CHARGE_EXPRESSIONS["tokens"]})::bigint,
               coalesce(sum({cost}), 0)::bigint
        from charge_full
        where {CHARGES_IN_RANGE} and session_id <> ''
              {filter_sql(scope)}
        group by 1 order by sum({cost}) desc nulls last, 1 limit %(limit)s"""
    return [Session._make(row) for row in run(conn, sql, params(scope, limit=limit))]


def top_users(conn: Connection, scope: Scope, *, limit: int = 10) -> list[User]:
    sql = f"""
        select user_id, sum(requests)::bigint, sum(sessions)::bigint, sum(unpriced)::bigint, sum(cost_nano)::bigint
        from {actor_days(scope, "user_day")}
        where {IN_RANGE}{filter_sql(scope)}
              and user_id <> ''
        group by 1 order by sum(cost_nano) desc, 1 limit %(limit)s"""
    return [User._make(row) for row in run(conn, sql, params(scope, limit=limit))]
