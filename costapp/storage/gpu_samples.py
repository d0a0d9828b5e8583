"""GPU and engine samples: inserted once per slot, gaps in a row filled, the hours they touch marked.

All functions are part of the caller's transaction. Rows are written in key order, so that two writers wait for
each other instead of deadlocking.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import Any

import psycopg

from costapp.core.gpu_samples import MAX_GAP_SECONDS, EngineSample, Gap, GpuSample, parent_of
from costapp.storage.kinds import stored_text

Connection = psycopg.Connection[Any]
_KIB = 1024

# A device that moved, was told more about, or was not seen for five minutes. Locked in order first.
_TOUCH_DEVICES = """
with given as (
    select * from unnest(%s::text[], %s::timestamptz[], %s::timestamptz[], %s::bigint[], %s::boolean[], %s::text[],
                         %s::text[], %s::text[], %s::text[], %s::text[])
    as given (device_id, first_at, last_at, total, is_split, parent_id, node, gpu_model, mig_profile, source)
),
due as (
    select device.device_ref, given.* from gpu_device device join given using (device_id)
    where device.project_id = %s and (
        given.last_at > device.last_at + interval '5 minutes' or given.first_at < device.first_at
        or given.total > coalesce(device.memory_total_bytes, 0)
        or (given.last_at >= device.last_at and (given.node, given.gpu_model, given.mig_profile, given.is_split)
            is distinct from (device.node, device.gpu_model, device.mig_profile, device.is_split)))
    order by device.device_ref for update of device
)
update gpu_device device set
    first_at = least(device.first_at, due.first_at), last_at = greatest(device.last_at, due.last_at),
    memory_total_bytes = greatest(device.memory_total_bytes, due.total),
    node = case when due.last_at >= device.last_at and due.node <> '' then due.node else device.node end,
    gpu_model = case when due.gpu_model <> '' then due.gpu_model else device.gpu_model end,
    mig_profile = case when due.mig_profile <> '' then due.mig_profile else device.mig_profile end,
    is_split = due.is_split, source = due.source
from due where device.project_id = %s and device.device_ref = due.device_ref"""
_ADD_DEVICES = """
insert into gpu_device (project_id, device_id, first_at, last_at, memory_total_bytes, is_split, parent_id, node,
                        gpu_model, mig_profile, source)
select %s, * from unnest(%s::text[], %s::timestamptz[], %s::timestamptz[], %s::bigint[], %s::boolean[], %s::text[],
                         %s::text[], %s::text[], %s::text[], %s::text[]) as given (device_id)
order by device_id on conflict (project_id, device_id) do nothing"""
_DEVICE_REFS = "select device_id, device_ref from gpu_device where project_id = %s and device_id = any(%s)"

_ADD_PLACES = """
insert into gpu_place (project_id, digest, month, node, target, namespace, pod, container, served_model, holders)
select %s, digest, month, node, target, namespace, pod, container, served_model, string_to_array(holders, E'\\n')
from unnest(%s::uuid[], %s::date[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
    as given (digest, month, node, target, namespace, pod, container, served_model, holders)
order by digest on conflict (project_id, digest) do nothing"""
_PLACE_REFS = "select uuid_send(digest), place_ref from gpu_place where project_id = %s and digest = any(%s::uuid[])"

# What another message of the same slot left open is filled; what is stored stays, unless a better figure for the
# utilisation comes. A row that would not change is not written.
_INSERT = """
with given as (
    select (sampled_at at time zone 'UTC')::date as day, * from unnest(
        %(sampled_at)s::timestamptz[], %(device_ref)s::int[], %(place_ref)s::int[], %(util_rank)s::smallint[],
        %(util_bp)s::smallint[], %(held)s::boolean[], %(memory_used_kib)s::int[], %(power_mw)s::int[],
        %(energy_mj)s::bigint[], %(node)s::text[]
    ) as given (sampled_at, device_ref, place_ref, util_rank, util_bp, held, memory_used_kib, power_mw, energy_mj, node)
),
known as (
    select count(*) as samples from given join gpu_sample old using (day, device_ref, sampled_at)
    where old.project_id = %(project_id)s and old.day between %(first_day)s and %(last_day)s
),
stored as (
    insert into gpu_sample as old (project_id, day, sampled_at, device_ref, place_ref, util_rank, util_bp, held,
                                   memory_used_kib, power_mw, energy_mj)
    select %(project_id)s, day, sampled_at, device_ref, place_ref, util_rank, util_bp, held, memory_used_kib, power_mw,
           energy_mj
    from given order by day, sampled_at, device_ref
    on conflict (project_id, day, sampled_at, device_ref) do update set
        util_bp = case when excluded.util_rank < old.util_rank then excluded.util_bp else old.util_bp end,
        util_rank = least(excluded.util_rank, old.util_rank),
        held = coalesce(old.held, excluded.held),
        memory_used_kib = coalesce(old.memory_used_kib, excluded.memory_used_kib),
        power_mw = coalesce(old.power_mw, excluded.power_mw),
        energy_mj = coalesce(old.energy_mj, excluded.energy_mj)
    where excluded.util_rank < old.util_rank
       or (old.held is null and excluded.held is not null)
       or (old.memory_used_kib is null and excluded.memory_used_kib is not null)
       or (old.power_mw is null and excluded.power_mw is not null)
       or (old.energy_mj is null and excluded.energy_mj is not null)
    returning day, device_ref, sampled_at
),
touched as (
    select distinct node, at from stored join given using (day, device_ref, sampled_at),
    lateral (values (sampled_at), (sampled_at + %(max_gap)s)) as reach (moment),
    lateral (select date_trunc('hour', moment, 'UTC') as at) as hour
),
marked as (
    insert into dirty_gpu_hour (project_id, hour_at, node) select %(project_id)s, at, node from touched order by 2, 3
)
select cardinality(%(sampled_at)s::timestamptz[]) - samples from known"""

_INSERT_GAPS = """
insert into gpu_gap (project_id, day, at, kind, target, device_id)
select %s, (at at time zone 'UTC')::date, * from unnest(%s::timestamptz[], %s::smallint[], %s::text[], %s::text[])
    as given (at, kind, target, device_id)
order by target, device_id, at on conflict do nothing returning at"""
_MARK_HOURS = """
insert into dirty_gpu_hour (project_id, hour_at, node)
select distinct %s::int, date_trunc('hour', at, 'UTC'), '' from unnest(%s::timestamptz[]) as given (at) order by 2"""

_TOUCH_ENGINES = """
with given as (
    select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                         %s::timestamptz[], %s::timestamptz[])
    as given (kind, target, served_model, replica, node, namespace, pod, first_at, last_at)
),
due as (
    select engine.engine_ref, given.* from engine_seen engine join given using (kind, target, served_model, replica)
    where engine.project_id = %s and (
        given.last_at > engine.last_at + interval '5 minutes' or given.first_at < engine.first_at
        or (given.last_at >= engine.last_at and (given.node, given.namespace, given.pod)
            is distinct from (engine.node, engine.namespace, engine.pod)))
    order by engine.engine_ref for update of engine
)
update engine_seen engine set
    first_at = least(engine.first_at, due.first_at), last_at = greatest(engine.last_at, due.last_at),
    node = due.node, namespace = due.namespace, pod = due.pod
from due where engine.project_id = %s and engine.engine_ref = due.engine_ref"""
_ADD_ENGINES = """
insert into engine_seen (project_id, kind, target, served_model, replica, node, namespace, pod, first_at, last_at)
select %s, * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                         %s::timestamptz[], %s::timestamptz[]) as given (kind, target, served_model, replica)
order by kind, target, served_model, replica on conflict (project_id, kind, target, served_model, replica) do nothing"""
_ENGINE_REFS = """
select kind, target, served_model, replica, engine_ref from engine_seen
where project_id = %s and (kind, target, served_model, replica) in (
    select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[]))"""

_GAUGES = {"running": "int", "waiting": "int", "kv_bp": "smallint"}
_COUNTERS = ("prompt_tokens", "generation_tokens", "cached_tokens", "requests", "queue_us", "prefill_us", "decode_us",
             "preemptions")  # fmt: skip
_FIGURES = _GAUGES | dict.fromkeys(_COUNTERS, "bigint")
_INSERT_ENGINES = f"""
with given as (
    select (sampled_at at time zone 'UTC')::date as day, * from unnest(
        %(sampled_at)s::timestamptz[], %(engine_ref)s::int[],
        {", ".join(f"%({name})s::{kind}[]" for name, kind in _FIGURES.items())}
    ) as given (sampled_at, engine_ref, {", ".join(_FIGURES)})
),
known as (
    select count(*) as samples from given join engine_sample old using (day, engine_ref, sampled_at)
    where old.project_id = %(project_id)s and old.day between %(first_day)s and %(last_day)s
),
stored as (
    insert into engine_sample as old (project_id, day, sampled_at, engine_ref, {", ".join(_FIGURES)})
    select %(project_id)s, day, sampled_at, engine_ref, {", ".join(_FIGURES)}
    from given order by day, sampled_at, engine_ref
    on conflict (project_id, day, sampled_at, engine_ref) do update set
        {", ".join(f"{name} = coalesce(old.{name}, excluded.{name})" for name in _FIGURES)}
    where {" or ".join(f"(old.{name} is null and excluded.{name} is not null)" for name in _FIGURES)}
    returning day, engine_ref, sampled_at
),
marked as (
    insert into dirty_gpu_hour (project_id, hour_at, node)
    select distinct %(project_id)s::int, date_trunc('hour', sampled_at, 'UTC'), node
    from stored join engine_seen engine on engine.project_id = %(project_id)s and engine.engine_ref = stored.engine_ref
)
select cardinality(%(sampled_at)s::timestamptz[]) - samples from known"""


def insert_samples(conn: Connection, project_id: int, samples: Sequence[GpuSample]) -> int:
    """Store samples, of each device and slot one, and mark the hours they touch; returns how many slots were new."""
    samples = _merged(samples)
    if not samples:
        return 0
    devices = _device_refs(conn, project_id, samples)
    places = _place_refs(conn, project_id, samples)
    days = [_day(sample.sampled_at) for sample in samples]
    row = conn.execute(_INSERT, {
        "project_id": project_id, "first_day": min(days), "last_day": max(days),
        "max_gap": timedelta(seconds=MAX_GAP_SECONDS),
        "sampled_at": [sample.sampled_at for sample in samples],
        "device_ref": [devices[stored_text(sample.device_id)] for sample in samples],
        "place_ref": [places[_place(sample)[0]] for sample in samples],
        "util_rank": [sample.util_rank for sample in samples],
        "util_bp": [sample.util_bp for sample in samples],
        "held": [sample.held for sample in samples],
        "memory_used_kib": [_kib(sample.memory_used_bytes) for sample in samples],
        "power_mw": [sample.power_mw for sample in samples],
        "energy_mj": [sample.energy_mj for sample in samples],
        "node": [stored_text(sample.node) for sample in samples],
    }).fetchone()  # fmt: skip
    assert row is not None
    return int(row[0])


def insert_gaps(conn: Connection, project_id: int, gaps: Iterable[Gap]) -> int:
    """Store gaps and mark their hours; returns how many were new."""
    rows = sorted({(gap.at, int(gap.kind), stored_text(gap.target), stored_text(gap.device_id)) for gap in gaps})
    if not rows:
        return 0
    new = conn.execute(_INSERT_GAPS, (project_id, *map(list, zip(*rows, strict=True)))).fetchall()
    if new:
        conn.execute(_MARK_HOURS, (project_id, [at for (at,) in new]))
    return len(new)


def insert_engine_samples(conn: Connection, project_id: int, samples: Sequence[EngineSample]) -> int:
    """Store what inference servers said, of each engine and slot one; returns how many slots were new."""
    unique: dict[tuple[Any, ...], EngineSample] = {}
    for sample in samples:
        key = (*_engine_key(sample), sample.sampled_at)
        known = unique.get(key)
        unique[key] = sample if known is None else _filled(known, sample)
    if not unique:
        return 0
    refs = _engine_refs(conn, project_id, list(unique.values()))
    days = [_day(sample.sampled_at) for sample in unique.values()]
    figures = {name: [getattr(sample, name) for sample in unique.values()] for name in _FIGURES}
    row = conn.execute(_INSERT_ENGINES, {
        "project_id": project_id, "first_day": min(days), "last_day": max(days),
        "sampled_at": [sample.sampled_at for sample in unique.values()],
        "engine_ref": [refs[_engine_key(sample)] for sample in unique.values()],
        **figures,
    }).fetchone()  # fmt: skip
    assert row is not None
    return int(row[0])


def drop_places_before(conn: Connection, *, day: date) -> None:
    """Forget the places of months whose samples were dropped; a month longer, as a writer may still use them."""
    conn.execute("delete from gpu_place where month < %s", ((day - timedelta(days=31)).replace(day=1),))


def _merged(samples: Sequence[GpuSample]) -> list[GpuSample]:
    """Of each device and slot one: the first, with what later ones add."""
    unique: dict[tuple[str, datetime], GpuSample] = {}
    for sample in samples:
        key = (sample.device_id, sample.sampled_at)
        known = unique.get(key)
        if known is None:
            unique[key] = sample
        elif known != sample:
            better = sample.util_rank < known.util_rank
            merged = _filled(known, sample)
            unique[key] = merged._replace(util_bp=sample.util_bp, util_rank=sample.util_rank) if better else merged
    return list(unique.values())


def _filled(known: Any, other: Any) -> Any:
    """What `known` leaves open, as `other` states it."""
    open_fields = {
        name: theirs
        for name, mine, theirs in zip(known._fields, known, other, strict=True)
        if mine in {None, "", ()} and theirs not in {None, "", ()}
    }
    return known._replace(**open_fields) if open_fields else known


def _device_refs(conn: Connection, project_id: int, samples: Sequence[GpuSample]) -> dict[str, int]:
    rows: dict[str, list[Any]] = {}
    for sample in samples:
        device_id, at = stored_text(sample.device_id), sample.sampled_at
        row = rows.get(device_id)
        if row is not None and row[2] > at:
            row[1] = min(row[1], at)
            continue
        first_at = at if row is None else min(row[1], at)
        parent = sample.parent_id or parent_of(device_id, sample.mig_profile)
        texts = (parent, sample.node, sample.gpu_model, sample.mig_profile, str(sample.source))
        rows[device_id] = [
            device_id,
            first_at,
            at,
            sample.memory_total_bytes,
            sample.is_split,
            *map(stored_text, texts),
        ]
    known = dict(conn.execute(_DEVICE_REFS, (project_id, list(rows))).fetchall())
    if known:
        old = [row for device_id, row in rows.items() if device_id in known]
        conn.execute(_TOUCH_DEVICES, (*_columns(old), project_id, project_id))
    new = [row for device_id, row in rows.items() if device_id not in known]
    if new:
        conn.execute(_ADD_DEVICES, (project_id, *_columns(new)))
        known = dict(conn.execute(_DEVICE_REFS, (project_id, list(rows))).fetchall())
    return known


def _place(sample: GpuSample) -> tuple[bytes, tuple[Any, ...]]:
    """The digest of where a sample was taken, and its row."""
    month = _day(sample.sampled_at).replace(day=1)
    holders = sorted(sample.holders)
    first = holders[0] if holders else ("", "", "")
    texts = (sample.node, sample.target, *first, sample.served_model)
    row = (month, *map(stored_text, texts), "\n".join(str(holder) for holder in holders).replace("\0", ""))
    return blake2b("\0".join(map(str, row)).encode("utf-8", "replace"), digest_size=16).digest(), row


def _place_refs(conn: Connection, project_id: int, samples: Sequence[GpuSample]) -> dict[bytes, int]:
    wanted = dict(_place(sample) for sample in samples)
    known = _known_places(conn, project_id, wanted)
    missing = {digest: row for digest, row in wanted.items() if digest not in known}
    if missing:
        digests = [digest.hex() for digest in missing]
        conn.execute(_ADD_PLACES, (project_id, digests, *_columns(list(missing.values()))))
        known |= _known_places(conn, project_id, missing)
    return known


def _known_places(conn: Connection, project_id: int, digests: Iterable[bytes]) -> dict[bytes, int]:
    return dict(conn.execute(_PLACE_REFS, (project_id, [digest.hex() for digest in digests])).fetchall())


def _engine_key(sample: EngineSample) -> tuple[str, str, str, str]:
    return (str(sample.kind), stored_text(sample.target), stored_text(sample.served_model), stored_text(sample.replica))


def _engine_refs(conn: Connection, project_id: int, samples: Sequence[EngineSample]
                 ) -> dict[tuple[str, str, str, str], int]:  # fmt: skip
    rows: dict[tuple[str, str, str, str], tuple[Any, ...]] = {}
    for sample in sorted(samples, key=lambda sample: sample.sampled_at):
        key, at = _engine_key(sample), sample.sampled_at
        first_at = rows[key][-2] if key in rows else at
        rows[key] = (*key, *map(stored_text, (sample.node, sample.namespace, sample.pod)), first_at, at)
    known = _known_engines(conn, project_id, list(rows))
    if known:
        old = [row for key, row in rows.items() if key in known]
        conn.execute(_TOUCH_ENGINES, (*_columns(old), project_id, project_id))
    new = [row for key, row in rows.items() if key not in known]
    if new:
        conn.execute(_ADD_ENGINES, (project_id, *_columns(new)))
        known |= _known_engines(conn, project_id, [row[:4] for row in new])
    return known


def _known_engines(conn: Connection, project_id: int, keys: Sequence[tuple[Any, ...]]
                   ) -> dict[tuple[str, str, str, str], int]:  # fmt: skip
    rows = conn.execute(_ENGINE_REFS, (project_id, *_columns(keys))).fetchall()
    return {(kind, target, model, replica): ref for kind, target, model, replica, ref in rows}


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


def _kib(size: int | None) -> int | None:
    return None if size is None else size // _KIB
