"""How well budgets are forecast: the demo company's spend, forecast from each day of each thirty-day period.

    DATABASE_URL=postgresql://… python benchmarks/forecast.py [--days 120] [--scale 0.1]

Seeds the demo company in a database of its own, which it creates beside the one of DATABASE_URL and drops again. For
the whole project and for each feature, and from each day on: what would have been said about the end of a period of
thirty days of which so many had passed, and what happened? Only the past of that day is used. Prints per day of the
period the mean error of the end (MAPE) and how often it lay in the band, whose promise is four in five.
"""

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import psycopg

from benchmarks.own_database import own_database

DATABASE = "costapp_bench_forecast"
PERIOD_DAYS = 30
AFTER = (1, 2, 3, 5, 7, 10, 14, 18, 21, 25, 28)  # days of the period that have passed


class Try(NamedTuple):
    """One forecast and what happened."""

    subject: str
    passed: int
    error: float  # of the end of the period, as a share of what happened
    hit: bool
    width: float  # of the band, as a share of what happened
    trust: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--scale", type=float, default=0.1, help="times as many sessions as the demo has")
    parser.add_argument("--history", type=int, default=7, help="days of spend before the period begins, at least")
    options = parser.parse_args()
    with own_database(DATABASE):
        measure(options.days, options.scale, options.history)


def measure(days: int, scale: float, history: int) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "costapp.settings"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from costapp.services.import_prices import import_catalogue
    from costapp.services.seed_demo.seed import seed_demo
    from costapp.storage.connection import connect

    start, now = time.perf_counter(), datetime.now(UTC)
    import_catalogue()
    with connect(os.environ["DATABASE_URL"]) as conn:
        project = seed_demo(conn, now=now, days=days, scale=scale)
        courses = read(conn, project.pk, project.time_zone, now, days)
    print(f"seeded {days} days at scale {scale} in {time.perf_counter() - start:.0f} s; {len(courses) - 1} features")
    report("whole project", [t for t in tries(courses, history) if not t.subject])
    report("features", [t for t in tries(courses, history) if t.subject])


def read(
    conn: "psycopg.Connection", project_id: int, time_zone: str, now: datetime, days: int
) -> dict[str, dict[date, int]]:
    """Per feature ("" = all) the spend of each whole local day, as pages show it."""
    from zoneinfo import ZoneInfo

    from costapp.core.local_days import local_day_of
    from costapp.storage.reports import spend
    from costapp.storage.reports.cells import Grain, Scope

    first = local_day_of(now - timedelta(days=days - 1), time_zone).start_at
    scope = Scope(project_id, time_zone, first, local_day_of(now, time_zone).start_at, Grain.DAY)
    found: dict[str, dict[date, int]] = {"": {}}
    for point in spend.series(conn, scope, "feature", values=None, before=None):
        day = point.bucket_at.astimezone(ZoneInfo(time_zone)).date()
        found[""][day] = found[""].get(day, 0) + point.cost_nano
        if point.value:
            found.setdefault(point.value, {})[day] = point.cost_nano
    return found


def tries(courses: Mapping[str, Mapping[date, int]], history: int) -> Iterator[Try]:
    for subject, course in courses.items():
        spent_on = [day for day, cost_nano in course.items() if cost_nano]
        if not spent_on:  # its model has no price
            continue
        first, last = min(spent_on), max(courses[""])
        start = first + timedelta(days=history)
        while start + timedelta(days=PERIOD_DAYS - 1) <= last:
            for passed in AFTER:
                yield attempt(subject, course, first, start, passed)
            start += timedelta(days=1)


def attempt(subject: str, course: Mapping[date, int], first: date, start: date, passed: int) -> Try:
    """At the end of the day ``passed``: nothing of the day after it is known."""
    from costapp.core.forecast import Coming, forecast

    today = start + timedelta(days=passed)
    at = datetime(2000, 1, 1, tzinfo=UTC)
    history = [course.get(first + timedelta(days=n), 0) for n in range((today - first).days)]
    coming = [
        Coming(at, at + timedelta(days=1), (today + timedelta(days=n)).weekday(), 1.0)
        for n in range(PERIOD_DAYS - passed)
    ]
    spent_nano = sum(history[-passed:])
    told = forecast(
        spent_nano, history=history, today_nano=0, today_weekday=today.weekday(), today_share=0.0, coming=coming
    )
    happened = spent_nano + sum(course.get(today + timedelta(days=n), 0) for n in range(PERIOD_DAYS - passed))
    assert told.cost_nano is not None
    assert told.low_nano is not None
    assert told.high_nano is not None
    return Try(
        subject, passed, abs(told.cost_nano - happened) / max(1, happened),
        told.low_nano <= happened <= told.high_nano, (told.high_nano - told.low_nano) / max(1, happened), told.trust,
    )  # fmt: skip


def report(name: str, found: list[Try]) -> None:
    print(f"\n{name}: {len(found):,} forecasts")
    print("| days passed of 30 | mean error of the end | 90 % of errors below | in the band | mean width of the band |")
    print("| --- | --- | --- | --- | --- |")
    for passed in AFTER:
        of_day = [t for t in found if t.passed == passed]
        errors = sorted(t.error for t in of_day)
        hits = sum(t.hit for t in of_day) / len(of_day)
        width = sum(t.width for t in of_day) / len(of_day)
        worst = errors[min(len(errors) - 1, len(errors) * 9 // 10)]
        print(f"| {passed} | {sum(errors) / len(errors):.1%} | {worst:.1%} | {hits:.0%} | {width:.0%} |")


if __name__ == "__main__":
    main()
