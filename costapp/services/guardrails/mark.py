"""Who has just called: noted beside the charges, for projects that have a guardrail."""

import time
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import psycopg

from costapp.core.guardrails import LATE, MAX_MINUTES, Per
from costapp.storage import guardrails
from costapp.storage.charges import Booked

#: Calls that started longer ago count for no guardrail: history that is filled in marks nobody.
_REACH_S = 60 * MAX_MINUTES + int(LATE.total_seconds())
_POSTGRES_EPOCH_S = 946_684_800


def mark_callers(
    conn: psycopg.Connection, project_id: int, *, touched: Iterable[Booked], nodes: Iterable[tuple[date, bytes]]
) -> None:
    """Mark the sessions, users and traces of changed charges, as far as a guardrail of the project asks."""
    since_s = int(time.time()) - _REACH_S
    since_us = (since_s - _POSTGRES_EPOCH_S) * 1_000_000
    recent = [booked for booked in touched if booked.start_us >= since_us]
    watched = guardrails.watched(conn, project_id) if recent else frozenset()
    subjects: dict[Per, Iterable[str]] = {}
    if Per.SESSION in watched:
        subjects[Per.SESSION] = {booked.session_id for booked in recent}
    if Per.USER in watched:
        subjects[Per.USER] = {booked.user_id for booked in recent}
    if Per.TRACE in watched:
        first_day = datetime.fromtimestamp(since_s, UTC).date() - timedelta(days=1)
        subjects[Per.TRACE] = {trace_id.hex() for day, trace_id in nodes if day >= first_day}
    guardrails.mark(conn, project_id, subjects=subjects)
