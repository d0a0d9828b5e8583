"""Windows of rules lie on the edges of cells, in every zone and on days when clocks change."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.alert_metrics import METRICS, WINDOWS, grain_of
from costapp.core.alert_windows import band_ends, last_edge, next_edge, previous_end, start_of
from costapp.core.local_days import local_day_of

ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/New_York")
moments = st.integers(1_735_689_600, 1_798_761_600).map(lambda second: datetime.fromtimestamp(second, UTC))


@given(moments, st.sampled_from(["5m", "hour", "day"]), st.sampled_from(ZONES))
def test_the_last_edge_is_the_newest_that_is_over(at, grain, zone):
    edge = last_edge(at, grain, zone)
    assert edge <= at < next_edge(edge, grain, zone)
    assert last_edge(edge, grain, zone) == edge


@given(moments, st.sampled_from(sorted(WINDOWS)), st.sampled_from(ZONES))
def test_every_window_lies_on_cells(at, key, zone):
    window = WINDOWS[key]
    end = last_edge(at, window.grain, zone)
    for edge in (end, start_of(end, window, zone), previous_end(end, window, zone), *band_ends(end, window, zone)):
        assert last_edge(edge, "hour" if window.grain == "hour" else "5m", zone) == edge
        if window.grain == "day":
            assert local_day_of(edge, zone).start_at == edge


def test_a_day_when_clocks_change_has_23_hours():
    end = datetime(2026, 3, 29, 22, tzinfo=UTC)  # midnight in Berlin after the change
    assert end - start_of(end, WINDOWS["1d"], "Europe/Berlin") == timedelta(hours=23)


def test_the_band_is_of_the_same_hour_on_the_clock():
    end = datetime(2026, 3, 30, 7, tzinfo=UTC)  # 09:00 in Berlin, the week before it was 08:00 UTC
    assert datetime(2026, 3, 23, 8, tzinfo=UTC) in band_ends(end, WINDOWS["1h"], "Europe/Berlin")
    assert len(band_ends(end, WINDOWS["1h"], "Europe/Berlin")) == 12
    assert len(band_ends(end, WINDOWS["7d"], "Europe/Berlin")) == 4


@pytest.mark.parametrize("metric", [metric for metric in METRICS.values() if metric.family.value == "latency"])
def test_latency_is_read_on_whole_hours(metric):
    assert grain_of(metric, WINDOWS["1h"]) == "hour"
    assert grain_of(metric, WINDOWS["7d"]) == "day"
