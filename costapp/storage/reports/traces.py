"""The spans of one trace as stored, for the waterfall and for explaining a charge."""

from datetime import date
from typing import NamedTuple
from uuid import UUID

from costapp.core.values import Span
from costapp.storage.facts import decode_facts
from costapp.storage.reports.sql import Connection, run

MOST_SPANS = 2_000


class StoredTrace(NamedTuple):
    spans: list[Span]  #: at most MOST_SPANS, in order of start
    total: int


def trace_spans(conn: Connection, project_id: int, trace_id: UUID) -> StoredTrace:
    sql = """
        select trace_id, span_id, parent_id, start_ns, facts, count(*) over ()
        from span where project_id = %(project_id)s and trace_id = %(trace_id)s
        order by start_ns, span_id limit %(limit)s"""
    rows = run(conn, sql, {"project_id": project_id, "trace_id": trace_id, "limit": MOST_SPANS})
    spans = [Span(row[0].bytes, row[1], row[2], row[3], decode_facts(bytes(row[4]))) for row in rows]
    return StoredTrace(spans, rows[0][5] if rows else 0)


class Revision(NamedTuple):
    at: date
    reason: str
    old_cost_nano: int | None
    new_cost_nano: int | None
    old_feature: str | None
    new_feature: str | None


def revisions(conn: Connection, project_id: int, *, day: date, trace_id: UUID, span_id: int) -> list[Revision]:
    """What changed on a booked charge, oldest first."""
    sql = """
        select at, reason, old_cost_nano, new_cost_nano, old_feature, new_feature from charge_revision
        where project_id = %(project_id)s and day = %(day)s and trace_id = %(trace_id)s and span_id = %(span_id)s
        order by id limit 100"""
    rows = run(conn, sql, {"project_id": project_id, "day": day, "trace_id": trace_id, "span_id": span_id})
    return [Revision._make(row) for row in rows]
