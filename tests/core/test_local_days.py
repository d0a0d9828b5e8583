"""Days of a time zone: nothing overlaps, nothing is left out, whatever the clocks do."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.local_days import local_day, local_day_of

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Adelaide", "Australia/Lord_Howe",
    "America/Havana", "America/Santiago", "Asia/Beirut", "Africa/Cairo", "Pacific/Chatham", "Pacific/Apia",
)  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("UTC", date(2026, 3, 29), 24),
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("Asia/Beirut", date(2026, 3, 29), 23),  # midnight itself is skipped
        ("America/Havana", date(2026, 11, 1), 25),  # midnight itself happens twice
    ],
)
def test_a_day_has_the_hours_its_clocks_say(zone, day, hours):
    start_at, end_at = local_day(day, zone)
    assert (end_at - start_at) == timedelta(hours=hours)


@given(st.sampled_from(ZONES), st.dates(date(2015, 1, 1), date(2035, 12, 31)))
def test_days_follow_each_other_and_begin_at_a_quarter_hour(zone, day):
    today, tomorrow = local_day(day, zone), local_day(day + timedelta(days=1), zone)
    assert today.end_at == tomorrow.start_at
    assert today.start_at.minute % 15 == 0
    assert today.start_at.tzinfo is UTC


# Hypothesis wants limits without a zone.
YEARS = {"min_value": datetime(2015, 1, 1), "max_value": datetime(2035, 12, 31)}  # noqa: DTZ001


@given(st.sampled_from(ZONES), st.datetimes(timezones=st.just(UTC), **YEARS))
def test_every_instant_lies_in_its_day(zone, at):
    start_at, end_at = local_day_of(at, zone)
    assert start_at <= at < end_at
    assert local_day_of(start_at, zone) == (start_at, end_at)
