"""Root cause: the slice that was moved is named, with its money, and nothing else is."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.blame import blame, explain
from anomaly.leaves import leaves_of

DIMS = ["feature", "model", "user"]
DAYS = 10
START, END = "2026-03-11 09:00", "2026-03-11 12:00"


def traffic(seed: int, noise: float = 0.25) -> pd.DataFrame:
    """Ten days of four hours: every user on some features and models, a wave per user and day, noise per leaf."""
    rng = np.random.default_rng(seed)
    leaves = [
        (feature, model, user, rng.lognormal(1.0, 1.0))
        for user in (f"u{i}" for i in range(12))
        for feature in ("chat", "search", "report", "tagging")
        for model in ("large", "small")
        if rng.random() < 0.7
    ]
    stamps = pd.to_datetime("2026-03-01 09:00") + pd.to_timedelta(
        [day * 24 + hour for day in range(DAYS + 1) for hour in range(4)], unit="h"
    )
    waves = {(user, day): rng.lognormal(0, 0.15) for *_, user, _ in leaves for day in range(DAYS + 1)}
    rows = [
        (stamp, feature, model, user, size * waves[user, i // 4] * rng.lognormal(0, noise))
        for i, stamp in enumerate(stamps)
        for feature, model, user, size in leaves
    ]
    return pd.DataFrame(rows, columns=["timestamp", *DIMS, "cost"])


def lift(table: pd.DataFrame, factor: float, **where: str) -> pd.DataFrame:
    chosen = table["timestamp"] >= START
    for dim, value in where.items():
        chosen &= table[dim] == value
    assert chosen.any()
    return table.assign(cost=table["cost"].where(~chosen, table["cost"] * factor))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "cause",
    [{"feature": "chat"}, {"model": "large"}, {"user": "u3"}, {"feature": "report", "model": "small"}],
    ids=str,
)
def test_the_slice_that_was_moved_is_named(seed, cause):
    assert blame(lift(traffic(seed), 4.0, **cause), START, END, DIMS) == [cause]


def test_two_causes_are_both_named_and_a_third_that_fell_is_not():
    table = lift(lift(traffic(5), 5.0, feature="chat", model="small"), 4.0, user="u7")
    table = lift(table, 0.3, feature="tagging")
    assert sorted(map(str, blame(table, START, END, DIMS))) == sorted(
        map(str, [{"feature": "chat", "model": "small"}, {"user": "u7"}])
    )


def test_a_fall_is_explained_like_a_rise():
    assert blame(lift(traffic(6), 0.1, feature="chat"), START, END, DIMS) == [{"feature": "chat"}]


def test_nobody_is_blamed_when_everything_rose_alike():
    explanation = explain(lift(traffic(7), 2.5), START, END, DIMS)
    assert explanation.drivers == ()
    assert explanation.alike


def test_nobody_is_blamed_for_a_usual_day():
    assert [seed for seed in range(8) if blame(traffic(seed), START, END, DIMS)] == []


def test_a_user_never_seen_before_is_one_new_driver_with_all_of_their_money():
    table = traffic(8)
    stamps = table["timestamp"][table["timestamp"] >= START].unique()
    new = pd.DataFrame(
        [(stamp, "chat", model, "u99", 60.0) for stamp in stamps for model in ("large", "small")],
        columns=table.columns,
    )
    (driver,) = explain(pd.concat([table, new]), START, END, DIMS).drivers
    assert driver.where == {"user": "u99"}
    assert driver.new
    assert (driver.actual, driver.expected) == (480.0, 0.0)


def test_a_driver_tells_actual_expected_and_share_of_the_change():
    table = lift(traffic(9, noise=0.1), 6.0, user="u2")
    explanation = explain(table, START, END, DIMS)
    (driver,) = explanation.drivers
    mine = (table["timestamp"] >= START) & (table["user"] == "u2")
    assert driver.actual == pytest.approx(table["cost"][mine].sum())
    assert driver.actual > 3 * driver.expected > 0
    change = explanation.actual - explanation.expected
    assert driver.share == pytest.approx((driver.actual - driver.expected) / change)
    assert driver.share > 0.5
    assert not driver.new
    assert explanation.actual == pytest.approx(table["cost"][table["timestamp"] >= START].sum())


def test_rows_after_the_window_and_the_order_of_rows_change_nothing():
    table = lift(traffic(10), 4.0, feature="search")
    later = table.assign(timestamp=table["timestamp"] + pd.Timedelta(days=30), cost=1e6)
    shuffled = pd.concat([table, later]).sample(frac=1.0, random_state=1)
    assert blame(shuffled, START, END, DIMS) == blame(table, START, END, DIMS)


def test_values_that_are_unknown_are_values_too():
    table = lift(traffic(11), 5.0, feature="chat")
    table["feature"] = table["feature"].where(table["feature"] != "chat", None)
    (cause,) = blame(table, START, END, DIMS)
    assert pd.isna(cause["feature"])


def test_one_forecast_without_history_is_enough():
    """Real cost against one expected cost, 2,400 leaves, three causes of different depth, one of them a single leaf."""
    rng = np.random.default_rng(3)
    frame = pd.MultiIndex.from_product(
        [[f"{d}{i}" for i in range(size)] for d, size in (("a", 8), ("b", 10), ("c", 6), ("d", 5))], names=list("abcd")
    ).to_frame(index=False)
    expected = rng.weibull(0.7, len(frame)) * 100
    real = expected * (1 + rng.normal(0, 0.05, len(frame)))
    causes = [{"a": "a3"}, {"b": "b2", "d": "d4"}, {"a": "a1", "b": "b7", "c": "c0", "d": "d2"}]
    for cause in causes:
        chosen = (frame[list(cause)] == list(cause.values())).all(axis=1)
        real = np.where(chosen, real * (1 - rng.normal(0.7, 0.03, len(frame))), real)
    table = pd.concat(
        [
            frame.assign(timestamp="2026-01-01 00:00", cost=expected),
            frame.assign(timestamp="2026-01-01 01:00", cost=real),
        ]
    )
    found = blame(table, "2026-01-01 01:00", "2026-01-01 01:00", list("abcd"))
    assert sorted(map(str, found)) == sorted(map(str, causes))


def test_most_of_the_leaves_may_have_moved():
    """Three of five regions fell by the same ratio: they are named; not everything, nor the two that stood still."""
    rng = np.random.default_rng(4)
    frame = pd.MultiIndex.from_product([range(20), range(10), list("vwxyz")], names=["a", "b", "region"]).to_frame(
        index=False
    )
    expected = rng.weibull(0.7, len(frame)) * 100
    real = expected * (1 + rng.normal(0, 0.05, len(frame))) * np.where(frame["region"].isin(["v", "w", "x"]), 0.5, 1.0)
    table = pd.concat(
        [
            frame.assign(timestamp="2026-01-01 00:00", cost=expected),
            frame.assign(timestamp="2026-01-01 01:00", cost=real),
        ]
    )
    found = blame(table, "2026-01-01 01:00", "2026-01-01 01:00", ["a", "b", "region"])
    assert sorted(cause["region"] for cause in found) == ["v", "w", "x"]


def test_earlier_windows_are_the_same_hours_and_a_missing_hour_counts_as_usual():
    stamps = pd.date_range("2026-03-01", "2026-03-04 23:00", freq="h")
    table = pd.DataFrame({"timestamp": stamps, "feature": "chat", "cost": np.where(stamps.hour == 9, 10.0, 1.0)})
    table = table[table["timestamp"] != pd.Timestamp("2026-03-02 10:00")]
    leaves = leaves_of(table, "2026-03-04 09:00", "2026-03-04 10:00", ["feature"])
    assert leaves.actual.tolist() == [11.0]
    assert leaves.earlier[:, 0].tolist() == [11.0, 20.0, 11.0]  # of the second day only 09:00 is known
    assert leaves.ages.tolist() == [1.0, 2.0, 3.0]


def test_with_less_than_a_day_of_history_the_stretches_right_before_are_used():
    stamps = pd.date_range("2026-03-01", periods=7, freq="h")
    table = pd.DataFrame({"timestamp": stamps, "feature": "chat", "cost": range(7)})
    leaves = leaves_of(table, stamps[5], stamps[6], ["feature"])
    assert leaves.actual.tolist() == [11.0]
    assert leaves.earlier[:, 0].tolist() == [7.0, 3.0]


rows = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from(["chat", "search", ""]),
        st.sampled_from(["large", "small", None]),
        st.integers(0, 10**15),
    ),
    max_size=60,
)


@given(rows)
def test_any_table_is_explained_without_complaint_and_amounts_add_up(rows):
    table = pd.DataFrame(rows, columns=["hour", "feature", "model", "cost"])
    table["timestamp"] = pd.Timestamp("2026-03-01") + pd.to_timedelta(table["hour"], unit="h")
    start, end = pd.Timestamp("2026-03-02 12:00"), pd.Timestamp("2026-03-02 16:00")
    explanation = explain(table, start, end, ["feature", "model"])
    inside = table["timestamp"].between(start, end)
    assert explanation.actual == pytest.approx(float(table["cost"][inside].sum()))
    for driver in explanation.drivers:
        mine = inside
        for dim, value in driver.where.items():
            mine = mine & (table[dim].isna() if pd.isna(value) else table[dim] == value)
        assert driver.actual == pytest.approx(float(table["cost"][mine].sum()))
