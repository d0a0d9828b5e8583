"""Closes GPU hours: works out marked ones once they have settled, then brings their shares into charges.

An hour is one transaction: its marks, bills, buckets and shares. Its shares then go into charges shard by shard,
under the locks that attribution takes, so that neither overwrites the other. Everything is worked out again as a
whole, so late spans, late samples, other rates and a crash half-way all end in the same state.
"""

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import psycopg
from django.conf import settings

from costapp.core.gpu_samples import MAX_GAP_SECONDS
from costapp.services.gpu_hour import HourResult, work_out
from costapp.storage import gpu_apply, gpu_calls, gpu_columns, gpu_hours, outbox
from costapp.storage.connection import RETRYABLE, require_autocommit
from costapp.storage.gpu_hours import HOUR, State, Unapplied

log = logging.getLogger(__name__)

#: Hours of one project that one bell works out at most, so that others get their turn.
HOURS_PER_BELL = 24
#: So many charges are written in one transaction, if they are of several shards.
CALLS_AT_ONCE = 200_000
#: Traces so far back are looked at again when a mapping changes what counts as self-hosted.
REMAP_DAYS = 7
GAP = timedelta(seconds=MAX_GAP_SECONDS)
REMAPPED = "engine mapping changed"


def allocate_due(conn: psycopg.Connection, *, budget_s: float, now: datetime | None = None) -> int:
    """Work out the marked hours of all projects that ended and settled. Returns how many were done."""
    require_autocommit(conn)
    deadline = time.monotonic() + budget_s
    now = now or datetime.now(UTC)
    done = 0
    for project_id in gpu_hours.projects(conn):
        with gpu_hours.held(conn, project_id) as is_held:
            if is_held:
                done += _project(conn, project_id, now, deadline)
    return done


def allocate_all(conn: psycopg.Connection, *, now: datetime | None = None) -> int:
    """Until nothing is due: for tests, demo data and back-fills."""
    total = 0
    while done := allocate_due(conn, budget_s=3600, now=now):
        total += done
    return total


def _project(conn: psycopg.Connection, project_id: int, now: datetime, deadline: float) -> int:
    """Work out what is due of one project, then bring the shares into charges: a call may have some of two hours."""
    settled = now - HOUR - timedelta(seconds=settings.GPU_HOUR_SETTLE_S)
    _prepare(conn, project_id, now=now, settled=settled)
    due = gpu_hours.due_hours(conn, project_id, before=settled + timedelta(microseconds=1), limit=HOURS_PER_BELL)
    differing: set[datetime] = set()
    done = 0
    for hour_at in due:
        if time.monotonic() > deadline:
            break
        done += _retried(conn, project_id, hour_at, differing)
    for hours in _together(gpu_hours.unapplied(conn, project_id, limit=HOURS_PER_BELL)):
        if time.monotonic() > deadline:
            break
        _apply(conn, project_id, hours, differing)
    return done


def _prepare(conn: psycopg.Connection, project_id: int, *, now: datetime, settled: datetime) -> None:
    """Mark what nothing that arrived marks: hours of silence, and hours worked out with other rates."""
    with conn.transaction():
        since = gpu_hours.oldest_samples(conn) or datetime(1970, 1, 1, tzinfo=UTC)
        changed = gpu_hours.follow_setup(conn, project_id, since=since)
        if changed.mappings:
            for days in range(REMAP_DAYS):
                day = (now - timedelta(days=days)).date()
                outbox.mark_day(conn, project_id, day=day, reason=REMAPPED)
        last = settled.replace(minute=0, second=0, microsecond=0) + HOUR
        gpu_hours.mark_silent_hours(conn, project_id, before=last)


def _retried(conn: psycopg.Connection, project_id: int, hour_at: datetime, differing: set[datetime]) -> int:
    try:
        _hour(conn, project_id, hour_at, differing)
    except RETRYABLE:
        return 0  # its marks are there again
    return 1


def _hour(conn: psycopg.Connection, project_id: int, hour_at: datetime, differing: set[datetime]) -> None:
    """One hour in one transaction. It is ``differing`` if it is known which of its shares are not in charges."""
    with conn.transaction():
        gpu_hours.take_room(conn)
        gpu_hours.claim(conn, project_id, hour_at=hour_at)
        oldest = gpu_hours.oldest_samples(conn)
        if oldest and hour_at < oldest:
            return  # its samples have expired: what was worked out stays
        began = time.perf_counter_ns()
        facts = gpu_hours.load_hour(conn, project_id, hour_at=hour_at, gap=GAP)
        calls = gpu_columns.load_calls(conn, project_id, hour_at=hour_at)
        rules = gpu_calls.load_rules(conn, project_id)
        result = work_out(facts, calls, rules, start_us=int(hour_at.timestamp()) * 1_000_000)
        gpu_hours.clear(conn, project_id, hour_at=hour_at)
        was_unapplied = gpu_hours.is_unapplied(conn, project_id, hour_at=hour_at)
        had_others = gpu_columns.replace_shares(conn, project_id, hour_at=hour_at, calls=calls, shares=result.shares)
        took_us = (time.perf_counter_ns() - began) // 1000
        state = State(len(calls.target), result.lost_calls, result.unrated_calls, took_us, result.open_gpus)
        gpu_hours.write(conn, project_id, hour_at=hour_at, nodes=result.nodes, models=result.models, state=state)
        _reopen_before(conn, project_id, hour_at, facts.samples)
    if had_others and not was_unapplied:
        differing.add(hour_at)
    else:
        differing.discard(hour_at)


def _reopen_before(conn: psycopg.Connection, project_id: int, hour_at: datetime, samples: list[gpu_hours.SampleRow]
                   ) -> None:  # fmt: skip
    """A GPU that the hour before took as switched off is here again: it had only not been seen."""
    start_us = int(hour_at.timestamp()) * 1_000_000
    here = {sample.ref for sample in samples if sample.at_us >= start_us}
    before = hour_at - HOUR
    if here & gpu_hours.open_gpus(conn, project_id, hour_at=before):
        gpu_hours.mark(conn, project_id, hours=[before])


def _together(hours: Iterable[Unapplied]) -> Iterator[list[Unapplied]]:
    """Hours of few calls are applied together: each statement costs as much as many of its calls."""
    batch: list[Unapplied] = []
    for hour in hours:
        if batch and sum(one.calls for one in batch) + hour.calls > CALLS_AT_ONCE:
            yield batch
            batch = []
        batch.append(hour)
    if batch:
        yield batch


def _apply(conn: psycopg.Connection, project_id: int, hours: Sequence[Unapplied], differing: Collection[datetime] = ()
           ) -> None:  # fmt: skip
    """Bring the shares of hours into charges, in transactions of some shards each, so that none waits long for them."""
    ats = [hour.hour_at for hour in hours]
    staged = gpu_apply.stage(conn, project_id, hours=ats, differing=set(differing) & set(ats))
    for shards in _packed(staged.shards):
        with conn.transaction():
            gpu_apply.apply(conn, project_id, days=staged.days, shards=shards)
    with conn.transaction():
        gpu_hours.lock(conn, project_id)
        gpu_hours.take_room(conn)
        gpu_apply.finish(conn, project_id, hours=hours)


def _packed(counts: Mapping[int, int]) -> list[list[int]]:
    """Shards in ascending order, as many together as have few calls."""
    packs: list[list[int]] = []
    room = 0
    for shard, count in sorted(counts.items()):
        if not packs or count > room:
            packs.append([])
            room = CALLS_AT_ONCE
        packs[-1].append(shard)
        room -= count
    return packs


__all__ = ["HourResult", "allocate_all", "allocate_due"]
