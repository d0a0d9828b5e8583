"""What became of given traces: marks still to be worked off, and their charges. For replay."""

from collections.abc import Collection, Iterator
from datetime import date
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from costapp.core.values import Signal
from costapp.storage.facts import decode_facts


def marks_left(conn: psycopg.Connection[Any], project_id: int, trace_ids: Collection[bytes]) -> int:
    """How many of the traces wait for attribution."""
    query = "select count(distinct trace_id) from dirty_trace where project_id = %s and trace_id = any(%s)"
    row = conn.execute(query, (project_id, _uuids(trace_ids))).fetchone()
    return int(row[0]) if row else 0


def stored_spans(
    conn: psycopg.Connection[Any], project_id: int, days: tuple[date, date], trace_ids: Collection[bytes]
) -> int:
    """How many spans of the traces are stored, between two days, both included."""
    query = "select count(*) from span where project_id = %s and day between %s and %s and trace_id = any(%s)"
    row = conn.execute(query, (project_id, *days, _uuids(trace_ids))).fetchone()
    return int(row[0]) if row else 0


def charges_of(
    conn: psycopg.Connection[Any],
    project_id: int,
    days: tuple[date, date],
    trace_ids: Collection[bytes],
) -> list[dict[str, Any]]:
    """The charges of the traces, oldest first."""
    query = """
        select * from charge_full
        where project_id = %s and day between %s and %s and trace_id = any(%s)
        order by start_at, trace_id, span_id
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, (project_id, *days, _uuids(trace_ids))).fetchall()


def event_traces(
    conn: psycopg.Connection[Any],
    project_id: int,
    days: tuple[date, date],
    times_ns: Collection[int],
) -> Iterator[bytes]:
    """Traces made up for events outside any trace: found by the exact time of the event, its end or its start."""
    query = """
        select trace_id, start_ns, facts from span
        where project_id = %s and day between %s and %s and start_ns between %s and %s
    """
    hour_ns = 3_600_000_000_000
    wanted = {time_ns // 1000 for time_ns in times_ns}
    bounds = (min(times_ns) - hour_ns, max(times_ns) + 1000)
    for trace_id, start_ns, raw in conn.execute(query, (project_id, *days, *bounds)):
        facts = decode_facts(raw)
        ends_us = (start_ns + (facts.duration_us or 0) * 1000) // 1000
        if facts.signal == Signal.EVENT and not wanted.isdisjoint((start_ns // 1000, ends_us)):
            yield trace_id.bytes


def _uuids(trace_ids: Collection[bytes]) -> list[UUID]:
    return [UUID(bytes=trace_id) for trace_id in trace_ids]
