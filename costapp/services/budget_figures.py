"""The figures behind a budget: spend, forecast and driver. All of them are sums that pages show (storage.reports)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from costapp.core.forecast import Coming, Forecast, forecast, share_of_day
from costapp.core.local_days import local_day, local_day_of
from costapp.core.money import format_usd
from costapp.core.periods import Period, PeriodKind, period_of, previous
from costapp.storage.budgets import BudgetRow, Connection
from costapp.storage.reports import spend
from costapp.storage.reports.cells import Grain, Scope, needs_charges
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.sums import Sums

HISTORY_DAYS = 112  #: sixteen weeks before today
PROFILE_DAYS = 14  #: the hours of a typical day are those of two weeks
HOUR = timedelta(hours=1)
#: Where a driver is looked for, the most telling first.
DRIVERS = ("feature", "model", "user", "team", "environment", "prompt_version", "workload", "service")
DRIVER_VALUES = 50


class Spent(NamedTuple):
    """What the period cost so far, per subject."""

    by_subject: Mapping[str, Sums]
    distinct: int  #: values with calls; of a template more than are looked at, when there are too many


def scope_of(
    row: BudgetRow, start_at: datetime, end_at: datetime, *, subject: str = "", grain: Grain = Grain.DAY
) -> Scope:
    """The calls that a budget covers, or one subject of it."""
    filters = {key: tuple(values) for key, values in row.filters.items()}
    if row.dimension and (row.values or subject):
        filters[row.dimension] = (subject,) if row.is_template else tuple(row.values)
    return Scope(row.project_id, row.time_zone, start_at, end_at, grain, filters)


def spent(conn: Connection, row: BudgetRow, scope: Scope, *, most: int) -> Spent:
    """Of a template: the dearest ``most`` values, without those that have a budget of their own or no name."""
    if not row.is_template:
        return Spent({"": spend.totals(conn, scope)}, 1)
    table = spend.split(conn, scope, row.dimension, limit=most + len(row.own_values) + 1)
    own = {*row.own_values, ""}
    found = [split for split in table.rows if split.value not in own][:most]
    left_out = sum(1 for split in table.rows if split.value in own)
    return Spent({split.value: split.sums for split in found}, table.distinct - left_out)


# --- forecast


def forecasts(
    conn: Connection, row: BudgetRow, period: Period, now: datetime, spent_nano: Mapping[str, int]
) -> dict[str, Forecast]:
    """Per subject the spend at the end of the period that contains ``now``."""
    today = local_day_of(now, period.time_zone)
    first = local_day(today_of(now, period.time_zone) - timedelta(days=HISTORY_DAYS), period.time_zone).start_at
    scope = scope_of(row, first, today.end_at)
    courses = _courses(conn, row, scope, sorted(spent_nano))
    share = share_of_day(_hours(conn, row, today.start_at), (now - today.start_at) / HOUR)
    return {
        subject: project(courses.get(subject, {}), period, now, share=share, spent_nano=spent_nano[subject])
        for subject in spent_nano
    }


def project(course: Mapping[date, int], period: Period, now: datetime, *, share: float, spent_nano: int) -> Forecast:
    """The forecast from the spend per local day; ``share`` of a typical day has passed."""
    today = today_of(now, period.time_zone)
    first = min((day for day, cost_nano in course.items() if cost_nano), default=today)
    history = [course.get(first + timedelta(days=n), 0) for n in range((today - first).days)]
    return forecast(
        spent_nano, history=history, today_nano=course.get(today, 0), today_weekday=today.weekday(),
        today_share=share, coming=coming(period, now, share),
    )  # fmt: skip


def coming(period: Period, now: datetime, share: float) -> list[Coming]:
    """What is left of the period: the rest of today, then whole days."""
    found = []
    for day, (start_at, end_at) in period.days():
        if end_at > now and end_at > start_at:
            rest = 1.0 if start_at >= now else max(0.0, 1.0 - share)
            found.append(Coming(max(start_at, now), end_at, day.weekday(), rest))
    return found


def today_of(now: datetime, time_zone: str) -> date:
    return now.astimezone(ZoneInfo(time_zone)).date()


def _courses(conn: Connection, row: BudgetRow, scope: Scope, subjects: list[str]) -> dict[str, dict[date, int]]:
    """Per subject the spend of each local day."""
    zone = ZoneInfo(scope.time_zone)
    found: dict[str, dict[date, int]] = {subject: {} for subject in subjects}
    if not row.is_template:
        for at, sums in spend.trend(conn, scope):
            found[""][at.astimezone(zone).date()] = sums.cost_nano or 0
        return found
    for point in spend.series(conn, scope, row.dimension, values=subjects, before=None):
        if point.value in found:
            found[point.value][point.bucket_at.astimezone(zone).date()] = point.cost_nano
    return found


def _hours(conn: Connection, row: BudgetRow, midnight: datetime) -> list[int]:
    """The project's spend by hour since local midnight: one typical day for all of its budgets."""
    start = local_day_of(midnight - timedelta(days=PROFILE_DAYS), row.time_zone).start_at
    hours = [0] * 25
    for at, sums in spend.trend(conn, Scope(row.project_id, row.time_zone, start, midnight, Grain.HOUR)):
        passed = (at - local_day_of(at, row.time_zone).start_at) // HOUR
        hours[passed] += sums.cost_nano or 0
    return hours[:24] if not hours[24] else hours


# --- driver


class Mover(NamedTuple):
    """A value of a dimension: what it cost, what in the same days of the period before, and how much it tells."""

    dimension: str
    value: str
    cost_nano: int
    before_nano: int
    score: int

    @property
    def more_nano(self) -> int:
        return self.cost_nano - self.before_nano


def driver(conn: Connection, row: BudgetRow, period: Period, now: datetime, subject: str) -> str:
    """Which value of which other dimension did it, in one sentence; "" when nothing stands out."""
    end_at = min(period.end_at, local_day_of(now, period.time_zone).end_at)
    scope = scope_of(row, period.start_at, end_at, subject=subject)
    earlier = scope.between(*_same_days_before(period, now))
    dimensions = [
        key for key in DRIVERS if key not in scope.filters and (DIMENSIONS[key].in_rollup or needs_charges(scope))
    ]
    current = spend.contributors(conn, scope, dimensions, limit=DRIVER_VALUES)
    past = spend.contributors(conn, earlier, dimensions, limit=DRIVER_VALUES)
    cost_nano = spend.totals(conn, scope).cost_nano or 0
    before_nano = spend.totals(conn, earlier).cost_nano or 0
    found = [mover for key in dimensions for mover in movers(key, current[key], past[key], cost_nano, before_nano)]
    return driver_words(found, period)


def movers(
    dimension: str, current: Sequence[spend.Contributor], past: Sequence[spend.Contributor], cost_nano: int,
    before_nano: int,
) -> list[Mover]:  # fmt: skip
    """What each value tells about the rise.

    What it rose beyond its share of before counts, so that "production" is no driver of an app that runs nowhere else;
    and less in a dimension whose values replace each other, such as prompt versions.
    """
    rise = cost_nano - before_nano
    known = {each.value: each.cost_nano for each in past}
    risen = sum(max(0, each.cost_nano - known.get(each.value, 0)) for each in current)
    if rise <= 0 or not risen:
        return []
    found = []
    for each in current:
        before = known.get(each.value, 0)
        expected = rise * before // before_nano if before_nano else 0
        score = (each.cost_nano - before - expected) * min(rise, risen) ** 2 // risen**2
        if each.value and score > 0 and (each.cost_nano - before) * 5 >= rise:
            found.append(Mover(dimension, each.value, each.cost_nano, before, score))
    return found


def driver_words(found: Iterable[Mover], period: Period) -> str:
    """The value that tells most. Of several that tell the same, the first dimension's."""
    best = max(found, key=lambda mover: mover.score, default=None)
    if best is None:
        return ""
    label = DIMENSIONS[best.dimension].label.lower()
    more = f"{format_usd(best.more_nano)} more than in {_before_words(period)}"
    return f"The driver is {label} {best.value}: {format_usd(best.cost_nano)}, {more}."


def _before_words(period: Period) -> str:
    if period.kind is PeriodKind.ROLLING:
        return f"the {(period.end_day - period.first_day).days} days before"
    if period.kind is PeriodKind.DAY:
        return "all of the day before"
    return f"the same days of {previous(period).words()}"


def _same_days_before(period: Period, now: datetime) -> tuple[datetime, datetime]:
    """As many days of the period before as have begun of this one."""
    before = previous(period)
    begun = min((today_of(now, period.time_zone) - period.first_day).days + 1, (period.end_day - period.first_day).days)
    end = min(before.first_day + timedelta(days=begun), before.end_day)
    return before.start_at, local_day(end, period.time_zone).start_at


def month_forecast(conn: Connection, project_id: int, time_zone: str, now: datetime, spent_nano: int) -> Forecast:
    """Where this month of a project will end, whether or not there is a budget for it."""
    period = period_of(PeriodKind.MONTH, now, time_zone)
    row = BudgetRow(
        id=0, project_id=project_id, slug="", time_zone=time_zone, name="", dimension="", values=[], filters={},
        amount_nano=0, period=PeriodKind.MONTH, rolling_days=None, starts_on=None, ends_on=None, carry_over="none",
        thresholds=[], owner="", note="", revision=0, created_at=now, channel_ids=[], own_values=[],
    )  # fmt: skip
    return forecasts(conn, row, period, now, {"": spent_nano})[""]
