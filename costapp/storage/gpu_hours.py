"""GPU hours on disk: what is marked, what an hour is worked out from, and what came out of it."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg

from costapp.core.engines import Engine, Target
from costapp.storage import locks

Connection = psycopg.Connection[Any]
HOUR = timedelta(hours=1)
#: An owned or reserved GPU that nobody has seen for so long is gone, and costs nothing any more.
FORGOTTEN_AFTER = timedelta(days=7)
_HOUR_LOCK = 0x69B0


# -- what is to be done --------------------------------------------------------------------------------------------


def projects(conn: Connection) -> list[int]:
    """Projects with marked hours, unfinished ones, or pools whose rates may have changed."""
    rows = conn.execute("""
        select project_id from dirty_gpu_hour union select project_id from gpu_hour_state where applied_at is null
        union select project_id from costapp_gpupool union select project_id from gpu_setup order by 1""")
    return [project_id for (project_id,) in rows]


def held(conn: Connection, project_id: int) -> AbstractContextManager[bool]:
    """Be the only one to work out this project's GPU hours, over several transactions. False: another is at it."""
    return locks.held(conn, _HOUR_LOCK, project_id)


def lock(conn: Connection, project_id: int) -> None:
    """The same until the transaction ends; waits for it."""
    locks.lock(conn, _HOUR_LOCK, project_id)


def take_room(conn: Connection) -> None:
    """Sort and join a million calls in memory, until the transaction ends."""
    conn.execute("set local work_mem to '64MB'")


def due_hours(conn: Connection, project_id: int, *, before: datetime, limit: int) -> list[datetime]:
    """Marked hours that began before a moment, newest first: a page about today must not wait for last month."""
    rows = conn.execute(
        "select distinct hour_at from dirty_gpu_hour where project_id = %s and hour_at < %s"
        " order by hour_at desc limit %s",
        (project_id, before, limit),
    )
    return [hour_at for (hour_at,) in rows]


def claim(conn: Connection, project_id: int, *, hour_at: datetime) -> int:
    """Delete the marks of an hour; returns how many there were. What arrives later leaves a mark of its own."""
    return conn.execute(
        "delete from dirty_gpu_hour where project_id = %s and hour_at = %s", (project_id, hour_at)
    ).rowcount


def mark(conn: Connection, project_id: int, *, hours: Iterable[datetime]) -> None:
    conn.execute(
        "insert into dirty_gpu_hour (project_id, hour_at, node) select %s, unnest(%s::timestamptz[]), ''",
        (project_id, sorted(hours)),
    )


_MARK_SILENT = """
insert into dirty_gpu_hour (project_id, hour_at, node)
select %(project_id)s, hour_at, ''
from generate_series((select max(hour_at) from gpu_hour_state where project_id = %(project_id)s) + interval '1 hour',
                     %(before)s::timestamptz - interval '1 second', interval '1 hour') as hour_at
where hour_at > %(before)s::timestamptz - %(forgotten)s
  and exists (select from costapp_gpurate rate join costapp_gpupool pool on pool.id = rate.pool_id
              where pool.project_id = %(project_id)s and rate.kind in ('reserved', 'owned'))"""


def mark_silent_hours(conn: Connection, project_id: int, *, before: datetime) -> None:
    """Hours without any telemetry are marked by nobody, and GPUs that are paid for anyway cost money in them."""
    values = {"project_id": project_id, "before": before, "forgotten": FORGOTTEN_AFTER}
    conn.execute(_MARK_SILENT, values)


_SETUP = """
select md5(coalesce((select jsonb_agg(to_jsonb(pool) - 'name' || jsonb_build_object('rates', (
               select jsonb_agg(to_jsonb(rate) - 'source' order by rate.id) from costapp_gpurate rate
               where rate.pool_id = pool.id)) order by pool.id)
           from costapp_gpupool pool where pool.project_id = %(project_id)s), '[]')::text)::uuid,
       md5(coalesce((select jsonb_agg(to_jsonb(mapping) order by mapping.id)
           from costapp_enginemapping mapping where mapping.project_id = %(project_id)s), '[]')::text)::uuid"""
_MARK_ALL = """
insert into dirty_gpu_hour (project_id, hour_at, node)
select project_id, hour_at, '' from gpu_hour_state where project_id = %(project_id)s and hour_at >= %(since)s"""


class SetupChange(NamedTuple):
    rates: bool
    mappings: bool


def follow_setup(conn: Connection, project_id: int, *, since: datetime) -> SetupChange:
    """Mark the hours since a moment when rates, pools or mappings are no longer those they were worked out with."""
    values = {"project_id": project_id, "since": since}
    now = conn.execute(_SETUP, values).fetchone()
    known = conn.execute("select rates, mappings from gpu_setup where project_id = %(project_id)s", values).fetchone()
    assert now is not None
    if known == now:
        return SetupChange(False, False)
    conn.execute(
        "insert into gpu_setup values (%s, %s, %s) on conflict (project_id)"
        " do update set rates = excluded.rates, mappings = excluded.mappings",
        (project_id, *now),
    )
    conn.execute(_MARK_ALL, values)
    return SetupChange(known is None or known[0] != now[0], known is not None and known[1] != now[1])


# -- what an hour is worked out from -------------------------------------------------------------------------------


class DeviceRow(NamedTuple):
    ref: int
    device_id: str
    parent_id: str
    node: str
    gpu_model: str
    mig_profile: str
    memory_total_mib: int | None


class SampleRow(NamedTuple):
    ref: int
    at_us: int
    place: int
    util_bp: int | None
    held: bool | None
    memory_mib: int | None
    power_mw: int | None
    energy_mj: int | None


class PlaceRow(NamedTuple):
    place: int
    node: str
    target: str
    served_model: str
    holders: list[str]  # namespace/pod/container


class GapRow(NamedTuple):
    at_us: int
    target: str
    device_id: str


class PoolRow(NamedTuple):
    pool_id: int
    node_pattern: str
    model_pattern: str
    method: str
    prefill_weight: int
    decode_weight: int
    input_weight: int
    cached_weight: int
    output_weight: int
    capacity_tokens: int
    busy_bp: int


class RateRow(NamedTuple):
    pool_id: int
    always_on: bool
    from_us: int
    to_us: int
    nano_per_hour: int


class HourFacts(NamedTuple):
    """Everything an hour's money depends on, but for the calls."""

    devices: list[DeviceRow]
    samples: list[SampleRow]  # of the hour and a moment before, by device and time
    places: list[PlaceRow]
    seen_before: set[int]
    seen_after: set[int]
    gaps: list[GapRow]
    engines: list[Engine]
    pools: list[PoolRow]
    rates: list[RateRow]
    targets: dict[int, Target]


_NEAR = "project_id = %(project_id)s and day between %(first)s::date - 1 and %(first)s::date + 1"
_SAMPLES = f"""
select device_ref, (extract(epoch from sampled_at) * 1000000)::bigint, place_ref, util_bp, held,
       memory_used_kib / 1024, power_mw, energy_mj
from gpu_sample where {_NEAR} and sampled_at >= %(hour)s::timestamptz - %(gap)s and sampled_at < %(end)s
order by device_ref, sampled_at"""
_SEEN = f"""
select distinct device_ref from gpu_sample where {_NEAR} and sampled_at >= %(from)s and sampled_at < %(to)s"""
_DEVICES = """
select device_ref, device_id, parent_id, node, gpu_model, mig_profile, (memory_total_bytes / 1048576)::int
from gpu_device device where project_id = %(project_id)s and first_at < %(end)s
and last_at > %(hour)s::timestamptz - %(forgotten)s - interval '10 minutes' and exists (  -- last_at lags by five
    select from gpu_sample sample where sample.project_id = device.project_id
    and sample.day between (%(hour)s::timestamptz - %(forgotten)s)::date and %(first)s::date + 1
    and sample.device_ref = device.device_ref
    and sample.sampled_at >= %(hour)s::timestamptz - %(forgotten)s and sample.sampled_at < %(end)s)
order by device_id"""
_PLACES = """
select place_ref, node, target, served_model, holders from gpu_place
where project_id = %(project_id)s and place_ref = any(%(places)s)"""
_GAPS = f"""
select (extract(epoch from at) * 1000000)::bigint, target, device_id from gpu_gap
where {_NEAR} and at >= %(hour)s::timestamptz - %(gap)s and at < %(end)s order by 1"""
_ENGINES = """
select kind || ' ' || target || ' ' || served_model || ' ' || replica, served_model, target, node, namespace, pod
from engine_seen engine where project_id = %(project_id)s and first_at < %(end)s and exists (
    select from engine_sample sample where sample.project_id = engine.project_id
    and sample.day between %(first)s::date - 1 and %(first)s::date + 1 and sample.engine_ref = engine.engine_ref
    and sample.sampled_at >= %(hour)s and sample.sampled_at < %(end)s)
order by 1"""
_POOLS = """
select id, node_pattern, model_pattern, method, prefill_weight, decode_weight, input_weight, cached_weight,
       output_weight, capacity_tokens, (busy_percent * 100)::int
from costapp_gpupool where project_id = %(project_id)s order by priority, id"""
_RATES = """
select rate.pool_id, rate.kind in ('reserved', 'owned'),
       coalesce((extract(epoch from valid_from) * 1000000)::bigint, -9223372036854775808),
       coalesce((extract(epoch from valid_to) * 1000000)::bigint, 9223372036854775807), nano_per_hour
from costapp_gpurate rate join costapp_gpupool pool on pool.id = rate.pool_id
where pool.project_id = %(project_id)s and (valid_from is null or valid_from < %(end)s)
    and (valid_to is null or valid_to > %(hour)s)
order by rate.pool_id, valid_from nulls first, rate.id"""
_TARGETS = """
select id, instance, host, model, service from gpu_target where project_id = %(project_id)s and id in (
    select target_id from gpu_call where project_id = %(project_id)s and hour_at = %(hour)s
    and day between %(first)s::date - 1 and %(first)s::date + 1)"""


def load_hour(conn: Connection, project_id: int, *, hour_at: datetime, gap: timedelta) -> HourFacts:
    values: dict[str, Any] = {
        "project_id": project_id, "hour": hour_at, "end": hour_at + HOUR, "first": hour_at, "gap": gap,
        "forgotten": FORGOTTEN_AFTER,
    }  # fmt: skip
    cursor = conn.cursor(binary=True)

    def rows(sql: Any, **extra: Any) -> list[Any]:
        return cursor.execute(sql, values | extra).fetchall()

    samples = [SampleRow._make(row) for row in rows(_SAMPLES)]
    return HourFacts(
        devices=[DeviceRow._make(row) for row in rows(_DEVICES)],
        samples=samples,
        places=[PlaceRow._make(row) for row in rows(_PLACES, places=sorted({sample.place for sample in samples}))],
        seen_before={ref for (ref,) in rows(_SEEN, **{"from": hour_at - HOUR, "to": hour_at})},
        seen_after={ref for (ref,) in rows(_SEEN, **{"from": hour_at + HOUR, "to": hour_at + 2 * HOUR})},
        gaps=[GapRow._make(row) for row in rows(_GAPS)],
        engines=[Engine._make(row) for row in rows(_ENGINES)],
        pools=[PoolRow._make(row) for row in rows(_POOLS)],
        rates=[RateRow._make(row) for row in rows(_RATES)],
        targets={number: Target._make(texts) for number, *texts in rows(_TARGETS)},
    )


def oldest_samples(conn: Connection) -> datetime | None:
    """Before this moment samples were dropped: such hours stay as they are."""
    row = conn.execute(
        "select (day + 1)::timestamp at time zone 'UTC' from retention_horizon where table_name = 'gpu_sample'"
    ).fetchone()
    return row[0] if row else None


# -- what came out -------------------------------------------------------------------------------------------------


class State(NamedTuple):
    calls: int
    lost_calls: int
    unrated_calls: int
    took_us: int
    open_gpus: list[int]


NODE_COLUMNS = (
    "pool_id", "node", "gpu_model", "gpus", "cost_nano", "attributed_nano", "busy_nano", "held_nano", "free_nano",
    "unobserved_nano", "gpu_us", "attributed_us", "busy_us", "held_us", "free_us", "unobserved_us", "unrated_us",
    "util_bp_s", "util_s", "memory_mib_s", "memory_total_mib_s", "memory_s", "energy_mj", "energy_us",
)  # fmt: skip
MODEL_COLUMNS = (
    "pool_id", "model", "cost_nano", "attributed_nano", "prefill_nano", "busy_nano", "held_nano", "free_nano",
    "unobserved_nano", "requests", "input_tokens", "cached_tokens", "output_tokens", "gpu_us", "active_us", "energy_mj",
)  # fmt: skip


def open_gpus(conn: Connection, project_id: int, *, hour_at: datetime) -> set[int]:
    row = conn.execute(
        "select open_gpus from gpu_hour_state where project_id = %s and hour_at = %s", (project_id, hour_at)
    ).fetchone()
    return set(row[0]) if row else set()


def clear(conn: Connection, project_id: int, *, hour_at: datetime) -> None:
    """Remove the sums of an hour that are about to be written again."""
    for table in ("gpu_hour", "gpu_model_hour"):
        conn.execute(f"delete from {table} where project_id = %s and hour_at = %s".encode(), (project_id, hour_at))


def is_unapplied(conn: Connection, project_id: int, *, hour_at: datetime) -> bool:
    """Whether the shares of an hour were written once and are not in all charges."""
    found = conn.execute(
        "select 1 from gpu_hour_state where project_id = %s and hour_at = %s and applied_at is null",
        (project_id, hour_at),
    )
    return found.fetchone() is not None


def write(
    conn: Connection, project_id: int, *, hour_at: datetime, nodes: Sequence[Sequence[Any]],
    models: Sequence[Sequence[Any]], state: State,
) -> None:  # fmt: skip
    """Store an hour: rows in the order of NODE_COLUMNS and MODEL_COLUMNS. Its shares are then to be applied."""
    for table, columns, rows in (("gpu_hour", NODE_COLUMNS, nodes), ("gpu_model_hour", MODEL_COLUMNS, models)):
        if rows:
            with conn.cursor().copy(
                f"copy {table} (project_id, hour_at, {', '.join(columns)}) from stdin".encode()
            ) as copy:
                for row in rows:
                    copy.write_row((project_id, hour_at, *row))
    conn.execute(
        """insert into gpu_hour_state (project_id, hour_at, computed_at, applied_at, calls, lost_calls, unrated_calls,
                                       took_us, open_gpus)
           values (%s, %s, clock_timestamp(), null, %s, %s, %s, %s, %s)
           on conflict (project_id, hour_at) do update set computed_at = excluded.computed_at, applied_at = null,
               calls = excluded.calls, lost_calls = excluded.lost_calls, unrated_calls = excluded.unrated_calls,
               took_us = excluded.took_us, open_gpus = excluded.open_gpus""",
        (project_id, hour_at, *state),
    )


class Unapplied(NamedTuple):
    hour_at: datetime
    computed_at: datetime
    calls: int


def unapplied(conn: Connection, project_id: int, *, limit: int) -> list[Unapplied]:
    """Hours whose shares are not in all charges, newest first."""
    rows = conn.execute(
        "select hour_at, computed_at, calls from gpu_hour_state where project_id = %s and applied_at is null"
        " order by hour_at desc limit %s",
        (project_id, limit),
    )
    return [Unapplied._make(row) for row in rows]
