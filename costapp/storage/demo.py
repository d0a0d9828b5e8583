"""What of the demo data is stored already."""

from datetime import date, timedelta
from typing import Any
from uuid import UUID

import psycopg


def days_with_charges(conn: psycopg.Connection[Any], project_id: int, first: date, last: date) -> set[date]:
    """The days of a project that have charges, between two days, both included. Spans may have expired since."""
    query = """
        select day from generate_series(%s::date, %s::date, interval '1 day') as days(day)
        where exists (select 1 from charge where charge.project_id = %s and charge.day = days.day::date)
    """
    return {row[0].date() for row in conn.execute(query, (first, last, project_id))}


def has_charge(conn: psycopg.Connection[Any], project_id: int, day: date, trace_id: bytes) -> bool:
    """Is a call of the trace charged on the day, or after midnight?"""
    query = "select 1 from charge where project_id = %s and day between %s and %s and trace_id = %s limit 1"
    days = (day, day + timedelta(days=2))
    return conn.execute(query, (project_id, *days, UUID(bytes=trace_id))).fetchone() is not None
