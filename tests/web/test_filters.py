"""Periods: whole points of the project's own time, whatever the clock does."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from costapp.storage.reports.cells import Grain, Scope, bucket_starts
from costapp.web.filters import BadRange, previous_start, read_filters, read_period, read_view

NOW = datetime(2026, 11, 21, 3, 17, tzinfo=UTC)
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "Asia/Kathmandu"]


def period(query, zone="UTC", now=NOW):
    return read_period(QueryDict(query), ZoneInfo(zone), now=now)


@pytest.mark.parametrize(
    ("query", "grain", "points"),
    [("range=1h", Grain.FIVE_MINUTES, 13), ("range=24h", Grain.HOUR, 25), ("range=today", Grain.HOUR, 24),
     ("range=30d", Grain.DAY, 30), ("from=2026-11-01&to=2026-11-20", Grain.DAY, 20)],
)  # fmt: skip
def test_a_range_is_drawn_in_points_that_fit_it(query, grain, points):
    found = period(query)
    assert found.grain is grain
    assert len(bucket_starts(Scope(1, "UTC", found.start, found.end, found.grain))) == points


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_with_a_clock_change_has_the_hours_it_has(day, hours):
    found = period(f"from={day}&to={day}", "Europe/Berlin")
    assert found.end - found.start == timedelta(hours=hours)
    assert len(bucket_starts(Scope(1, "Europe/Berlin", found.start, found.end, found.grain))) == hours


@given(
    st.sampled_from(ZONES),
    st.integers(0, 3 * 366 * 24 * 60),
    st.integers(1, 399 * 24 * 60),
)
def test_any_range_is_widened_to_whole_points_and_never_narrowed(zone, minute, minutes):
    since = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    until = since + timedelta(minutes=minutes)
    query = QueryDict(mutable=True)
    query.update({"from": since.isoformat(), "to": until.isoformat()})
    found = read_period(query, ZoneInfo(zone), now=until)
    assert found.start <= since
    assert found.end >= until
    starts = bucket_starts(Scope(1, zone, found.start, found.end, found.grain))
    assert starts[0] == found.start
    assert starts[-1] < found.end
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("preset", ["today", "7d", "30d", "month", "24h"])
def test_the_previous_period_ends_where_this_one_begins(preset):
    zone = ZoneInfo("Europe/Berlin")
    found = period(f"range={preset}", "Europe/Berlin")
    before = previous_start(found, zone)
    assert before < found.start
    if preset not in {"month", "24h"}:
        days = round((found.end - found.start) / timedelta(days=1))
        assert round((found.start - before) / timedelta(days=1)) == days


BAD = ["from=nope", "from=2026-11-20&to=2026-11-01", "from=2020-01-01&to=2026-01-01", "from=9999-99-99"]


@pytest.mark.parametrize("query", BAD)
def test_what_cannot_be_shown_is_said(query):
    with pytest.raises(BadRange):
        period(query)


def test_filters_are_bounded_and_links_keep_what_was_chosen():
    query = QueryDict("&".join(f"feature=f{n}" for n in range(50)) + "&model=m&range=7d&by=model&compare=0&x=y")
    assert len(read_filters(query)["feature"]) == 20
    view = read_view(
        QueryDict("feature=a&feature=b&range=7d&by=model"), ZoneInfo("UTC"), now=NOW, default="30d", by=("model",)
    )
    assert view.query() == "range=7d&feature=a&feature=b&by=model"
    assert view.query(range="30d") == "feature=a&feature=b&by=model&range=30d"
    assert view.without("feature", "a") == "range=7d&feature=b&by=model"
