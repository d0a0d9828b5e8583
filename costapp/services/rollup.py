"""Bring the rollups up to date: claim what is marked, recompute it, mark what builds on it.

Sums of a 5-minute cell, its hour and its day change in one transaction, so the grains agree at every
moment a page can look. Costlier tables (latency, sessions, users) follow at their own pace: a grain is
due when a multiple of the time its last recomputation took has passed, so a hot cell is never the only
thing the machine does, and a quiet project is always fresh.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

import psycopg

from costapp.core.local_days import LocalDay, local_day_of
from costapp.storage import rollups
from costapp.storage.connection import RETRYABLE, require_autocommit
from costapp.storage.rollups import DirtyProject, Grain


class _Step(NamedTuple):
    """One kind of recomputation: how much at once, and how long to rest after it."""

    grain: Grain
    limit: int
    rest: int  # times the duration of the last run
    work: Callable[[psycopg.Connection, DirtyProject, int], int]


def recompute_dirty(conn: psycopg.Connection, *, force: bool = False, budget_s: float = 20.0) -> int:
    """Recompute what is marked and due, newest first. Returns how many marked cells and actors were done.

    ``force`` ignores the pace. After ``budget_s`` the rest is left to the next call.
    """
    require_autocommit(conn)
    deadline = time.monotonic() + budget_s
    done = 0
    for project in rollups.dirty_projects(conn):
        _follow_zone(conn, project)
        for step in _due(conn, project, force=force):
            done += _repeat(conn, project, step, deadline=deadline, force=force)
    return done


def _due(conn: psycopg.Connection, project: DirtyProject, *, force: bool) -> Iterable[_Step]:
    paces = {} if force else rollups.paces(conn, project.project_id)
    for step in STEPS:
        pace = paces.get(step.grain)
        if pace is None or pace.age_us >= step.rest * pace.took_us:
            yield step


def _repeat(conn: psycopg.Connection, project: DirtyProject, step: _Step, *, deadline: float, force: bool) -> int:
    """Run one step until its marks are gone, the time is up, or (unless forced) it deserves a rest."""
    total = 0
    while time.monotonic() < deadline:
        done = _once(conn, project, step)
        total += done
        if done < step.limit and not (force and done):
            break
    return total


def _once(conn: psycopg.Connection, project: DirtyProject, step: _Step) -> int:
    """One transaction of one step; 0 if another worker has the project or stood in the way."""
    began = time.perf_counter_ns()
    try:
        with conn.transaction():
            if not _is_ours(conn, project):
                return 0
            rollups.expect_many_rows(conn)
            done = step.work(conn, project, step.limit)
            if done:
                took_us = (time.perf_counter_ns() - began) // 1000
                rollups.set_pace(conn, project.project_id, grain=step.grain, took_us=took_us)
            return done
    except RETRYABLE:
        return 0


def _is_ours(conn: psycopg.Connection, project: DirtyProject) -> bool:
    """Under the lock, and the day tables still (or already) have the zone we think they have."""
    return (
        rollups.try_lock_project(conn, project.project_id)
        and rollups.built_zone(conn, project.project_id) == project.time_zone
    )


def _follow_zone(conn: psycopg.Connection, project: DirtyProject) -> None:
    """Day tables belong to one time zone: when the project's changes, empty them and build every day again."""
    if rollups.built_zone(conn, project.project_id) == project.time_zone:
        return
    with conn.transaction():
        if rollups.try_lock_project(conn, project.project_id):
            hours = rollups.clear_days(conn, project.project_id)
            days = _days(project, hours)
            rollups.mark_cells(conn, project.project_id, grain=Grain.DAY, cells=[day.start_at for day in days])
            rollups.set_built_zone(conn, project.project_id, time_zone=project.time_zone)


def _sums(conn: psycopg.Connection, project: DirtyProject, limit: int) -> int:
    cells = rollups.claim_cells(conn, project.project_id, grain=Grain.SUMS, limit=limit)
    rollups.recompute_cells(conn, project.project_id, cells=cells)
    for day in _days(project, cells):
        rollups.recompute_day(conn, project.project_id, day=day)
    hours = {rollups.hour_of(cell) for cell in cells}
    rollups.mark_cells(conn, project.project_id, grain=Grain.LATENCY, cells=hours)
    return len(cells)


def _latency(conn: psycopg.Connection, project: DirtyProject, limit: int) -> int:
    hours = rollups.claim_cells(conn, project.project_id, grain=Grain.LATENCY, limit=limit)
    rollups.recompute_latency_hours(conn, project.project_id, hours=hours)
    # An hour of a zone that is off by a half hour lies in two days.
    days = _days(project, [hour + offset for hour in hours for offset in (rollups.HOUR * 0, rollups.HOUR * 3 / 4)])
    for day in days:
        rollups.recompute_latency_day(conn, project.project_id, day=day)
    return len(hours)


def _actors(conn: psycopg.Connection, project: DirtyProject, limit: int) -> int:
    actors = rollups.claim_actors(conn, project.project_id, limit=limit)
    sessions: dict[LocalDay, set[str]] = defaultdict(set)
    users: dict[LocalDay, set[str]] = defaultdict(set)
    for actor in actors:
        day = local_day_of(actor.quarter_at, project.time_zone)
        sessions[day].add(actor.session_id)
        users[day].add(actor.user_id)
    for day in sorted(sessions):
        for table, ids in ((rollups.SESSION_DAY, sessions[day]), (rollups.USER_DAY, users[day])):
            named = sorted(ids - {""})
            rollups.recompute_actors(conn, project.project_id, table=table, day=day, ids=named)
    days = [day.start_at for day in sessions]
    rollups.mark_cells(conn, project.project_id, grain=Grain.ACTIVITY, cells=days)
    nobody = [day.start_at for day in users if "" in users[day]]
    rollups.mark_cells(conn, project.project_id, grain=Grain.NOBODY, cells=nobody)
    return len(actors)


def _nobody(conn: psycopg.Connection, project: DirtyProject, limit: int) -> int:
    starts = rollups.claim_cells(conn, project.project_id, grain=Grain.NOBODY, limit=limit)
    for day in _days(project, starts):
        rollups.recompute_nobody(conn, project.project_id, day=day)
    return len(starts)


def _activity(conn: psycopg.Connection, project: DirtyProject, limit: int) -> int:
    starts = rollups.claim_cells(conn, project.project_id, grain=Grain.ACTIVITY, limit=limit)
    for day in _days(project, starts):
        rollups.recompute_activity(conn, project.project_id, day=day)
    return len(starts)


def _whole_days(conn: psycopg.Connection, project: DirtyProject, limit: int) -> int:
    starts = rollups.claim_cells(conn, project.project_id, grain=Grain.DAY, limit=limit)
    for day in _days(project, starts):
        rollups.recompute_day(conn, project.project_id, day=day)
        rollups.recompute_latency_day(conn, project.project_id, day=day)
        for table in (rollups.SESSION_DAY, rollups.USER_DAY):
            rollups.recompute_actors(conn, project.project_id, table=table, day=day)
        rollups.recompute_activity(conn, project.project_id, day=day)
    return len(starts)


def _days(project: DirtyProject, instants: Iterable[datetime]) -> list[LocalDay]:
    return sorted({local_day_of(at, project.time_zone) for at in instants})


#: In the order of what people look at first. ``rest`` 3 means at most a quarter of one core.
STEPS = (
    _Step(Grain.SUMS, limit=288, rest=3, work=_sums),
    _Step(Grain.DAY, limit=1, rest=3, work=_whole_days),
    _Step(Grain.ACTORS, limit=10_000, rest=8, work=_actors),
    _Step(Grain.NOBODY, limit=1, rest=15, work=_nobody),
    _Step(Grain.LATENCY, limit=24, rest=15, work=_latency),
    _Step(Grain.ACTIVITY, limit=7, rest=15, work=_activity),
)
