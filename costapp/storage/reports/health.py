"""Data health: what arrived, what was refused and why, what waits, and how much of it is explained."""

from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from costapp.storage.reports.cells import Grain, Scope, params, source
from costapp.storage.reports.sql import Connection, run
from costapp.storage.reports.sums import ratio


class Ingest(NamedTuple):
    """What the collectors did in one bucket; None as bucket = the whole range."""

    bucket_at: datetime | None
    requests: int
    received: int
    stored: int
    duplicates: int
    rejected: int
    bytes: int

    @property
    def ignored(self) -> int:
        """Read and left aside: log records and data points that say nothing about usage."""
        return max(0, self.received - self.stored - self.duplicates - self.rejected)


class Reason(NamedTuple):
    reason: str
    times: int


class ServiceHealth(NamedTuple):
    service: str
    requests: int
    unpriced: int
    unattributed: int
    usage_unknown: int
    errors: int
    tokens: int
    metric_tokens: int | None  #: what the service's own token counters say; None = it sends none

    @property
    def explained(self) -> float | None:
        """Share of the metered tokens that spans account for; above 1 the metrics miss some."""
        return ratio(self.tokens, self.metric_tokens)


class Queue(NamedTuple):
    traces: int
    oldest_trace_at: datetime | None
    cells: int
    oldest_cell_at: datetime | None


class Arrival(NamedTuple):
    """What a waiting page can tell about the first telemetry."""

    received: int
    stored: int
    rejected: int
    last_at: datetime | None
    requests: int  #: model calls attributed so far
    services: list[str]
    features: list[str]


class OddTrace(NamedTuple):
    """A trace that could not be resolved, or only span by span."""

    day: date
    trace_id: UUID
    kind: str  #: failed | oversize
    at: datetime
    detail: str


class SelfCheck(NamedTuple):
    """One invariant of the ledger in its last run."""

    run_at: datetime
    name: str
    invariant: str
    differences: int


COUNTS = ("requests", "received", "stored", "duplicates", "rejected", "bytes")
INGEST_SUMS = ", ".join(f"sum({name})::bigint" for name in COUNTS)
INGEST_RANGE = "project_id = %(project_id)s and at >= %(start)s and at < %(end)s"


def ingest(conn: Connection, scope: Scope) -> list[Ingest]:
    """Per bucket by time of arrival, preceded by the whole range."""
    edge = "date_trunc('day', at, %(time_zone)s)" if scope.grain is Grain.DAY else "date_bin(%(step)s, at, %(start)s)"
    sql = f"""select {edge}, {INGEST_SUMS} from ingest_log where {INGEST_RANGE}
              group by grouping sets ((1), ()) order by 1 nulls first"""
    rows = [Ingest(row[0], *(amount or 0 for amount in row[1:])) for row in run(conn, sql, params(scope))]
    return rows or [Ingest(None, 0, 0, 0, 0, 0, 0)]


def reasons(conn: Connection, scope: Scope) -> list[Reason]:
    """Why values were refused, cut or odd, most frequent first."""
    sql = f"""select key, sum(value::bigint)::bigint from ingest_log, jsonb_each_text(reasons) where {INGEST_RANGE}
              group by 1 order by 2 desc, 1 limit 40"""
    return [Reason._make(row) for row in run(conn, sql, params(scope))]


def services(conn: Connection, scope: Scope, *, limit: int = 50) -> list[ServiceHealth]:
    """How well each service is covered, most requests first; tokens beside what its own counters say."""
    sql = f"""
        with calls as (
            select service, sum(requests)::bigint as requests, sum(unpriced)::bigint as unpriced,
                   coalesce(sum(requests) filter (where feature = ''), 0)::bigint as unattributed,
                   sum(usage_unknown)::bigint as usage_unknown, sum(errors)::bigint as errors,
                   sum(tokens)::bigint as tokens
            from {source(scope)} group by 1),
        metered as (
            select service, sum(case when is_delta then tokens else grown end)::bigint as tokens from (
                select service, is_delta, tokens, tokens - lag(tokens, 1, 0::bigint) over (
                    partition by stream, start_ns order by time_ns) as grown
                from metric_point where project_id = %(project_id)s
                    and day between (%(start)s at time zone 'UTC')::date and (%(end)s at time zone 'UTC')::date) points
            group by 1)
        select coalesce(calls.service, metered.service), coalesce(requests, 0), coalesce(unpriced, 0),
               coalesce(unattributed, 0), coalesce(usage_unknown, 0), coalesce(errors, 0), coalesce(calls.tokens, 0),
               metered.tokens
        from calls full join metered using (service) order by 2 desc, 1 limit %(limit)s"""
    return [ServiceHealth._make(row) for row in run(conn, sql, params(scope, limit=limit))]


def queue(conn: Connection, project_id: int) -> Queue:
    """Stored telemetry that is not in the figures yet."""
    sql = """
        select t.n, t.oldest, c.n, c.oldest
        from (select count(*) as n, min(marked_at) as oldest from dirty_trace where project_id = %(project_id)s) t,
             (select count(*) as n, min(marked_at) as oldest from dirty_cell where project_id = %(project_id)s) c"""
    return Queue._make(run(conn, sql, {"project_id": project_id})[0])


def arrival(conn: Connection, project_id: int, *, since: datetime) -> Arrival:
    """What has arrived since a moment: for the page that waits for the first span."""
    sql = """
        with log as (
            select coalesce(sum(received), 0)::bigint as received, coalesce(sum(stored), 0)::bigint as stored,
                   coalesce(sum(rejected), 0)::bigint as rejected, max(at) as last_at
            from ingest_log where project_id = %(project_id)s and at >= %(since)s),
        calls as (
            select count(*) as requests, coalesce((array_agg(distinct service))[1:5], '{}') as services,
                   coalesce((array_agg(distinct feature) filter (where feature <> ''))[1:5], '{}') as features
            from (select service, feature from charge_full
                  where project_id = %(project_id)s and start_at >= %(since)s
                  and date_bin('5 minutes', start_at, 'epoch') >= date_bin('5 minutes', %(since)s, 'epoch')
                  limit 1000) found)
        select log.received, log.stored, log.rejected, log.last_at, calls.requests, calls.services, calls.features
        from log, calls"""
    return Arrival._make(run(conn, sql, {"project_id": project_id, "since": since})[0])


def odd_traces(conn: Connection, project_id: int, *, limit: int = 20) -> list[OddTrace]:
    sql = """select day, trace_id, kind, at, detail from odd_trace where project_id = %(project_id)s
             order by at desc limit %(limit)s"""
    return [OddTrace._make(row) for row in run(conn, sql, {"project_id": project_id, "limit": limit})]


def self_check(conn: Connection, project_id: int) -> list[SelfCheck]:
    """The last run over the whole ledger; differences are counted for this project and for rows of none."""
    sql = """
        select run_at, name, invariant,
               case when differences = 0 then 0 else (
                   select count(*) from jsonb_array_elements(shown) item
                   where coalesce((item ->> 'project_id')::int, %(project_id)s) = %(project_id)s) end
        from costapp_ledgercheck where run_at = (select max(run_at) from costapp_ledgercheck) order by id"""
    return [SelfCheck._make(row) for row in run(conn, sql, {"project_id": project_id})]
