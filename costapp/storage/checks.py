"""The invariants of the ledger as queries. Each returns what breaks it, so no rows means it holds.

They run in one snapshot. Cells, days and traces that wait in an outbox are left out: they are known to be
behind and will be recomputed; that they do not wait for long is an invariant of its own.
"""

from typing import LiteralString, NamedTuple

import psycopg

from costapp.storage import rollups

#: Marks older than this mean that nobody works on them.
STALE_MARK = "15 minutes"
#: Differences that are kept per check.
SHOWN = 20


class Check(NamedTuple):
    name: str
    invariant: str  # one sentence, shown to people
    query: LiteralString  # rows of (project_id, where, expected, actual)


class Difference(NamedTuple):
    project_id: int | None
    where: str
    expected: str
    actual: str


class Result(NamedTuple):
    check: Check
    differences: int
    shown: list[Difference]


_COMPONENTS = (
    "input_nano + output_nano + coalesce(cache_read_nano, 0) + coalesce(cache_write_nano, 0)"
    " + coalesce(other_nano, 0) + coalesce(gpu_nano, 0)"
)
_SUMS = ("requests", "errors", "unpriced", "input_tokens", "output_tokens", "duration_us", "cost_nano")
_PENDING_CELLS = "select project_id, bucket_at from dirty_cell where grain = 0"
_ZONE = "coalesce((select time_zone from rollup_zone zone where zone.project_id = {table}.project_id), 'UTC')"


# Sums outlive the charges they were made of: what lies before this cannot be compared with charges any more.
_CHARGES_KEPT = (
    "coalesce((select day + 2 from retention_horizon where table_name = 'charge')::timestamptz, '-infinity')"
)


def _compare(left: str, right: str, *, since: str = "'-infinity'") -> str:
    """Both sides have (project_id, bucket_at, sums as text); rows that differ or exist on one side only."""
    return f"""
    select project_id, bucket_at::text, l.sums, r.sums from ({left}) l
    full join ({right}) r using (project_id, bucket_at)
    where l.sums is distinct from r.sums and bucket_at >= {since}
    """


def _sums_of(table: str, bucket: str, *, where: str = "true", sums: tuple[str, ...] = _SUMS) -> str:
    added = " || ' / ' || ".join(f"sum({name})" for name in sums)
    return f"select project_id, {bucket} as bucket_at, {added} as sums from {table} where {where} group by 1, 2"


def _charges_by(bucket: str, *, where: str, sums: tuple[str, ...] = _SUMS) -> str:
    added = " || ' / ' || ".join(rollups.SUMS[name] for name in sums)
    return f"select project_id, {bucket} as bucket_at, {added} as sums from charge where {where} group by 1, 2"


def _local_day(at: str, table: str) -> str:
    zone = _ZONE.format(table=table)
    return f"date_trunc('day', {at}, {zone})"


_CELL_OF_CHARGE = "date_bin('5 minutes', start_at, 'epoch')"
_NOT_PENDING_CELL = f"(project_id, {{bucket}}) not in ({_PENDING_CELLS})"
_PENDING_DAYS = (
    "(project_id, {day}) not in (select project_id, " + _local_day("bucket_at", "dirty_cell") + " from dirty_cell)"
    " and (project_id, {day}) not in (select project_id, " + _local_day("quarter_at", "dirty_actor")
    + " from dirty_actor)"
)  # fmt: skip
_CHARGE_DAY = _local_day("start_at", "charge")
_ACTOR_SUMS = ("requests", "errors", "unpriced", "cost_nano")


def _actor_check(table: str, *, named: str) -> str:
    return _compare(
        _charges_by(_CHARGE_DAY, where=f"{named} and {_PENDING_DAYS.format(day=_CHARGE_DAY)}", sums=_ACTOR_SUMS),
        _sums_of(table, "bucket_at", where=_PENDING_DAYS.format(day="bucket_at"), sums=_ACTOR_SUMS),
        since=_CHARGES_KEPT,
    )


_LATENCY_PENDING = (
    "(project_id, {hour}) not in (select project_id, date_bin('1 hour', bucket_at, 'epoch') from dirty_cell"
    " where grain in (0, 1))"
)


def _histograms_check(table: str) -> str:
    """Both tables as one number per cell, which every count, slot and value of every dimension takes part in."""
    weight = "sum(requests * (slot + 1) * hashtext({key} || {value})::numeric)"
    whole = " + ".join(weight.format(key=f"'{key} '", value=key) for key in rollups.LATENCY_DIMENSIONS)
    return _compare(
        f"select project_id, bucket_at, ({whole})::text as sums from {table} group by 1, 2",
        f"""select project_id, bucket_at, ({weight.format(key="dimension || ' '", value="value")})::text as sums
            from {table}_by group by 1, 2""",
    )


_HOUR_OF_CHARGE = "date_bin('1 hour', start_at, 'epoch')"

CHECKS = (
    Check(
        "charge-components", "The cost of every charge is the sum of its components.",
        f"""select project_id, encode(uuid_send(trace_id), 'hex'), ({_COMPONENTS})::text, cost_nano::text from charge
            where cost_nano is not null and cost_status <> 3 and cost_nano <> {_COMPONENTS}""",
    ),
    Check(
        "unpriced-is-not-zero", "A charge without a price has no cost, and one with a price has one.",
        """select project_id, encode(uuid_send(trace_id), 'hex'), cost_status::text, cost_nano::text from charge
           where (cost_status = 0) <> (cost_nano is null)""",
    ),
    Check(
        "charge-has-its-kind", "Every charge refers to a kind of its own project and month.",
        """select charge.project_id, encode(uuid_send(trace_id), 'hex') || ' ' || day, 'a kind', kind_id::text
           from charge left join charge_kind kind on kind.id = kind_id and kind.project_id = charge.project_id
           and kind.month = date_trunc('month', day)::date where kind.id is null""",
    ),
    Check(
        "charge-has-its-span", "Every charge belongs to a stored span, as long as spans of its day are kept.",
        """select project_id, encode(uuid_send(trace_id), 'hex') || ' ' || day, 'a span', 'none' from charge
           where not exists (select from span where span.project_id = charge.project_id
                             and span.trace_id = charge.trace_id and span.span_id = charge.span_id
                             and span.day between charge.day - 1 and charge.day + 1)
           and day > coalesce((select day from retention_horizon where table_name = 'span'), '-infinity')""",
    ),
    Check(
        "cells-are-charges", "Every 5-minute cell holds exactly its charges.",
        _compare(
            _charges_by(_CELL_OF_CHARGE, where=_NOT_PENDING_CELL.format(bucket=_CELL_OF_CHARGE)),
            _sums_of("rollup_5m", "bucket_at", where=_NOT_PENDING_CELL.format(bucket="bucket_at")),
            since=_CHARGES_KEPT,
        ),
    ),
    Check(
        "hours-are-cells", "Every hour is the sum of its 5-minute cells.",
        _compare(
            _sums_of("rollup_5m", "date_bin('1 hour', bucket_at, 'epoch')"), _sums_of("rollup_hour", "bucket_at")
        ),
    ),
    Check(
        "days-are-cells", "Every day of the project's time zone is the sum of its 5-minute cells.",
        _compare(
            _sums_of("rollup_5m", _local_day("bucket_at", "rollup_5m"),
                     where="(project_id, " + _local_day("bucket_at", "rollup_5m")
                     + ") not in (select project_id, bucket_at from dirty_cell where grain = 3)"),
            _sums_of("rollup_day", "bucket_at",
                     where="(project_id, bucket_at) not in"
                           " (select project_id, bucket_at from dirty_cell where grain = 3)"),
        ),
    ),
    Check(
        "latency-hours-are-charges", "Every hour's latency histogram counts each call with a duration once.",
        _compare(
            f"""select project_id, {_HOUR_OF_CHARGE} as bucket_at, count(*)::text as sums from charge
                where duration_us is not null and {_LATENCY_PENDING.format(hour=_HOUR_OF_CHARGE)} group by 1, 2""",
            f"""select project_id, bucket_at, sum(requests)::text as sums from latency_hour
                where {_LATENCY_PENDING.format(hour="bucket_at")} group by 1, 2""",
            since=_CHARGES_KEPT,
        ),
    ),
    Check(
        "latency-days-are-charges", "Every day's latency histogram counts each call with a duration once.",
        _compare(
            f"""select project_id, {_CHARGE_DAY} as bucket_at, count(*)::text as sums from charge
                where duration_us is not null and {_PENDING_DAYS.format(day=_CHARGE_DAY)} group by 1, 2""",
            f"""select project_id, bucket_at, sum(requests)::text as sums from latency_day
                where {_PENDING_DAYS.format(day="bucket_at")} group by 1, 2""",
            since=_CHARGES_KEPT,
        ),
    ),
    Check(
        "latency-hours-by-one-are-hours", "Histograms by one dimension say the same as those of the hour.",
        _histograms_check("latency_hour"),
    ),
    Check(
        "latency-days-by-one-are-days", "Histograms by one dimension say the same as those of the day.",
        _histograms_check("latency_day"),
    ),
    Check(
        "sessions-are-charges", "The sessions of a day add up to its charges that name a session.",
        _actor_check("session_day", named="session_id <> ''"),
    ),
    Check(
        "users-are-charges", "The users of a day, nobody included, add up to its charges.",
        _actor_check("user_day", named="true"),
    ),
    Check(
        "gpu-hours-add-up",
        "Attributed, unattributed-busy, idle and unobserved money add up to the bill of every GPU hour.",
        """select project_id, hour_at || ' ' || node,
                  (attributed_nano + busy_nano + held_nano + free_nano + unobserved_nano)::text, cost_nano::text
           from gpu_hour
           where cost_nano <> attributed_nano + busy_nano + held_nano + free_nano + unobserved_nano""",
    ),
    Check(
        "gpu-shares-are-attributed", "The shares of calls add up to what was attributed in their hour and pool.",
        """select project_id, hour_at || ' pool ' || pool_id, hours.nano::text, shares.nano::text
           from (select project_id, hour_at, pool_id, sum(attributed_nano) as nano from gpu_hour group by 1, 2, 3) hours
           full join (select project_id, hour_at, pool_id, sum(gpu_nano) as nano from gpu_share group by 1, 2, 3) shares
               using (project_id, hour_at, pool_id)
           where coalesce(hours.nano, 0) <> coalesce(shares.nano, 0)""",
    ),
    Check(
        "gpu-models-are-hours", "What served models cost adds up to the bill of their hour and pool.",
        """select project_id, hour_at || ' pool ' || pool_id, hours.nano::text, models.nano::text
           from (select project_id, hour_at, pool_id, sum(cost_nano) as nano from gpu_hour group by 1, 2, 3) hours
           full join (select project_id, hour_at, pool_id, sum(cost_nano) as nano from gpu_model_hour group by 1, 2, 3)
               models using (project_id, hour_at, pool_id)
           where coalesce(hours.nano, 0) <> coalesce(models.nano, 0)""",
    ),
    Check(
        "gpu-charges-are-shares", "The GPU money of every charge is the sum of its shares of GPU hours.",
        """with pending as (
               select project_id, hour_at from gpu_hour_state where applied_at is null
               union select project_id, hour_at from dirty_gpu_hour
           ), shares as (
               select project_id, day, trace_id, span_id, sum(gpu_nano) as nano,
                      bool_or((project_id, hour_at) in (select project_id, hour_at from pending)) as is_pending
               from gpu_share group by 1, 2, 3, 4
           )
           select project_id, encode(uuid_send(trace_id), 'hex') || ' ' || day, shares.nano::text,
                  charge.gpu_nano::text
           from shares
           full join (select project_id, day, trace_id, span_id, gpu_nano from charge where gpu_nano is not null) charge
               using (project_id, day, trace_id, span_id)
           where shares.nano is distinct from charge.gpu_nano and not coalesce(is_pending, false)
             and (project_id, trace_id) not in (select project_id, trace_id from dirty_trace)
             and day >= coalesce((select day from retention_horizon where table_name = 'gpu_share'), '-infinity')""",
    ),
    Check(
        "outbox-is-worked-on", f"No mark waits longer than {STALE_MARK}.",
        f"""select project_id, 'oldest mark', 'since less than {STALE_MARK}', min(marked_at)::text from (
                select project_id, marked_at from dirty_trace union all select project_id, marked_at from dirty_cell
                union all select project_id, marked_at from dirty_actor) marks
            group by project_id having min(marked_at) < now() - interval '{STALE_MARK}'""",
    ),
    Check(
        "traces-can-be-resolved", "No trace failed to resolve.",
        """select project_id, encode(uuid_send(trace_id), 'hex') || ' ' || day, 'resolved', detail from odd_trace
           where kind = 'failed'""",
    ),
)  # fmt: skip


def run(conn: psycopg.Connection, check: Check) -> Result:
    """Count what breaks one invariant and fetch the first differences. Part of the caller's snapshot."""
    statement = (
        f"select f1, f2, f3, f4, count(*) over () from ({check.query}) as differing (f1, f2, f3, f4)"
        f" order by f1, f2 limit {SHOWN}"
    )
    rows = conn.execute(statement).fetchall()
    total = rows[0][4] if rows else 0
    shown = [Difference(row[0], str(row[1]), str(row[2] or "none"), str(row[3] or "none")) for row in rows]
    return Result(check, total, shown)
