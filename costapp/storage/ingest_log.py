"""What the collectors received, stored and refused: rows of `ingest_log`, append-only."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]


class LogEntry(NamedTuple):
    """Sums since the last entry, for one project, key, signal and transport."""

    project_id: int
    key_id: int | None
    signal: str  # traces | metrics | logs
    transport: str  # http | grpc
    requests: int
    received: int
    stored: int
    duplicates: int
    rejected: int
    bytes: int
    reasons: Mapping[str, int]  # of what was rejected, cut or odd


_INSERT = """
insert into ingest_log (project_id, key_id, signal, transport, requests, received, stored, duplicates, rejected,
                        bytes, reasons)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""
# One row per hour, project, key, signal and transport replaces the rows of that hour.
_COMPACT = """
with hours as (  -- those that were compacted already stay as they are
    select distinct date_trunc('hour', at) as hour from ingest_log
    where at < date_trunc('hour', %(before)s::timestamptz) and at <> date_trunc('hour', at)
),
old as (delete from ingest_log where date_trunc('hour', at) in (select hour from hours) returning *),
reason as (
    select date_trunc('hour', at) as hour, project_id, key_id, signal, transport, item.key, sum(item.value::bigint) as n
    from old, jsonb_each_text(coalesce(reasons, '{}')) item group by 1, 2, 3, 4, 5, 6
),
reasons as (
    select hour, project_id, key_id, signal, transport, jsonb_object_agg(key, n) as reasons
    from reason group by 1, 2, 3, 4, 5
),
sums as (
    select date_trunc('hour', at) as hour, project_id, key_id, signal, transport, sum(requests) as requests,
           sum(received) as received, sum(stored) as stored, sum(duplicates) as duplicates,
           sum(rejected) as rejected, sum(bytes) as bytes
    from old group by 1, 2, 3, 4, 5
)
insert into ingest_log (at, requests, received, stored, duplicates, rejected, bytes, project_id, key_id, signal,
                        transport, reasons)
select s.hour, s.requests, s.received, s.stored, s.duplicates, s.rejected, s.bytes, s.project_id, s.key_id,
       s.signal, s.transport, r.reasons
from sums s left join reasons r on (r.hour, r.project_id, r.signal, r.transport)
    = (s.hour, s.project_id, s.signal, s.transport) and r.key_id is not distinct from s.key_id"""


def append_entries(conn: Connection, entries: Iterable[LogEntry]) -> None:
    """Part of the caller's transaction."""
    with conn.cursor() as cursor:
        cursor.executemany(_INSERT, [(*entry[:-1], Jsonb(dict(entry.reasons)) if entry.reasons else None)
                                     for entry in entries])  # fmt: skip


def compact(conn: Connection, *, before: datetime) -> None:
    """Merge the entries of each full hour before that time. Sums stay what they were; repeating changes nothing."""
    with conn.transaction():
        conn.execute(_COMPACT, {"before": before})
