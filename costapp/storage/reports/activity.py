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
    column = DIMENSIONS[by].column
    table = "latency_day" if scope.grain is Grain.DAY else "latency_hour"
    sql = f"""select {column}, slot, sum(requests)::bigint from {table}
        where project_id = %(project_id)s and bucket_at >= date_trunc('hour', %(start)s) and bucket_at < %(end)s
        {filter_sql(scope)} group by 1, 2"""
    found: dict[str | None, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    wanted = set(values)
    for value, slot, requests in run(conn, sql, params(scope)):
        found[None][slot] += requests
        if value in wanted:
            found[value][slot] += requests
    return found


def top_sessions(conn: Connection, scope: Scope, *, limit: int = 10) -> list[Session]:
    """The dearest sessions of a feature (or of the project), from sums per day."""
    sql = f"""
        select session_id, max(user_id), min(first_at), max(last_at), sum(requests)::bigint, sum(errors)::bigint,
               sum(unpriced)::bigint, sum(tokens)::bigint, sum(cost_nano)::bigint
        from session_day
        where {IN_RANGE}{filter_sql(scope)}
        group by 1 order by sum(cost_nano) desc, 1 limit %(limit)s"""
    return [Session._make(row) for row in run(conn, sql, params(scope, limit=limit))]


def top_sessions_of_user(conn: Connection, scope: Scope, *, limit: int = 10) -> list[Session]:
    """The dearest sessions of one user, from the calls the user index finds."""
    sql = f"""
        select session_id, max(user_id), min(start_at), max(start_at), count(*), count(error),
               count(*) - count(cost_nano),
               sum({CHARGE_EXPRESSIONS["tokens"]})::bigint,
               coalesce(sum(cost_nano), 0)::bigint
        from charge_full
        where {CHARGES_IN_RANGE} and session_id <> ''
              {filter_sql(scope)}
        group by 1 order by sum(cost_nano) desc nulls last, 1 limit %(limit)s"""
    return [Session._make(row) for row in run(conn, sql, params(scope, limit=limit))]


def top_users(conn: Connection, scope: Scope, *, limit: int = 10) -> list[User]:
    sql = f"""
        select user_id, sum(requests)::bigint, sum(sessions)::bigint, sum(unpriced)::bigint, sum(cost_nano)::bigint
        from user_day
        where {IN_RANGE}{filter_sql(scope)}
              and user_id <> ''
        group by 1 order by sum(cost_nano) desc, 1 limit %(limit)s"""
    return [User._make(row) for row in run(conn, sql, params(scope, limit=limit))]
