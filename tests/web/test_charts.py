"""Figures as data: true to what they draw, and readable."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import plotly.graph_objects as go

from costapp.storage.reports.cells import Grain
from costapp.storage.reports.spend import Point
from costapp.web import charts
from costapp.web.palette import COLOURS, Palette

START = datetime(2026, 10, 24, 22, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def axis(hours=30, now_hours=2):
    starts = [START + timedelta(hours=n) for n in range(hours)]
    return charts.TimeAxis(
        starts, starts[-1] + timedelta(hours=1), Grain.HOUR, BERLIN, START + timedelta(hours=now_hours, minutes=1)
    )


def figure(points, *, before=(), order=("a",), has_other=False):
    found = axis()
    data = charts.stack(points, found, before=list(before), order=list(order), has_other=has_other)
    names = {value: value for value in order} | {None: "2 other features"}
    return charts.cost_over_time(data, found, Palette({"a": 0}), names=names)


def test_plotly_accepts_the_figure_once_colours_are_colours():
    drawn = figure([Point(START, "a", 5, 1, 0), Point(START, None, 7, 1, 0)], has_other=True)
    for trace in drawn["data"]:
        trace["marker"]["color"] = "#123456"
    go.Figure(drawn)


def test_empty_buckets_keep_their_place_and_the_unfinished_one_is_pale():
    bars = figure([Point(START + timedelta(hours=3), "a", 2_000_000_000, 1, 0)])["data"][0]
    assert bars["y"] == [0, 0, 0, 2.0] + [0] * 26
    assert [place for place, opacity in enumerate(bars["marker"]["opacity"]) if opacity < 1] == [2]


def test_an_hour_that_the_clock_change_repeats_has_two_places_of_one_name():
    names = axis().names()
    assert names[2] == names[3] == "Sun 25 Oct, 02:00"


def test_the_previous_period_lies_under_this_one():
    earlier = [START - timedelta(hours=30 - n) for n in range(30)]
    line = figure([Point(earlier[4], "gone", 9_000_000_000, 1, 0)], before=earlier)["data"][-1]
    assert line["y"][4] == 9.0
    assert line["line"]["dash"] == "dot"


def test_small_amounts_are_not_written_with_a_prefix_that_reads_like_millions():
    assert charts.money_ticks(600_000_000)["tickformat"] == ",.9~f"
    assert charts.money_ticks(5_000 * charts.NANO)["tickformat"] == "~s"


def test_an_unpriced_bar_says_so_and_not_zero():
    assert "unpriced" in figure([Point(START, "a", 0, 3, 3)])["data"][0]["hovertext"][0]


def test_places_in_the_palette_are_unique_and_stay_when_values_come():
    palette = Palette({})
    names = [f"feature-{n}" for n in range(3 * COLOURS)]
    first = [palette.css(name) for name in names[:5]]
    assert len({palette.css(name) for name in names}) == len(names)
    assert [palette.css(name) for name in names[:5]] == first
    assert palette.css("") == palette.css(None) == "series-other"


def test_a_sparkline_breaks_where_nothing_is_known():
    assert len(charts.sparkline([1.0, 2.0, None, 3.0, 1.0])) == 2
