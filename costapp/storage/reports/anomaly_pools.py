"""What anomaly detection reads of GPU pools: their idle money hour by hour, and how their use changed."""

from datetime import datetime, timedelta
from typing import NamedTuple

from costapp.storage.reports.sql import Connection, run

#: The "dimension" of an anomaly whose value is the id of a pool; calls are not split by it.
POOL = "gpu_pool"


class PoolHour(NamedTuple):
    """One closed hour of one pool; 0 = GPUs of no pool."""

    pool_id: int
    hour_at: datetime
    idle_nano: int
    worked_us: int
    observed_us: int
    gpu_us: int
    unrated_us: int

    @property
    def known_idle_nano(self) -> int | None:
        """None when no part of the time has a rate, or nothing was observed: that is not $0."""
        return None if self.unrated_us == self.gpu_us or not self.observed_us else self.idle_nano

    @property
    def worked(self) -> float | None:
        """Share of the observed time in which GPUs worked, for calls or others."""
        return self.worked_us / self.observed_us if self.observed_us else None


class PoolUse(NamedTuple):
    """A window, and the sums of the same hours of ``days`` days before it."""

    name: str
    requests: int
    requests_before: int
    gpu_us: int
    gpu_us_before: int
    days: int


def pool_words(pool_id: int) -> str:
    """A pool without a name of its own."""
    return f"{pool_id}" if pool_id else "no pool"


def pool_hours(conn: Connection, project_id: int, start: datetime, end: datetime, *, limit: int) -> list[PoolHour]:
    """Hours that are worked out, of the ``limit`` pools with most idle money."""
    sql = """
        with hours as materialized (
            select pool_id, hour_at, sum(held_nano + free_nano)::bigint as idle_nano,
                   sum(attributed_us + busy_us)::bigint as worked_us,
                   sum(gpu_us - unobserved_us)::bigint as observed_us,
                   sum(gpu_us)::bigint as gpu_us, sum(unrated_us)::bigint as unrated_us
            from gpu_hour where project_id = %(project_id)s and hour_at >= %(start)s and hour_at < %(end)s
            group by 1, 2),
        dearest as (
            select pool_id from hours group by 1 order by sum(idle_nano) desc, 1 limit %(limit)s)
        select hours.* from hours join dearest using (pool_id) order by pool_id, hour_at"""
    values = {"project_id": project_id, "start": start, "end": end, "limit": limit}
    return [PoolHour._make(row) for row in run(conn, sql, values)]


def pool_use(
    conn: Connection, project_id: int, pool_id: int, start: datetime, end: datetime, *, days_back: int
) -> PoolUse:
    """Days on which the pool had no GPU in those hours are not counted."""
    sql = """
        with windows as (
            select back, %(start)s - back * interval '24 hours' as start_at,
                   %(end)s - back * interval '24 hours' as end_at
            from generate_series(0, %(days)s) as back),
        used as (
            select back,
                (select sum(requests) from gpu_model_hour where project_id = %(project_id)s and pool_id = %(pool_id)s
                 and hour_at >= start_at and hour_at < end_at) as requests,
                (select sum(gpu_us) from gpu_hour where project_id = %(project_id)s and pool_id = %(pool_id)s
                 and hour_at >= start_at and hour_at < end_at) as gpu_us
            from windows)
        select coalesce((select name from costapp_gpupool where id = %(pool_id)s and project_id = %(project_id)s), ''),
               coalesce(sum(requests) filter (where back = 0), 0)::bigint,
               coalesce(sum(requests) filter (where back > 0), 0)::bigint,
               coalesce(sum(gpu_us) filter (where back = 0), 0)::bigint,
               coalesce(sum(gpu_us) filter (where back > 0), 0)::bigint,
               count(*) filter (where back > 0)::int
        from used where gpu_us > 0"""
    width = end - start
    assert width <= timedelta(hours=24)
    values = {"project_id": project_id, "pool_id": pool_id, "start": start, "end": end, "days": days_back}
    return PoolUse._make(run(conn, sql, values)[0])
