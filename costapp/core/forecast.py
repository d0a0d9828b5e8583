"""What a period will cost at its end, with a band and the reason for its width. Pure; amounts stay integers.

The method (docs/budgets.md, back-tested in benchmarks/forecast.py):

1. *Day types*: how much a Monday, Tuesday ... weighs against the mean of the last eight weeks, drawn towards 1 while
   few of them have been seen.
2. *Run rate*: the spend of the days divided by the sum of their weights, newer days counting more (half as much every
   ``HALF_LIFE_DAYS``); today counts by the share of a typical day that has passed.
3. The rest of the period = run rate x weights of the days to come, and of the rest of today by the hours of a
   typical day.
4. *Band*: the same forecast made on each of the past days, compared with what then happened over as many days. The
   band holds the middle four fifths of those errors. Without enough past it is wide by rule, and says so.

Costs are divided by their mean at once, so that all factors are ratios, and only the result is an amount again.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from costapp.core.money import PPM, divide_half_up

HALF_LIFE_DAYS = 5
SEASON_DAYS = 56  #: day types are learned from this many days, and the past forecasts made on as many
ORIGINS = 42  #: past forecasts that make the band, at most
FEWEST_ORIGINS = 8  #: with fewer the band is wide by rule
FEWEST_DAYS = 5  #: a past forecast is made only from at least this many days
LEAST_SHARE = 0.125  #: of the first day must have passed before anything is said: three hours
BAND = (0.05, 0.95)  #: of the past errors; more than the four fifths it promises, as the back-test showed it to need
NARROWEST = 0.03  #: nobody knows the future better than this
_DECAY = 0.5 ** (1 / HALF_LIFE_DAYS)


class Trust(StrEnum):
    """What the band rests on."""

    ERRORS = "errors"  # the errors of past forecasts
    RULE = "rule"  # too few of them: wide by rule
    NONE = "none"  # nothing can be said yet


class Coming(NamedTuple):
    """Time of the period that is still to come, all of it in one calendar day."""

    start_at: datetime
    end_at: datetime
    weekday: int
    share: float  #: of a typical day's spend


class Expected(NamedTuple):
    """Expected spend of a stretch of time."""

    start_at: datetime
    end_at: datetime
    cost_nano: int


class Forecast(NamedTuple):
    """Spend at the end of the period. None = nothing can be said; ``why`` has the reason in words."""

    cost_nano: int | None
    low_nano: int | None
    high_nano: int | None
    trust: Trust
    why: str
    expected: tuple[Expected, ...] = ()


def share_of_day(hours: Sequence[int], passed_h: float) -> float:
    """The share of a typical day's spend that falls before ``passed_h``; ``hours``: sums by hour since midnight."""
    whole = sum(hours)
    if not whole:
        return min(1.0, passed_h / 24)
    full = min(int(passed_h), len(hours))
    part = hours[full] * (passed_h - full) if full < len(hours) else 0
    return min(1.0, (sum(hours[:full]) + part) / whole)


def forecast(
    spent_nano: int, *, history: Sequence[int], today_nano: int, today_weekday: int, today_share: float,
    coming: Sequence[Coming],
) -> Forecast:  # fmt: skip
    """``history``: nano-dollars of the days before today, oldest first, without gaps, from the first day with spend.

    ``today_share``: of a typical day, passed already. ``coming``: the rest of the period, today's rest first.
    """
    if not coming:
        return Forecast(spent_nano, spent_nano, spent_nano, Trust.ERRORS, "The period is over.")
    days = list(history)[-2 * SEASON_DAYS :]
    if not days and today_share < LEAST_SHARE:
        return Forecast(None, None, None, Trust.NONE, "Too early to say: a forecast needs three hours of spend.")
    if not any(days) and not today_nano:
        return Forecast(None, None, None, Trust.NONE, "Nothing has been spent yet that a forecast could rest on.")
    scale = max(1, (sum(days) + today_nano) // (len(days) + 1))
    ratios = [_ratio(cost, scale) for cost in days]
    first_weekday = (today_weekday - len(days)) % 7
    weights = _weights(ratios, first_weekday)
    level = _level(ratios, first_weekday, weights, today=(_ratio(today_nano, scale), today_weekday, today_share))
    expected = tuple(
        Expected(each.start_at, each.end_at, _amount(scale, level * weights[each.weekday] * each.share))
        for each in coming
    )
    rest_nano = sum(each.cost_nano for each in expected)
    horizon = max(1, sum(1 for each in coming if each.share > 0.5))
    below, above, trust, why = _band(ratios, first_weekday, horizon)
    least_nano = min(rest_nano, max(0, rest_nano - _amount(_usual(rest_nano, scale * horizon), below)))
    return Forecast(
        spent_nano + rest_nano, spent_nano + least_nano,
        spent_nano + rest_nano + _amount(_usual(rest_nano, scale * horizon), above), trust, why, expected,
    )  # fmt: skip


def runs_out_at(limit_nano: int, spent_nano: int, expected: Sequence[Expected]) -> datetime | None:
    """When the expected spend reaches the limit; None = not in this period (or already, when nothing is left)."""
    left = limit_nano - spent_nano
    if left <= 0:
        return None
    for each in expected:
        if each.cost_nano >= left:
            span = each.end_at - each.start_at
            return each.start_at + timedelta(microseconds=span // timedelta(microseconds=1) * left // each.cost_nano)
        left -= each.cost_nano
    return None


def _usual(told: int, mean: int) -> int:
    """What errors are measured in: the spend that was told, but at least half of a usual stretch of that length.

    Else a user who comes once a week would make errors of many hundred percent.
    """
    return max(told, mean // 2)


def _ratio(part: int, whole: int) -> float:
    return part / whole


def _amount(amount: int, ratio: float) -> int:
    """An amount times a ratio, as an integer again."""
    return divide_half_up(amount * int(ratio * PPM), PPM)


def _weights(ratios: Sequence[float], first_weekday: int) -> list[float]:
    """How much each weekday (Monday first) weighs against the mean day; 1 where nothing is known."""
    recent = ratios[-SEASON_DAYS:]
    first = first_weekday + len(ratios) - len(recent)
    mean = sum(recent) / len(recent) if recent else 0.0
    if len(recent) < 7 or not mean:
        return [1.0] * 7
    sums, counts = [0.0] * 7, [0] * 7
    for number, ratio in enumerate(recent):
        sums[(first + number) % 7] += ratio / mean
        counts[(first + number) % 7] += 1
    weights = [(total + 1) / (count + 1) for total, count in zip(sums, counts, strict=True)]
    whole = sum(weights)
    return [7 * weight / whole for weight in weights]


def _level(
    ratios: Sequence[float], first_weekday: int, weights: Sequence[float],
    today: tuple[float, int, float] | None = None,
) -> float:  # fmt: skip
    """The run rate: spend over the weights of its days, newer ones counting more; today as far as it has passed."""
    total = weight = 0.0
    if today and today[2] > 0:
        ratio, weekday, share = today
        total, weight = ratio, weights[weekday] * share
    factor = 1.0
    for number in range(len(ratios) - 1, max(-1, len(ratios) - 1 - SEASON_DAYS), -1):
        total += factor * ratios[number]
        weight += factor * weights[(first_weekday + number) % 7]
        factor *= _DECAY
    return total / weight if weight else 0.0


def _band(ratios: Sequence[float], first_weekday: int, horizon: int) -> tuple[float, float, Trust, str]:
    """How far below and above what is told the rest of the period will end, in four of five cases (see _usual)."""
    reach = min(horizon, len(ratios) - FEWEST_DAYS - FEWEST_ORIGINS + 1)
    if reach < 1:
        spread = 2.0 / (len(ratios) + 1) ** 0.5
        days = f"{len(ratios)} day{'' if len(ratios) == 1 else 's'}"
        why = f"Only {days} of spend before today: the band is wide by rule."
        return spread / (1 + spread), spread, Trust.RULE, why
    errors = []
    last = len(ratios) - reach
    for origin in range(last, max(FEWEST_DAYS - 1, last - ORIGINS), -1):
        past = ratios[:origin]
        weights = _weights(past, first_weekday)
        level = _level(past, first_weekday, weights)
        told = sum(level * weights[(first_weekday + number) % 7] for number in range(origin, origin + reach))
        happened = sum(ratios[origin : origin + reach])
        errors.append((happened - told) / max(told, reach / 2))  # days are measured in their mean: 1
    errors.sort()
    # a period further ahead than any past forecast is as much less certain as a walk that far
    stretch = (horizon / reach) ** 0.5
    # past windows overlap: there are as few independent ones as fit side by side, so the truth may lie further out
    stretch *= (1 + reach / len(errors)) ** 0.5
    below = max(-_quantile(errors, BAND[0]), NARROWEST) * stretch
    above = max(_quantile(errors, BAND[1]), NARROWEST) * stretch
    days = f"{reach} day{'' if reach == 1 else 's'}"
    why = f"Four of five past forecasts over {days} fell into this band ({len(errors)} were checked)."
    return below, above, Trust.ERRORS, why


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Between the neighbours, with the ends counted outwards: few values make a wide band."""
    place = share * (len(ordered) + 1) - 1
    below = min(max(int(place), 0), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * min(max(place - below, 0.0), 1.0)
