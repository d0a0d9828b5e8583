"""The state line: is there data, how fresh is it, and what this month cost so far."""

from datetime import datetime
from typing import NamedTuple

from costapp.core.providers import SELF_HOSTED
from costapp.storage.reports.cells import Scope, params, source
from costapp.storage.reports.sql import Connection, run


class State(NamedTuple):
    checked_at: datetime  #: the database's clock
    first_at: datetime | None  #: first day with calls; None = no data yet
    last_at: datetime | None  #: last 5-minute cell with calls
    waiting_since: datetime | None  #: oldest telemetry that is stored but not yet in the sums; None = all is in
    month_cost_nano: int
    month_requests: int
    month_unpriced: int

    @property
    def complete_until(self) -> datetime:
        """Everything acknowledged before this moment is in the sums."""
        return self.waiting_since or self.checked_at


class ModelGap(NamedTuple):
    """A model with calls that carry no price, or no usage; `tokens` are the unpriced ones."""

    provider: str
    model: str
    requests: int
    tokens: int

    @property
    def is_own(self) -> bool:
        """On servers of one's own: no rate is missing, its GPU hours are open, or have no engine or rate."""
        return self.provider == SELF_HOSTED


def state(conn: Connection, project_id: int, *, month_start: datetime) -> State:
    sql = """
        with month as (
            select coalesce(sum(cost_nano), 0)::bigint as cost_nano, coalesce(sum(requests), 0)::bigint as requests,
                   coalesce(sum(unpriced), 0)::bigint as unpriced
            from rollup_day where project_id = %(project_id)s and bucket_at >= %(month_start)s)
        select now(),
               (select min(bucket_at) from rollup_day where project_id = %(project_id)s),
               (select max(bucket_at) from rollup_5m where project_id = %(project_id)s),
               least((select min(marked_at) from dirty_trace where project_id = %(project_id)s),
                     (select min(marked_at) from dirty_cell where project_id = %(project_id)s)),
               month.cost_nano, month.requests, month.unpriced
        from month"""
    return State._make(run(conn, sql, {"project_id": project_id, "month_start": month_start})[0])


def first_day(conn: Connection, project_id: int) -> datetime | None:
    """The first day with calls."""
    sql = "select min(bucket_at) from rollup_day where project_id = %(project_id)s"
    found: datetime | None = run(conn, sql, {"project_id": project_id})[0][0]
    return found


def unpriced_models(conn: Connection, scope: Scope, *, limit: int = 50) -> list[ModelGap]:
    """Models with tokens that carry no price: their usage is known, a rate is missing. Most calls first."""
    return _gaps(conn, scope, "unpriced", "sum(tokens) > sum(priced_tokens)", limit)


def models_without_usage(conn: Connection, scope: Scope, *, limit: int = 50) -> list[ModelGap]:
    """Models whose calls came without usable token counts, failed calls included. Most calls first."""
    return _gaps(conn, scope, "usage_unknown", "sum(usage_unknown) > 0", limit)


def _gaps(conn: Connection, scope: Scope, requests: str, having: str, limit: int) -> list[ModelGap]:
    sql = f"""
        select provider, model, sum({requests})::bigint, sum(tokens - priced_tokens)::bigint
        from {source(scope)} where {requests} > 0 group by 1, 2 having {having} order by 3 desc, 1, 2 limit %(limit)s"""
    return [ModelGap._make(row) for row in run(conn, sql, params(scope, limit=limit))]
