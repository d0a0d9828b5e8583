"""Fill a project of its own with sixty days of an invented company, through the ordinary pipeline.

Spans go in as facts and everything else (calls, prices, attribution, sums) is worked out from them
exactly as for real traffic. The newest day comes first, so that pages fill while it runs; what is there
already is stored once, so an interrupted run is simply started again.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from typing import Any, NamedTuple

import psycopg
from django.contrib.auth import get_user_model

from costapp.models import Membership, Project
from costapp.services.allocate_gpu_hours import allocate_all
from costapp.services.drain import drain, resolve
from costapp.services.seed_demo import company, gpus
from costapp.services.seed_demo.generate import day_spans
from costapp.services.seed_demo.watch import watch_demo
from costapp.storage import demo as stored
from costapp.storage.partitions import ensure_partitions
from costapp.storage.spans import insert_spans

Connection = psycopg.Connection[Any]


class NotDemo(Exception):
    """The project holds real data, which demo data must not be mixed with."""


class Progress(NamedTuple):
    """How far seeding has come, told after each day."""

    day: date
    days_done: int
    days: int
    traces: int
    spans: int  # stored by this run


def demo_project() -> Project:
    """The demo project, made at need, with every administrator as its owner. Raises NotDemo."""
    project, _ = Project.objects.get_or_create(
        slug=company.PROJECT_SLUG,
        defaults={"name": company.PROJECT_NAME, "time_zone": company.TIME_ZONE, "is_demo": True},
    )
    if not project.is_demo:
        raise NotDemo(
            f"The project {project.name!r} ({project.slug}) holds real data and is left alone."
            " Rename its slug to seed a demo."
        )
    for user in get_user_model().objects.filter(is_superuser=True, is_active=True):
        Membership.objects.get_or_create(project=project, user=user, defaults={"role": Membership.Role.OWNER})
    return project


def seed_demo(
    conn: Connection,
    *,
    now: datetime,
    days: int = company.DAYS,
    scale: float = 1.0,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> Project:
    """Seed what is missing of the ``days`` up to ``now``. ``conn`` must be in autocommit mode.

    ``scale`` multiplies the number of sessions. Raises NotDemo.
    """
    project = demo_project()
    anchor = project.created_at.astimezone(UTC).date()
    today = now.astimezone(UTC).date()
    gpus.set_up(project)
    missing = _missing_days(conn, project.pk, anchor=anchor, today=today, days=days, scale=scale)
    traces = spans = 0
    for number, day in enumerate(missing, start=1):
        ensure_partitions(conn, [day])
        day_traces = list(day_spans(day, anchor=anchor, until=now, scale=scale))
        spans += insert_spans(conn, project.pk, chain.from_iterable(day_traces))
        if (today - day).days < gpus.DAYS:
            gpus.insert_day(conn, project.pk, day, day_traces, anchor=anchor, until=now)
            resolve(conn)
            allocate_all(conn, now=now)  # before sums are made of the charges
        traces += len(day_traces)
        drain(conn)
        tell(Progress(day, number, len(missing), traces, spans))
    if missing:
        allocate_all(conn, now=now)
        drain(conn)
    watch_demo(conn, project, now=now)
    return project


def _missing_days(
    conn: Connection, project_id: int, *, anchor: date, today: date, days: int, scale: float
) -> list[date]:
    """Newest first. A day before the anchor went in as a whole; a later one may have been seeded when it was young."""
    there = stored.days_with_charges(conn, project_id, today - timedelta(days=days), today)
    return [
        day
        for day in _back_from(today, days)
        if day not in there or (day >= anchor and not _is_whole(conn, project_id, day, anchor=anchor, scale=scale))
    ]


def _is_whole(conn: Connection, project_id: int, day: date, *, anchor: date, scale: float) -> bool:
    """Is the last trace of the day there?"""
    end = datetime.combine(day + timedelta(days=2), time(), UTC)
    roots = [trace[0] for trace in day_spans(day, anchor=anchor, until=end, scale=scale)]
    last = max(roots, key=lambda root: root.start_ns, default=None)
    return last is None or stored.has_charge(conn, project_id, day, last.trace_id)


def _back_from(today: date, days: int) -> Iterator[date]:
    return (today - timedelta(days=number) for number in range(days))
