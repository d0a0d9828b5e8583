"""What a series' past says about its next day: the usual value of each signal, and how odd is odd.

Everything here is worked out per local day from rows of *earlier* days only, for all days of the history at once
(arrays with a day axis), or for the one day that begins. Scores of a day therefore depend on its own rows and on what
was learnt at its midnight, never on later rows.
"""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from anomaly.detect_calendar import Calendar, Ints
from anomaly.detect_signals import INDEX, SIGNALS, Array, log, meters, signal_values, spend

WEEKDAYS, WEEKEND_DAYS = 15, 6  # three weeks: days of the same kind that the usual value of a slot is the median of
LEVEL_DAYS = 4
PRICE_DAYS = 28
EXTREME_DAYS = 28  # daily worst values that say how odd is odd
USUAL_QUANTILE, BAD_QUANTILE = 0.5, 0.85
FIRST_ROWS, FIRST_KNOWN = 24, 6  # the first day is compared with the rows before
FEW_DAYS = 5  # with fewer worst values than this a series is cold: wide bands
MONTH_START_DAYS, MONTH_START_HOURS, MONTH_STARTS = 2, 3, 2
MEMORY_WEIGHT = 1.2
# Slow leak: the prompt size of the last days against three weeks that ended a while before, at three quantiles.
LEAK_SHAPE_DAYS = 28
LEAK_DAYS, LEAK_GAP, LEAK_REFERENCE, LEAK_EXTREMES = 5, 6, 21, 30
LEAK_QUANTILES = (0.15, 0.3, 0.5)
LEAK_SPREAD, LEAK_STEPS = 0.024, 2.5
GROWN, GROWN_SAID_DAYS = 1.4, 28  # requests at this many times the season's for days are the new normal, said once
HISTORY_DAYS = 120  # what the above needs, one on top of the other

STATISTICS = tuple((i, hours) for i, signal in enumerate(SIGNALS) for hours in signal.windows)
OF_SIGNAL = np.array([i for i, _ in STATISTICS])
SUDDEN = np.array([signal.sudden for signal in SIGNALS])
COUNTING = np.array([signal.counting for signal in SIGNALS])
LEAST_SPREAD = np.array([signal.spread for signal in SIGNALS])


class Learned(NamedTuple):
    """What is known at the beginning of each day. The day axis comes first, so that one day is a slice."""

    prices: Array  # (days, 3) money per uncached, cached and output token
    base: Array  # (days, signals, slots) usual value
    level: Array  # (days, signals) how far the last days were off it
    usual_worst: Array  # (days, statistics) the worst of a usual day
    scale: Array  # (days, statistics) how far beyond it is one step
    memory: Array  # (days, slots, statistics) what earlier month starts had at this time; 0 on other days
    leak: Array  # (days,) score of the drift of prompt sizes
    band: Array  # (days, 2) how far below and above its usual value the value lies at the worst hour of most days
    known_days: Ints  # (days,) days with data before


def quantiles(values: Array, shares: tuple[float, ...], least: int = 1) -> list[Array]:
    """Quantiles over the last axis, unknown values left out; NaN with fewer than `least` known ones."""
    order = np.sort(values, axis=-1)  # unknown last
    known = np.isfinite(order).sum(axis=-1)
    found = []
    for share in shares:
        place = np.maximum(known - 1, 0) * share
        below = np.floor(place).astype(np.int64)
        lower = np.take_along_axis(order, below[..., None], -1)[..., 0]
        upper = np.take_along_axis(order, np.ceil(place).astype(np.int64)[..., None], -1)[..., 0]
        found.append(np.where(known >= least, lower + (upper - lower) * (place - below), np.nan))
    return found


def past_days(values: Array, count: int) -> Array:
    """(..., days) -> (..., days, count): for each day the values of the `count` days before it."""
    padding = np.full((*values.shape[:-1], count), np.nan)
    return sliding_window_view(np.concatenate([padding, values[..., :-1]], axis=-1), count, axis=-1)


def learn_prices(rows: dict[str, Array], metric: str, calendar: Calendar) -> Array:
    """(days, 3) unit prices that explain the money of the last four weeks."""
    prices = np.full((calendar.days, 3), np.nan)
    if metric == "gpu_idle_cost":
        return prices
    used, money = meters(rows), spend(rows, metric)
    edges = np.searchsorted(calendar.day, np.arange(calendar.days + 1))
    good = np.isfinite(used).all(axis=1) & (money > 0)
    for day in range(1, calendar.days):
        past = slice(edges[max(0, day - PRICE_DAYS)], edges[day])
        prices[day] = fit_prices(used[past][good[past]], money[past][good[past]])
    return prices


def fit_prices(used: Array, money: Array) -> Array:
    """Least absolute relative error, by reweighting; not below zero. NaN with less than a day of rows."""
    if len(money) < 24:
        return np.full(3, np.nan)
    relative = used / money[:, None]
    size = np.abs(relative).mean(axis=0) + 1e-300
    relative = relative / size
    weight = np.ones(len(money))
    for _ in range(3):
        normal = (relative * weight[:, None]).T @ relative + 1e-6 * len(money) * np.eye(3)
        price = np.linalg.solve(normal, (relative * weight[:, None]).sum(axis=0))
        weight = 1 / np.maximum(np.abs(relative @ price - 1), 0.01)
    fitted: Array = np.maximum(price, 0) / size
    return fitted


def by_slot(values: Array, calendar: Calendar) -> Array:
    """(signals, rows) -> (signals, days, slots)."""
    table = np.full((len(values), calendar.days, calendar.slots), np.nan)
    table[:, calendar.day, calendar.slot] = values
    return table


def usual(table: Array, calendar: Calendar) -> Array:
    """Median of the same slot over the last days of the same kind; before there are two, over any earlier days."""
    base = np.full(table.shape, np.nan)
    for weekend, count in ((False, WEEKDAYS), (True, WEEKEND_DAYS)):
        which = np.flatnonzero(calendar.weekend == weekend)
        alike = np.moveaxis(table[:, which, :], 1, -1)
        if len(which):
            base[:, which, :] = np.moveaxis(quantiles(past_days(alike, count), (0.5,), least=2)[0], -1, 1)
    any_day = quantiles(past_days(np.moveaxis(table, 1, -1), WEEKEND_DAYS), (0.5,))[0]
    base = np.where(np.isfinite(base), base, np.moveaxis(any_day, -1, 1))
    return smooth(base, calendar.slots // 24)


def smooth(base: Array, width: int) -> Array:
    """Mean over the slots of about an hour, for steps shorter than that: five-minute medians alone are ragged."""
    if width < 3:
        return base
    reach = width // 2
    around = np.concatenate([base[..., -reach:], base, base[..., :reach]], axis=-1)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(around)
        total = sliding_window_view(np.where(known, around, 0), 2 * reach + 1, axis=-1).sum(-1)
        mean: Array = total / sliding_window_view(known, 2 * reach + 1, axis=-1).sum(-1)
    return mean


def running_median(values: Array, count: int = FIRST_ROWS) -> Array:
    """(signals, rows) median of the rows before: what the first day has instead of a season."""
    before = np.concatenate([np.full((len(values), count), np.nan), values[:, :-1]], axis=1)
    return quantiles(sliding_window_view(before, count, axis=1), (0.5,), least=FIRST_KNOWN)[0]


def residuals(values: Array, base: Array, day: Ints, slot: Ints) -> Array:
    """(signals, rows) distance from the usual value. `base` is (days, signals, slots)."""
    return values - base[day, :, slot].T


def excesses(residual: Array, level: Array, rows: dict[str, Array], usual_requests: Array) -> Array:
    """(signals, rows) distance that counts. `level` is of the same shape, `usual_requests` (rows,) a logarithm.

    For sudden signals it is the smaller of the distance from the season and that from the last days. A figure of
    three requests says little: distances shrink as counting noise outgrows a signal's least spread. Silence is
    weighed by the requests that were to be expected.
    """
    excess = np.where(SUDDEN[:, None], np.minimum(residual, residual - level), residual)
    count = np.tile(rows["requests"], (len(excess), 1))
    count[INDEX["load"]] = rows["users"]
    count[INDEX["silence"]] = np.exp(usual_requests)
    noise = (COUNTING / LEAST_SPREAD)[:, None] ** 2 / np.where(count > 0, count, np.inf)
    counted: Array = excess / np.sqrt(1 + noise)
    return counted


def window_means(excess: Array, steps_per_hour: int) -> Array:
    """(signals, rows) -> (statistics, rows): means over each signal's windows, unknown with less than half known."""
    known = np.isfinite(excess)
    zero = np.zeros((len(excess), 1))
    total = np.concatenate([zero, np.cumsum(np.where(known, excess, 0), axis=1)], axis=1)
    count = np.concatenate([zero, np.cumsum(known, axis=1)], axis=1)
    end = np.arange(excess.shape[1]) + 1
    found = np.full((len(STATISTICS), excess.shape[1]), np.nan)
    for k, (i, hours) in enumerate(STATISTICS):
        steps = window_steps(hours, steps_per_hour)
        begin = np.maximum(0, end - steps)
        many = count[i, end] - count[i, begin]
        mean = (total[i, end] - total[i, begin]) / np.maximum(many, 1)
        found[k] = np.where(many >= max(1, steps / 2), mean, np.nan)
    return found


def window_steps(hours: int, steps_per_hour: int) -> int:
    """The shortest window is one row at any grain, so that a spike in a five-minute cell is seen at once."""
    return 1 if hours == 1 else hours * steps_per_hour


def daily(reduce: np.ufunc, values: Array, calendar: Calendar) -> Array:
    """(rows of figures, rows) -> (rows of figures, days) by np.fmax or np.fmin; tomorrow unknown."""
    edges = np.searchsorted(calendar.day, np.arange(calendar.days - 1))
    found = np.full((len(values), calendar.days), np.nan)
    found[:, :-1] = reduce.reduceat(values, edges, axis=1)
    return found


def learn_extremes(statistics: Array, calendar: Calendar) -> tuple[Array, Array]:
    """From the worst values of the last four weeks' days: that of a usual day, and the step beyond it.

    Medians of daily maxima stand on real tails, whatever their shape, and incidents of a few days do not move them.
    """
    worst = past_days(daily(np.fmax, statistics, calendar), EXTREME_DAYS)
    middle, bad = quantiles(worst, (USUAL_QUANTILE, BAD_QUANTILE))
    known = np.isfinite(worst).sum(axis=-1)
    middle = np.maximum(np.nan_to_num(middle), 0)
    step = np.maximum(np.maximum(np.nan_to_num(bad) - middle, 0.25 * middle), 0.5 * LEAST_SPREAD[OF_SIGNAL, None])
    cold = 1 + 0.5 * np.maximum(FEW_DAYS - known, 0)
    cold = np.where(unfamiliar(calendar), np.maximum(cold, 2), cold)
    return middle.T, (step * cold).T


def unfamiliar(calendar: Calendar) -> NDArray[np.bool_]:
    """(days,) whether fewer than two days of its kind came before: the first weekend is compared with weekdays."""
    alike = np.where(calendar.weekend, np.cumsum(calendar.weekend), np.cumsum(~calendar.weekend))
    return alike <= 2


def learn_month_starts(statistics: Array, calendar: Calendar) -> Array:
    """What the first days of earlier months had, an hour or three around: a monthly batch is expected again."""
    memory = np.zeros((calendar.days, calendar.slots, len(STATISTICS)))
    starts = np.flatnonzero(calendar.month_start)
    table = by_slot(np.maximum(np.nan_to_num(statistics), 0), calendar)
    reach = max(1, MONTH_START_HOURS * calendar.slots // 24)
    for n, start in enumerate(starts):
        for earlier in starts[max(0, n - MONTH_STARTS) : n]:
            seen = np.nan_to_num(table[:, earlier : earlier + MONTH_START_DAYS])
            flat = np.pad(seen.reshape(len(STATISTICS), -1), ((0, 0), (reach, reach)))
            around = (
                sliding_window_view(flat, 2 * reach + 1, axis=1).max(-1).reshape(len(STATISTICS), -1, calendar.slots)
            )
            days = slice(start, min(start + around.shape[1], calendar.days))
            memory[days] = np.maximum(memory[days], around.transpose(1, 2, 0)[: days.stop - days.start])
    return memory * MEMORY_WEIGHT


def learn_leak(prompt: Array, calendar: Calendar) -> Array:
    """(days,) how far *all* of the last days' prompt sizes moved up: the least shift of three quantiles.

    Real prompt sizes jump by half for a day and come back; then the upper quantiles move. In a leak the small ones
    move as well.
    """
    table = by_slot(prompt[None], calendar)[0]
    shape = table - quantiles(table, (0.5,))[0][:, None]
    season = quantiles(past_days(shape.T, LEAK_SHAPE_DAYS), (0.5,))[0].T
    flat = table - season
    lagged = np.concatenate([np.full((LEAK_DAYS + LEAK_GAP, calendar.slots), np.nan), flat])[: calendar.days]
    recent = past_days(flat.T, LEAK_DAYS).transpose(1, 0, 2).reshape(calendar.days, -1)
    reference = past_days(lagged.T, LEAK_REFERENCE).transpose(1, 0, 2).reshape(calendar.days, -1)
    now = quantiles(recent, LEAK_QUANTILES, least=calendar.slots)
    then = quantiles(reference, LEAK_QUANTILES, least=4 * calendar.slots)
    shift = np.min([a - b for a, b in zip(now, then, strict=True)], axis=0)
    settled = np.concatenate([np.full(3, np.nan), shift])[: calendar.days]
    noise = quantiles(past_days(np.abs(settled), LEAK_EXTREMES), (0.75,), least=5)[0]
    found: Array = np.nan_to_num(shift / np.maximum(np.nan_to_num(noise) / LEAK_STEPS, LEAK_SPREAD))
    return found


class Seen(NamedTuple):
    """What the rows of a history turned out to be."""

    values: Array  # (signals + 1, rows) signals, then the value itself
    excess: Array  # (signals, rows)
    statistics: Array  # (statistics, rows)


def new_normals(learned: Learned) -> Array:
    """(days,) how many times as many requests as three weeks before, on the day this is to be said; else NaN.

    Growth that comes with its users is no incident. It is worth one sentence.
    """
    said = np.full(len(learned.level), np.nan)
    last = -GROWN_SAID_DAYS
    for day, level in enumerate(learned.level[:, INDEX["requests"]]):
        if level >= np.log(GROWN) and day - last >= GROWN_SAID_DAYS and learned.known_days[day] >= EXTREME_DAYS:
            said[day], last = np.exp(level), day
    return said


def learn(rows: dict[str, Array], metric: str, calendar: Calendar) -> tuple[Learned, Seen]:
    """All days of a history: what was known at each midnight, and what the rows turned out to be."""
    day, slot = calendar.day, calendar.slot
    per_hour = max(1, calendar.slots // 24)
    prices = learn_prices(rows, metric, calendar)
    values = np.concatenate([signal_values(rows, metric, prices, day), log(rows["value"])[None]])
    base = usual(by_slot(values, calendar), calendar).transpose(1, 0, 2)
    residual = residuals(values, base, day, slot)
    residual = np.where(np.isfinite(residual), residual, values - running_median(values))
    of_days = np.moveaxis(by_slot(residual, calendar), 1, -1)
    recent = past_days(of_days, LEVEL_DAYS).swapaxes(1, 2).reshape(len(values), calendar.days, -1)
    level = np.nan_to_num(quantiles(recent, (0.5,), least=calendar.slots)[0]).T
    off = (residual[-1] - level[day, -1])[None]
    band = np.stack([
        quantiles(past_days(daily(reduce, off, calendar), EXTREME_DAYS), (share,))[0][0]
        for reduce, share in ((np.fmin, 1 - BAD_QUANTILE), (np.fmax, BAD_QUANTILE))
    ], axis=1)  # fmt: skip
    excess = excesses(residual[:-1], level[day, :-1].T, rows, base[day, INDEX["requests"], slot])
    statistics = window_means(excess, per_hour)
    usual_worst, scale = learn_extremes(statistics, calendar)
    seen = np.isfinite(daily(np.fmax, residual[-1:], calendar))[0]
    learned = Learned(
        prices=prices,
        base=base,
        level=level,
        usual_worst=usual_worst,
        scale=scale,
        memory=learn_month_starts(statistics, calendar),
        leak=learn_leak(values[INDEX["prompt"]], calendar),
        band=band,
        known_days=np.concatenate([[0], np.cumsum(seen)[:-1]]).astype(np.int64),
    )
    return learned, Seen(values, excess, statistics)


def oddness(learned: Learned, statistics: Array, day: Ints, slot: Ints) -> Array:
    """(statistics, rows): how many steps beyond the worst of a usual day; 0 where nothing is known."""
    beyond = statistics - learned.usual_worst[day].T - learned.memory[day, slot].T
    return np.nan_to_num(beyond / learned.scale[day].T)
