"""Brings the shares of GPU hours into charges, and sums up who used which pool.

Which charges must change is worked out once for any number of hours (`stage`); they are written under the locks of
shards (`apply`), so that neither this nor attribution overwrites the other. Meanwhile no shares may change: the caller
holds the project's GPU hours (`gpu_hours.held`).
"""

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import psycopg

from costapp.storage.gpu_hours import Unapplied, take_room
from costapp.storage.outbox import SHARDS, lock_shard

Connection = psycopg.Connection[Any]
_DAY = timedelta(days=1)

# In steps with statistics: of a chain of sub-queries the planner expects one row, and may join them row by row.
_STAGING = """
create temp table if not exists gpu_key (day date, trace_id uuid, span_id bigint, hour_at timestamptz, alone boolean);
create temp table if not exists gpu_own (
    shard smallint, day date, trace_id uuid, span_id bigint, gpu_nano bigint, is_estimate boolean);
create temp table if not exists gpu_share_diff (
    hour_at timestamptz, day date, trace_id uuid, span_id bigint, pool_id int, gpu_nano bigint, is_estimate boolean);
create temp table if not exists gpu_changed (
    row_id tid, shard smallint, day date, trace_id uuid, span_id bigint, gpu_nano bigint, is_estimate boolean,
    old_nano bigint);
truncate gpu_key, gpu_own, gpu_changed"""
_NEAR = "day between %(first)s and %(last)s"
# alone: all its shares are of this hour, which is read as a whole. Others are looked up one by one.
_KEYS = (
    f"""
insert into gpu_key
select day, trace_id, span_id, hour_at, start_us >= extract(epoch from hour_at) * 1000000
       and end_us <= extract(epoch from hour_at) * 1000000 + 3600000000
from gpu_call where project_id = %(project_id)s and hour_at = any(%(whole)s) and {_NEAR}""",
    """
insert into gpu_key select distinct day, trace_id, span_id, null::timestamptz, false from gpu_share_diff
where hour_at = any(%(differing)s)""",
    "analyze gpu_key",
)
_OWN = (
    f"""
insert into gpu_own
select get_byte(uuid_send(key.trace_id), 15) %% %(shards)s, key.day, key.trace_id, key.span_id,
       sum(share.gpu_nano)::bigint, coalesce(bool_or(share.is_estimate), false)
from gpu_key key
left join gpu_share share on share.project_id = %(project_id)s and share.hour_at = any(%(whole)s) and share.{_NEAR}
    and share.day = key.day and share.trace_id = key.trace_id and share.span_id = key.span_id
where key.alone group by key.day, key.trace_id, key.span_id""",
    f"""
insert into gpu_own
select get_byte(uuid_send(key.trace_id), 15) %% %(shards)s, key.day, key.trace_id, key.span_id,
       sum(share.gpu_nano)::bigint, coalesce(bool_or(share.is_estimate), false)
from (select distinct day, trace_id, span_id from gpu_key where not alone) key
left join gpu_share share on share.project_id = %(project_id)s and share.{_NEAR} and share.day = key.day
    and share.trace_id = key.trace_id and share.span_id = key.span_id
group by key.day, key.trace_id, key.span_id""",
    "analyze gpu_own",
)


_COMPARE = (
    f"""
insert into gpu_changed
select charge.ctid, own.*, charge.cost_nano
from gpu_own own
join charge on charge.project_id = %(project_id)s and charge.day = own.day and charge.{_NEAR}
    and charge.trace_id = own.trace_id and charge.span_id = own.span_id
where own.gpu_nano is distinct from charge.gpu_nano
    or (own.gpu_nano is not null and charge.cost_status <> case when own.is_estimate then 2 else 5 end)""",
    "analyze gpu_changed",
)


class Staged(NamedTuple):
    """Charges to write: how many in each shard, and on which days."""

    shards: dict[int, int]
    days: list[date]


def stage(conn: Connection, project_id: int, *, hours: Collection[datetime], differing: Collection[datetime]) -> Staged:
    """Find the charges of these hours that do not say what they should.

    Of the ``differing`` hours only the calls in gpu_share_diff are looked at (`gpu_columns.replace_shares`).
    """
    _wait_for_writers(conn)
    values = {
        "project_id": project_id, "shards": SHARDS, "whole": sorted(set(hours) - set(differing)),
        "differing": sorted(differing), "first": min(hours).date() - _DAY, "last": max(hours).date() + _DAY,
    }  # fmt: skip
    with conn.transaction():
        take_room(conn)
        conn.execute(_STAGING)
        for statement in (*_KEYS, *_OWN, *_COMPARE):
            conn.execute(statement.encode(), values)
        counts = conn.execute("select shard, count(*) from gpu_changed group by 1 order by 1").fetchall()
        days = conn.execute("select distinct day from gpu_changed where gpu_nano is not null order by 1").fetchall()
    return Staged(dict(counts), [day for (day,) in days])


def _wait_for_writers(conn: Connection) -> None:
    """Attribution reads shares under the lock of a shard: who has it now may have read those of before."""
    for shard in range(SHARDS):
        with conn.transaction():
            lock_shard(conn, shard)


# Rows are found by their place, in one pass in the order of the disk. A charge that attribution has written since is
# elsewhere, and says what it should. The planner takes a list of places for ten, and would look up each by all.
_WRITE = """
with written as (
    update charge set gpu_nano = changed.gpu_nano, cost_nano = changed.gpu_nano, rate_id = null, input_nano = 0,
        output_nano = 0, cache_read_nano = null, cache_write_nano = null, other_nano = null, possible_nano = null,
        avoided_nano = null, cost_status = case when changed.is_estimate then 2 else 5 end, flags = charge.flags & ~512
    from gpu_changed changed
    where charge.ctid = any(array(select row_id from gpu_changed where day = %(day)s and shard = any(%(own_shards)s)
                                  and gpu_nano is not null))
      and charge.project_id = %(project_id)s and charge.day = %(day)s and changed.day = %(day)s
      and changed.gpu_nano is not null and charge.ctid = changed.row_id and charge.trace_id = changed.trace_id
      and charge.span_id = changed.span_id
    returning charge.day, charge.trace_id, charge.span_id, charge.start_at, charge.session_id, charge.user_id,
              charge.feature, changed.old_nano, charge.gpu_nano
), cells as (
    insert into dirty_cell (project_id, bucket_at)
    select distinct %(project_id)s::int, date_bin('5 minutes', start_at, 'epoch') from written
), actors as (
    insert into dirty_actor (project_id, quarter_at, session_id, user_id)
    select distinct %(project_id)s::int, date_bin('15 minutes', start_at, 'epoch'), session_id, user_id from written
), revisions as (
    insert into charge_revision (project_id, day, trace_id, span_id, reason, old_cost_nano, new_cost_nano,
                                 old_feature, new_feature)
    select %(project_id)s, day, trace_id, span_id, 'GPU hour worked out again', old_nano, gpu_nano, feature, feature
    from written where old_nano is not null and old_nano <> gpu_nano
)
select count(*) from written"""
_RESOLVE_AGAIN = """
insert into dirty_trace (project_id, day, shard, trace_id, reason)
select distinct %(project_id)s::int, day, shard, trace_id, 'no share of a GPU hour any more'
from gpu_changed where gpu_nano is null and shard = any(%(own_shards)s)"""


def apply(conn: Connection, project_id: int, *, days: Sequence[date], shards: Sequence[int]) -> None:
    """Make the staged charges of these shards say what they were attributed. Locks the shards.

    A call that has no share any more is resolved again, from its spans.
    """
    for shard in sorted(shards):
        lock_shard(conn, shard)
    take_room(conn)
    conn.execute("set local enable_nestloop to off")
    values: dict[str, Any] = {"project_id": project_id, "own_shards": sorted(shards)}
    for day in days:
        conn.execute(_WRITE, values | {"day": day})
    conn.execute(_RESOLVE_AGAIN, values)


_USE = f"""
insert into gpu_use_hour (project_id, hour_at, pool_id, feature, team, gpu_nano, requests)
select %(project_id)s, share.hour_at, share.pool_id, charge.feature, coalesce(kind.team, ''), sum(share.gpu_nano),
       count(*)
from gpu_share share
join charge on charge.project_id = share.project_id and charge.day = share.day
    and charge.trace_id = share.trace_id and charge.span_id = share.span_id
left join charge_kind kind on kind.project_id = charge.project_id and kind.id = charge.kind_id
where share.project_id = %(project_id)s and share.hour_at = any(%(hours)s) and share.{_NEAR} and charge.{_NEAR}
group by 2, 3, 4, 5"""
_APPLIED = """
update gpu_hour_state state set applied_at = clock_timestamp()
from unnest(%(hours)s::timestamptz[], %(computed)s::timestamptz[]) as done (hour_at, computed_at)
where state.project_id = %(project_id)s and state.hour_at = done.hour_at and state.computed_at = done.computed_at"""


def finish(conn: Connection, project_id: int, *, hours: Sequence[Unapplied]) -> None:
    """Sum up who used which pool, and note that the shares of the hours, as computed then, are in all charges."""
    ats = [hour.hour_at for hour in hours]
    values = {
        "project_id": project_id, "hours": ats, "computed": [hour.computed_at for hour in hours],
        "first": min(ats).date() - _DAY, "last": max(ats).date() + _DAY,
    }  # fmt: skip
    conn.execute("delete from gpu_use_hour where project_id = %(project_id)s and hour_at = any(%(hours)s)", values)
    conn.execute(_USE.encode(), values)
    conn.execute(_APPLIED, values)
