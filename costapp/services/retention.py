"""How long data is kept. Partitions are made ahead and dropped whole; only the audit log loses single rows."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import psycopg
from django.conf import settings

from costapp.storage import audit, budgets, gpu_calls, gpu_samples, ingest_log, kinds, notifications, partitions

#: Partitions exist this far ahead; a machine that slept for a week still finds today's.
DAYS_AHEAD = 14
DAYS_BEHIND = 2


class Keep(NamedTuple):
    """Days of data to keep, per table."""

    span: int
    span_content: int
    charge: int
    metric_point: int
    gpu_call: int = 400
    gpu_share: int = 400
    gpu_sample: int = 30
    gpu_gap: int = 30
    engine_sample: int = 30


def configured() -> Keep:
    return Keep(
        span=settings.KEEP_SPANS_DAYS,
        span_content=settings.KEEP_CONTENT_DAYS,
        charge=settings.KEEP_CHARGES_DAYS,
        metric_point=settings.KEEP_CHARGES_DAYS,
        gpu_call=settings.KEEP_CHARGES_DAYS,
        gpu_share=settings.KEEP_CHARGES_DAYS,
        gpu_sample=settings.KEEP_GPU_SAMPLES_DAYS,
        gpu_gap=settings.KEEP_GPU_SAMPLES_DAYS,
        engine_sample=settings.KEEP_GPU_SAMPLES_DAYS,
    )


def make_partitions(conn: psycopg.Connection, *, today: date | None = None) -> list[str]:
    """Make the partitions of the coming days, and of days whose rows wait in a default partition."""
    today = today or _today(conn)
    made = partitions.ensure_partitions(conn, _days(today))
    for table in partitions.GRAINS:
        made += partitions.ensure_partitions(conn, partitions.waiting_days(conn, table), tables=[table])
    return made


def apply_retention(conn: psycopg.Connection, *, keep: Keep | None = None, today: date | None = None) -> list[str]:
    """Drop the partitions whose every day is older than what is kept. Returns their names."""
    today = today or _today(conn)
    dropped = []
    for table, days in (keep or configured())._asdict().items():
        dropped += partitions.drop_before(conn, table, day=today - timedelta(days=days))
    if horizon := partitions.horizon(conn, "charge"):
        kinds.drop_before(conn, day=horizon)
    if horizon := partitions.horizon(conn, "gpu_sample"):
        gpu_samples.drop_places_before(conn, day=horizon)
    if horizon := partitions.horizon(conn, "gpu_call"):
        gpu_calls.drop_targets_before(conn, day=horizon)
    oldest_entry = datetime.combine(today - timedelta(days=settings.KEEP_AUDIT_DAYS), time(), UTC)
    audit.drop_before(conn, at=oldest_entry)
    notifications.prune(conn, datetime.combine(today - timedelta(days=settings.KEEP_ALERTS_DAYS), time(), UTC))
    budgets.drop_before(conn, at=datetime.combine(today - timedelta(days=settings.KEEP_CHARGES_DAYS), time(), UTC))
    return dropped


def compact_ingest_log(conn: psycopg.Connection, *, now: datetime | None = None) -> None:
    """One row per hour instead of one per commit, for all hours but the last two."""
    ingest_log.compact(conn, before=(now or datetime.now(UTC)) - timedelta(hours=1))


def _days(today: date) -> Iterable[date]:
    return (today + timedelta(days=number) for number in range(-DAYS_BEHIND, DAYS_AHEAD + 1))


def _today(conn: psycopg.Connection) -> date:
    """The database's UTC date: partitions are its business, and its clock is the one all parts share."""
    row = conn.execute("select (now() at time zone 'UTC')::date").fetchone()
    assert row is not None
    today: date = row[0]
    return today
