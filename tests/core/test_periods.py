"""Budget periods: whole local days without gap or overlap, in every zone, whatever its clocks do."""

import zoneinfo
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.periods import PeriodKind, period_of, period_of_day, previous

KINDS = [kind for kind in PeriodKind if kind is not PeriodKind.ROLLING]
# half and quarter hours, both hemispheres, DST at midnight, DST of half an hour, a day left out, twice a year and never
ZONES = (
    "UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/Los_Angeles", "America/St_Johns",
    "America/Havana", "America/Asuncion", "America/Santiago", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Kathmandu",
    "Asia/Beirut", "Asia/Tehran", "Africa/Cairo", "Africa/Casablanca", "Australia/Lord_Howe", "Australia/Adelaide",
    "Pacific/Apia", "Pacific/Chatham", "Pacific/Kiritimati", "Antarctica/Troll",
)  # fmt: skip
# Hypothesis wants limits without a zone.
YEARS = {"min_value": datetime(2010, 1, 2), "max_value": datetime(2037, 12, 30)}  # noqa: DTZ001
instants = st.datetimes(timezones=st.just(UTC), **YEARS)
zones = st.sampled_from(sorted(zoneinfo.available_timezones() - {"localtime", "Factory"}))


@given(instants, zones, st.sampled_from(KINDS))
def test_each_instant_lies_in_one_period_and_the_one_before_ends_where_it_begins(at, zone, kind):
    period = period_of(kind, at, zone)
    assert period.contains(at)
    assert period.start_at.tzinfo is UTC
    assert previous(period).end_at == period.start_at
    assert not previous(period).contains(at)
    assert period_of(kind, period.start_at, zone) == period
    assert period_of(kind, period.end_at - timedelta(microseconds=1), zone) == period
    assert period_of(kind, period.end_at, zone).start_at == period.end_at


@given(instants, zones, st.integers(1, 366))
def test_a_rolling_period_ends_tonight_and_has_as_many_days_as_it_says(at, zone, days):
    period = period_of(PeriodKind.ROLLING, at, zone, rolling_days=days)
    assert period.contains(at)
    assert len(list(period.days())) == days
    assert period.end_day == at.astimezone(ZoneInfo(zone)).date() + timedelta(days=1)
    assert previous(period).end_at == period.start_at


@pytest.mark.parametrize("zone", ZONES)
def test_two_years_of_hours_fall_into_periods_as_their_local_dates_say(zone):
    at = datetime(2025, 1, 1, tzinfo=UTC)
    while at < datetime(2027, 1, 1, tzinfo=UTC):
        local = at.astimezone(ZoneInfo(zone))
        assert period_of(PeriodKind.DAY, at, zone).first_day == local.date()
        assert period_of(PeriodKind.MONTH, at, zone).first_day == local.date().replace(day=1)
        week = period_of(PeriodKind.WEEK, at, zone)
        assert week.first_day.isocalendar()[:2] == local.date().isocalendar()[:2]
        assert week.first_day.isoweekday() == 1
        for kind in KINDS:
            assert period_of(kind, at, zone).contains(at), (kind, at)
        at += timedelta(hours=7)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("America/New_York", "2026-11-01", 25),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Asia/Beirut", "2026-03-29", 23),  # midnight does not exist
        ("America/Havana", "2026-11-01", 25),  # midnight exists twice
        ("Asia/Kathmandu", "2026-03-29", 24),
        ("Pacific/Apia", "2011-12-30", 0),  # the day was left out
    ],
)
def test_days_are_as_long_as_they_are(zone, day, hours):
    period = period_of_day(PeriodKind.DAY, date.fromisoformat(day), zone)
    assert period.end_at - period.start_at == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("kind", "day", "first", "last", "words"),
    [
        ("month", "2028-02-29", "2028-02-01", "2028-02-29", "February 2028"),
        ("month", "2026-02-28", "2026-02-01", "2026-02-28", "February 2026"),
        ("month", "2026-12-31", "2026-12-01", "2026-12-31", "December 2026"),
        ("quarter", "2026-05-31", "2026-04-01", "2026-06-30", "Q2 2026"),
        ("quarter", "2026-12-31", "2026-10-01", "2026-12-31", "Q4 2026"),
        ("week", "2027-01-02", "2026-12-28", "2027-01-03", "week 53 of 2026"),
        ("week", "2026-11-16", "2026-11-16", "2026-11-22", "week 47 of 2026"),
        ("day", "2028-02-29", "2028-02-29", "2028-02-29", "29 February 2028"),
    ],
)
def test_calendar_periods_begin_and_end_where_a_calendar_says(kind, day, first, last, words):
    period = period_of_day(PeriodKind(kind), date.fromisoformat(day), "UTC")
    assert (str(period.first_day), str(period.last_day), period.words()) == (first, last, words)


def test_a_rolling_period_names_its_days():
    period = period_of_day(PeriodKind.ROLLING, date(2026, 11, 21), "UTC", rolling_days=7)
    assert period.words() == "the 7 days to 21 Nov 2026"
    assert period.first_day == date(2026, 11, 15)


@pytest.mark.parametrize("days", [0, -1, 367])
def test_a_rolling_period_of_no_length_is_refused(days):
    with pytest.raises(ValueError, match="1 to 366 days"):
        period_of_day(PeriodKind.ROLLING, date(2026, 11, 21), "UTC", rolling_days=days)


def test_a_budget_that_starts_or_ends_inside_a_period_has_the_part():
    month = period_of_day(PeriodKind.MONTH, date(2026, 11, 21), "Europe/Berlin")
    part = month.clipped(date(2026, 11, 10), date(2026, 11, 20))
    assert (part.first_day, part.last_day) == (date(2026, 11, 10), date(2026, 11, 20))
    assert month.clipped(None, None) == month
    assert month.clipped(date(2026, 12, 1), None).start_at == month.clipped(date(2026, 12, 1), None).end_at


@given(zones, st.dates(date(2025, 1, 1), date(2026, 12, 31)))
def test_the_key_of_a_period_is_the_same_in_every_zone(zone, day):
    assert period_of_day(PeriodKind.MONTH, day, zone).key == period_of_day(PeriodKind.MONTH, day, "UTC").key
