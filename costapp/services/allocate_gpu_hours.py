"""Closes GPU hours: works out marked ones once they have settled, then brings their shares into charges.

An hour is one transaction: its marks, bills, buckets and shares. Its shares then go into charges shard by shard,
under the locks that attribution takes, so that neither overwrites the other. Everything is worked out again as a
whole, so late spans, late samples, other rates and a crash half-way all end in the same state.
"""

import logging
import time
from datetime import UTC, datetime, timedelta

import psycopg
from django.conf import settings

from costapp.core.gpu_samples import MAX_GAP_SECONDS
from costapp.services.gpu_hour import HourResult, work_out
from costapp.storage import gpu_calls, gpu_columns, gpu_hours, outbox
from costapp.storage.connection import RETRYABLE, require_autocommit
from costapp.storage.gpu_hours import HOUR, State, Unapplied

log = logging.getLogger(__name__)

#: Hours of one project that one bell works out at most, so that others get their turn.
HOURS_PER_BELL = 24
#: Traces so far back are looked at again when a mapping changes what counts as self-hosted.
REMAP_DAYS = 7
GAP = timedelta(seconds=MAX_GAP_SECONDS)
REMAPPED = "engine mapping changed"


def allocate_due(conn: psycopg.Connection, *, budget_s: float, now: datetime | None = None) -> int:
    """Work out the marked hours of all projects that ended and settled. Returns how many were done."""
    require_autocommit(conn)
    deadline = time.monotonic() + budget_s
    now = now or datetime.now(UTC)
    settled = now - HOUR - timedelta(seconds=settings.GPU_HOUR_SETTLE_S)
    done = 0
    for project_id in gpu_hours.projects(conn):
        _prepare(conn, project_id, now=now, settled=settled)
        due = gpu_hours.due_hours(conn, project_id, before=settled + timedelta(microseconds=1), limit=HOURS_PER_BELL)
        for hour_at in due:
            if time.monotonic() > deadline:
                break
            done += _retried(conn, project_id, hour_at)
        for hour in gpu_hours.unapplied(conn, project_id, limit=HOURS_PER_BELL):
            if time.monotonic() > deadline:
                break
            _apply(conn, project_id, hour)
    return done


def allocate_all(conn: psycopg.Connection, *, now: datetime | None = None) -> int:
    """Until nothing is due: for tests, demo data and back-fills."""
    total = 0
    while done := allocate_due(conn, budget_s=3600, now=now):
        total += done
    return total


def _prepare(conn: psycopg.Connection, project_id: int, *, now: datetime, settled: datetime) -> None:
    """Mark what nothing that arrived marks: hours of silence, and hours worked out with other rates."""
    with conn.transaction():
        if not gpu_hours.try_lock(conn, project_id):
            return
        since = gpu_hours.oldest_samples(conn) or datetime(1970, 1, 1, tzinfo=UTC)
        changed = gpu_hours.follow_setup(conn, project_id, since=since)
        if changed.mappings:
            for days in range(REMAP_DAYS):
                day = (now - timedelta(days=days)).date()
                outbox.mark_day(conn, project_id, day=day, reason=REMAPPED)
        last = settled.replace(minute=0, second=0, microsecond=0) + HOUR
        gpu_hours.mark_silent_hours(conn, project_id, before=last)


def _retried(conn: psycopg.Connection, project_id: int, hour_at: datetime) -> int:
    try:
        return int(_hour(conn, project_id, hour_at))
    except RETRYABLE:
        return 0  # its marks are there again


def _hour(conn: psycopg.Connection, project_id: int, hour_at: datetime) -> bool:
    """One hour in one transaction. False if another worker has the project."""
    with conn.transaction():
        if not gpu_hours.try_lock(conn, project_id):
            return False
        gpu_hours.claim(conn, project_id, hour_at=hour_at)
        oldest = gpu_hours.oldest_samples(conn)
        if oldest and hour_at < oldest:
            return True  # its samples have expired: what was worked out stays
        began = time.perf_counter_ns()
        facts = gpu_hours.load_hour(conn, project_id, hour_at=hour_at, gap=GAP)
        calls = gpu_columns.load_calls(conn, project_id, hour_at=hour_at)
        rules = gpu_calls.load_rules(conn, project_id)
        result = work_out(facts, calls, rules, start_us=int(hour_at.timestamp()) * 1_000_000)
        gpu_hours.clear(conn, project_id, hour_at=hour_at)
        for pool_id, chosen, gpu_nano, is_estimate in result.shares:
            gpu_columns.write_shares(
                conn, project_id, hour_at=hour_at, pool_id=pool_id, calls=calls, chosen=chosen, gpu_nano=gpu_nano,
                is_estimate=is_estimate,
            )  # fmt: skip
        took_us = (time.perf_counter_ns() - began) // 1000
        state = State(len(calls.target), result.lost_calls, result.unrated_calls, took_us, result.open_gpus)
        gpu_hours.write(conn, project_id, hour_at=hour_at, nodes=result.nodes, models=result.models, state=state)
        _reopen_before(conn, project_id, hour_at, facts.samples)
        return True


def _reopen_before(conn: psycopg.Connection, project_id: int, hour_at: datetime, samples: list[gpu_hours.SampleRow]
                   ) -> None:  # fmt: skip
    """A GPU that the hour before took as switched off is here again: it had only not been seen."""
    start_us = int(hour_at.timestamp()) * 1_000_000
    here = {sample.ref for sample in samples if sample.at_us >= start_us}
    before = hour_at - HOUR
    if here & gpu_hours.open_gpus(conn, project_id, hour_at=before):
        gpu_hours.mark(conn, project_id, hours=[before])


def _apply(conn: psycopg.Connection, project_id: int, hour: Unapplied) -> int:
    """Bring the shares of an hour into charges: one transaction per shard, under its lock."""
    changed = 0
    for shard in range(outbox.SHARDS):
        with conn.transaction():
            changed += gpu_hours.apply_shard(conn, project_id, hour_at=hour.hour_at, shard=shard)
    with conn.transaction():
        gpu_hours.lock(conn, project_id)
        gpu_hours.finish(conn, project_id, hour_at=hour.hour_at, computed_at=hour.computed_at)
    return changed


__all__ = ["HourResult", "allocate_all", "allocate_due"]
